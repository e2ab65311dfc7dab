"""CnnNet and SimpleCNN: their sizes and shapes, and that their orders and kits of layers agree."""

from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional as F

from mnist_cnn.errors import UserError
from mnist_cnn.models import CnnNet, SimpleCNN

Network = CnnNet | SimpleCNN


@dataclass(frozen=True)
class Expected:
    network: type[CnnNet] | type[SimpleCNN]
    image_size: int
    weights: dict[str, tuple[int, ...]]
    parameters: int


EXPECTED = [
    Expected(
        CnnNet,
        32,
        {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)},
        61_706,
    ),
    Expected(
        SimpleCNN,
        28,
        {"conv1": (32, 1, 3, 3), "conv2": (64, 32, 3, 3), "fc1": (128, 3136), "fc2": (10, 128)},
        421_642,
    ),
]

each_network = pytest.mark.parametrize("expected", EXPECTED, ids=lambda one: one.network.__name__)
each_kit = pytest.mark.parametrize("layers", ["torch", "handmade"])


def in_the_tutorials_order(network: Network, images: torch.Tensor) -> torch.Tensor:
    """ReLU before pooling, as sections 3.1 and 4.2 have it."""
    x = F.max_pool2d(F.relu(network.conv1(images)), 2)
    x = F.max_pool2d(F.relu(network.conv2(x)), 2)
    x = F.relu(network.fc1(x.flatten(1)))
    return network.fc3(F.relu(network.fc2(x))) if isinstance(network, CnnNet) else network.fc2(x)


@each_network
@each_kit
def test_the_parameters_are_the_tutorials(expected: Expected, layers: str) -> None:
    network = expected.network(layers=layers)
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert shapes == {
        name: shape
        for layer, weight in expected.weights.items()
        for name, shape in ((f"{layer}.weight", weight), (f"{layer}.bias", weight[:1]))
    }
    assert sum(value.numel() for value in network.parameters()) == expected.parameters


@each_network
@each_kit
@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 26)])
def test_images_of_any_number_of_channels_give_logits_of_any_number_of_classes(
    expected: Expected, layers: str, channels: int, classes: int
) -> None:
    network = expected.network(channels, classes, layers)
    size = network.image_size
    assert size == expected.image_size
    assert network(torch.randn(4, channels, size, size)).shape == (4, classes)


@each_network
@pytest.mark.parametrize("shape", [(2, 1, 30, 30), (2, 3, 0, 0), (1, 0, 0)])
def test_other_images_are_refused_with_the_shape_that_is_expected(
    expected: Expected, shape: tuple[int, ...]
) -> None:
    size = expected.image_size
    given = torch.zeros([side or size for side in shape])  # 0 stands for the right size
    message = rf"{expected.network.__name__} expects images of shape \(B, 1, {size}, {size}\), got"
    with pytest.raises(UserError, match=message):
        expected.network()(given)


@each_network
def test_other_layers_are_refused(expected: Expected) -> None:
    with pytest.raises(UserError, match=r"model\.layers=numpy is unknown; choose one of: torch, handmade"):
        expected.network(layers="numpy")


@each_network
@each_kit
def test_pooling_before_relu_changes_neither_outputs_nor_gradients(expected: Expected, layers: str) -> None:
    network = expected.network(layers=layers).double()
    other = expected.network().double()
    other.load_state_dict(network.state_dict())
    shape = (5, 1, expected.image_size, expected.image_size)
    images = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits, reference = network(images), in_the_tutorials_order(other, images)
    torch.testing.assert_close(logits, reference, rtol=0, atol=1e-12)
    logits.square().sum().backward()
    reference.square().sum().backward()
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)


@each_network
def test_both_kits_start_from_the_same_weights(expected: Expected) -> None:
    states = []
    for layers in ("torch", "handmade"):
        torch.manual_seed(3)
        states.append(expected.network(layers=layers).state_dict())
    library, handmade = states
    assert list(library) == list(handmade)
    assert all(torch.equal(library[name], handmade[name]) for name in library)
