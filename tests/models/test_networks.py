"""CnnNet and SimpleCNN: shapes, parameters, layer sets, export; and networks that are configured by YAML."""

from dataclasses import dataclass

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn import functional as F

from mnist_cnn.errors import UserError
from mnist_cnn.models import CnnNet, SimpleCNN
from tests.conftest import REPOSITORY

Network = CnnNet | SimpleCNN


@dataclass(frozen=True)
class Case:
    network: type[CnnNet] | type[SimpleCNN]
    image_size: int
    smallest_size: int
    weight_shapes: dict[str, tuple[int, ...]]
    num_parameters: int


CASES = [
    Case(
        CnnNet,
        32,
        16,
        {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)},
        61_706,
    ),
    Case(
        SimpleCNN,
        28,
        4,
        {"conv1": (32, 1, 3, 3), "conv2": (64, 32, 3, 3), "fc1": (128, 3136), "fc2": (10, 128)},
        421_642,
    ),
]

each_network = pytest.mark.parametrize("case", CASES, ids=lambda case: case.network.__name__)
each_layer_set = pytest.mark.parametrize("layers", ["torch", "handmade"])


def forward_in_tutorial_order(network: Network, images: Tensor) -> Tensor:
    """Apply ReLU before pooling, as in sections 3.1 and 4.2."""
    x = F.max_pool2d(F.relu(network.conv1(images)), 2)
    x = F.max_pool2d(F.relu(network.conv2(x)), 2)
    x = F.relu(network.fc1(x.flatten(1)))
    return network.fc3(F.relu(network.fc2(x))) if isinstance(network, CnnNet) else network.fc2(x)


@each_network
@each_layer_set
def test_default_parameters_match_the_tutorial(case: Case, layers: str) -> None:
    torch.manual_seed(3)
    network = case.network(layers=layers)
    torch.manual_seed(3)
    library = case.network()  # has the same names and initial weights
    torch.testing.assert_close(network.state_dict(), library.state_dict(), rtol=0, atol=0)
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert shapes == {
        name: shape
        for layer, weight_shape in case.weight_shapes.items()
        for name, shape in ((f"{layer}.weight", weight_shape), (f"{layer}.bias", weight_shape[:1]))
    }
    assert sum(value.numel() for value in network.parameters()) == case.num_parameters
    assert network.image_size == case.image_size


@each_network
@each_layer_set
def test_standardized_images_give_the_same_logits_at_any_brightness_and_contrast(
    case: Case, layers: str
) -> None:
    network = case.network(layers=layers, standardize=True)
    images = torch.rand(3, 1, case.image_size, case.image_size)
    torch.testing.assert_close(network(0.3 * images + 0.6), network(images), atol=1e-3, rtol=0)
    flat = torch.full((1, 1, case.image_size, case.image_size), 0.5)
    assert network(flat).isfinite().all()


@each_network
@each_layer_set
@pytest.mark.parametrize(("channels", "classes", "size"), [(1, 10, None), (3, 26, 45), (2, 4, "smallest")])
def test_channels_classes_and_image_size_are_configurable(
    case: Case, layers: str, channels: int, classes: int, size: int | str | None
) -> None:
    size = {None: case.image_size, "smallest": case.smallest_size}.get(size, size)
    network = case.network(channels, classes, size, layers)
    assert network(torch.randn(4, channels, size, size)).shape == (4, classes)


@each_network
def test_unsuitable_arguments_raise(case: Case) -> None:
    with pytest.raises(UserError, match=f"{case.smallest_size}x{case.smallest_size} pixels"):
        case.network(image_size=case.smallest_size - 1)
    with pytest.raises(UserError, match=r"model\.layers=numpy is unknown; choose one of: torch, handmade"):
        case.network(layers="numpy")


@each_network
@each_layer_set
def test_pooling_before_relu_is_exact(case: Case, layers: str) -> None:
    network = case.network(layers=layers).double()
    reference = case.network().double()
    reference.load_state_dict(network.state_dict())
    shape = (5, 1, case.image_size, case.image_size)
    images = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits, expected = network(images), forward_in_tutorial_order(reference, images)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    logits.square().sum().backward()
    expected.square().sum().backward()
    for actual, wanted in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, wanted.grad, rtol=1e-12, atol=1e-12)


# --- Configuration -------------------------------------------------------------------------------


def build(*overrides: str) -> nn.Module:
    """Return the network of `python train.py OVERRIDES`."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return instantiate(compose("train", overrides=list(overrides)).model)


@pytest.mark.parametrize("case", CASES, ids=["cnnnet", "simple"])
def test_configured_network_follows_the_data(case: Case, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    network = build(f"model={name}")
    assert isinstance(network, case.network)
    assert network.image_size == case.image_size
    assert sum(value.numel() for value in network.parameters()) == case.num_parameters

    network = build(f"model={name}", "data.in_channels=3", "data.num_classes=26", "model.image_size=48")
    assert network(torch.randn(2, 3, 48, 48)).shape == (2, 26)
