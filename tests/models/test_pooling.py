import pytest
import torch
from torch.nn import functional as F

from mnist_cnn.models.pooling import max_pool2d


def bfloat16_images(*shape: int) -> torch.Tensor:
    """Return images of few different values, so that windows hold equal ones."""
    images = torch.randint(-4, 4, shape, generator=torch.Generator().manual_seed(0)).bfloat16()
    return images.to(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("size", [(6, 8), (14, 14)])
def test_values_and_gradients_equal_those_of_torch_where_values_are_equal(size):
    images = bfloat16_images(3, 5, *size)
    expected, pooled = F.max_pool2d(images, 2), max_pool2d(images, 2)
    assert type(pooled.grad_fn).__name__ == "_MaxOfHalvesBackward"
    assert torch.equal(pooled, expected)
    gradient = torch.randn(expected.shape).bfloat16()
    expected_gradient, own = (torch.autograd.grad(out, images, gradient)[0] for out in (expected, pooled))
    assert torch.equal(own, expected_gradient)
    assert own.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("images", "kernel_size"),
    [
        (torch.randn(2, 3, 6, 6, requires_grad=True), 2),  # float32
        (torch.randn(2, 3, 6, 6).bfloat16().requires_grad_(), 2),  # channels first
        (bfloat16_images(2, 3, 7, 6), 2),  # an odd number of rows, of which the last is left out
        (bfloat16_images(2, 3, 6, 6), 3),
        (bfloat16_images(2, 3, 6, 6).detach(), 2),  # no gradient
    ],
)
def test_images_of_other_forms_are_pooled_by_torch(images, kernel_size):
    assert torch.equal(max_pool2d(images, kernel_size), F.max_pool2d(images, kernel_size))
