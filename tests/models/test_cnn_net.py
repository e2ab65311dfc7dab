"""CnnNet: its size, its shapes, and that its two orders and its two kits of layers agree."""

import pytest
import torch
from torch.nn import functional as F

from mnist_cnn.errors import UserError
from mnist_cnn.models import CnnNet


def in_the_tutorials_order(network: CnnNet, images: torch.Tensor) -> torch.Tensor:
    """ReLU before pooling, as section 3.1 has it."""
    x = F.max_pool2d(F.relu(network.conv1(images)), 2)
    x = F.max_pool2d(F.relu(network.conv2(x)), 2)
    x = F.relu(network.fc1(x.flatten(1)))
    return network.fc3(F.relu(network.fc2(x)))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(5, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layers", ["torch", "handmade"])
def test_parameters(layers):
    shapes = {name: tuple(value.shape) for name, value in CnnNet(layers=layers).named_parameters()}
    assert shapes == {
        "conv1.weight": (6, 1, 5, 5),
        "conv1.bias": (6,),
        "conv2.weight": (16, 6, 5, 5),
        "conv2.bias": (16,),
        "fc1.weight": (120, 400),
        "fc1.bias": (120,),
        "fc2.weight": (84, 120),
        "fc2.bias": (84,),
        "fc3.weight": (10, 84),
        "fc3.bias": (10,),
    }
    assert sum(value.numel() for value in CnnNet(layers=layers).parameters()) == 61_706


@pytest.mark.parametrize("layers", ["torch", "handmade"])
@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 26)])
def test_shapes(layers, channels, classes):
    network = CnnNet(channels, classes, layers)
    assert network(torch.randn(4, channels, network.image_size, network.image_size)).shape == (4, classes)


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 32), (1, 32, 32)])
def test_other_images_are_refused(shape):
    with pytest.raises(UserError, match=r"CnnNet expects images of shape \(B, 1, 32, 32\), got"):
        CnnNet()(torch.zeros(shape))


def test_other_layers_are_refused():
    with pytest.raises(UserError, match=r"model\.layers=numpy is unknown; choose one of: torch, handmade"):
        CnnNet(layers="numpy")


@pytest.mark.parametrize("layers", ["torch", "handmade"])
def test_pooling_first_changes_nothing(layers, images):
    network = CnnNet(layers=layers).double()
    other = CnnNet().double()
    other.load_state_dict(network.state_dict())
    logits, expected = network(images), in_the_tutorials_order(other, images)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    logits.square().sum().backward()
    expected.square().sum().backward()
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)


def test_both_kits_start_alike():
    torch.manual_seed(3)
    library = CnnNet().state_dict()
    torch.manual_seed(3)
    handmade = CnnNet(layers="handmade").state_dict()
    assert list(library) == list(handmade)
    assert all(torch.equal(library[name], handmade[name]) for name in library)
