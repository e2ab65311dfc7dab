"""The NumPy forward and backward passes of CnnNet, compared with autograd and the tutorial's examples."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mnist_cnn.models import CnnNet, backprop

IMAGES = torch.randn(4, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([3, 0, 9, 3])


def forward_with_gradients(network: CnnNet, images: Tensor) -> dict[str, Tensor]:
    """Return z of every layer; a backward pass stores δ in its `.grad`."""
    z, x = {}, images
    for layer in ("conv1", "conv2"):
        z[layer] = getattr(network, layer)(x)
        x = F.max_pool2d(F.relu(z[layer]), 2)
    x = x.flatten(1)
    for layer in ("fc1", "fc2", "fc3"):
        z[layer] = getattr(network, layer)(x)
        x = F.relu(z[layer])
    for value in z.values():
        value.retain_grad()
    return z


@pytest.fixture
def network() -> CnnNet:
    torch.manual_seed(2)
    return CnnNet().double()


def test_training_step_matches_autograd(network):
    """Compares every z, every δ, every gradient, and the parameters after one step of SGD."""
    parameters = backprop.copy_parameters(network)
    cache = backprop.forward(parameters, IMAGES.numpy())
    value, delta = backprop.cross_entropy(cache.z["fc3"], TARGETS.numpy())
    result = backprop.backward(parameters, cache, delta)
    updated = backprop.sgd_step(parameters, result.gradients, lr=0.1)

    z = forward_with_gradients(network, IMAGES)
    expected = F.cross_entropy(z["fc3"], TARGETS)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    expected.backward()
    optimizer.step()

    assert value == pytest.approx(expected.item(), abs=1e-12)
    assert set(cache.z) == set(result.deltas) == set(z)
    for layer in z:
        np.testing.assert_allclose(cache.z[layer], z[layer].detach(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(result.deltas[layer], z[layer].grad, rtol=0, atol=1e-12)
    assert set(updated) == set(network.state_dict())
    for name, parameter in network.named_parameters():
        np.testing.assert_allclose(result.gradients[name], parameter.grad, rtol=0, atol=1e-12)
        np.testing.assert_allclose(updated[name], parameter.detach(), rtol=0, atol=1e-12)


def test_float32_inputs_give_float32_results_that_share_no_memory_with_the_network(network):
    parameters = backprop.copy_parameters(network.float())
    parameters["fc3.bias"] += 1
    assert not np.allclose(parameters["fc3.bias"], network.fc3.bias.detach())
    cache = backprop.forward(parameters, IMAGES.float().numpy())
    _, delta = backprop.cross_entropy(cache.z["fc3"], TARGETS.numpy())
    result = backprop.backward(parameters, cache, delta)
    arrays = [*cache.z.values(), *result.deltas.values(), *result.gradients.values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_max_pooling_example():
    """Section 2.2.1: pooling finds the four maxima, and upsampling puts δ at their positions."""
    image = np.array([[2.0, 0, 0, 0], [0, 0, 0, 8], [0, 4, 0, 0], [0, 0, 6, 0]])[None, None]
    delta, argmax = backprop.max_pool(image)
    assert delta[0, 0].tolist() == [[2, 8], [4, 6]]
    assert argmax[0, 0].tolist() == [[0, 3], [1, 2]]
    assert backprop.upsample(delta, argmax).tolist() == image.tolist()


def test_convolution_delta_example():
    """Section 2.2.2 with numbers: w = ((1, 2), (3, 4)), δ = ((1, 10), (100, 1000))."""
    w = np.array([[1.0, 2.0], [3.0, 4.0]])[None, None]
    delta = np.array([[1.0, 10.0], [100.0, 1000.0]])[None, None]
    assert backprop.conv_delta(delta, w)[0, 0].tolist() == [
        [1, 2 + 10, 20],
        [3 + 100, 4 + 30 + 200 + 1000, 40 + 2000],
        [300, 400 + 3000, 4000],
    ]


def test_kernel_gradient_example():
    """Section 2.2.3 with numbers: a counts from 1 to 16, and each sum weights four neighbours by δ."""
    a = np.arange(1.0, 17.0).reshape(1, 1, 4, 4)
    delta = np.array([[1.0, 10.0], [100.0, 1000.0]])[None, None]
    sums = [[i + 10 * (i + 1) + 100 * (i + 4) + 1000 * (i + 5) for i in range(r, r + 3)] for r in (1, 5, 9)]
    assert backprop.kernel_gradient(a, delta)[0, 0].tolist() == sums
