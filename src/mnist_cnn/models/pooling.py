"""Max pooling whose backward pass writes each gradient once, for training on CPUs."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def max_pool2d(images: Tensor, kernel_size: int) -> Tensor:
    """Return `torch.nn.functional.max_pool2d(images, kernel_size)`, with the same gradients.

    torch fills the gradient (B, C, H, W) with zeros and then writes a quarter of it, and its kernels for
    bfloat16 on CPUs are slow. There, pooling 2x2 as two maxima of halves takes two thirds of the time.
    """
    halves = (
        kernel_size == 2
        and images.requires_grad
        and images.dtype == torch.bfloat16
        and images.device.type == "cpu"
        and images.shape[2] % 2 == images.shape[3] % 2 == 0
        and images.is_contiguous(memory_format=torch.channels_last)
    )
    if not halves:
        return F.max_pool2d(images, kernel_size)
    pooled: Tensor = _MaxOfHalves.apply(images)
    return pooled


class _MaxOfHalves(torch.autograd.Function):
    """The maximum of the left and right columns, then of the upper and lower rows, both channels last.

    Where values are equal the first in the order of rows has the gradient, as in torch. The masks are kept
    in the type of the images, since torch's comparisons are vectorized only without a conversion to bool.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        x = images.permute(0, 2, 3, 1).view(batch, height // 2, 2, width // 2, 2, channels)
        left, right = x[..., 0, :], x[..., 1, :]  # (B, H/2, 2, W/2, C)
        across = torch.maximum(left, right)
        upper, lower = across[:, :, 0], across[:, :, 1]  # (B, H/2, W/2, C)
        is_right = torch.gt(right, left, out=torch.empty_like(across))
        is_lower = torch.gt(lower, upper, out=torch.empty_like(lower))
        ctx.save_for_backward(is_right, is_lower)
        return torch.maximum(upper, lower).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        is_right, is_lower = ctx.saved_tensors
        pooled = gradient.permute(0, 2, 3, 1)  # (B, H/2, W/2, C)
        batch, height, width, channels = pooled.shape
        across = pooled.new_empty(batch, height, 2, width, channels)
        torch.mul(pooled, is_lower, out=across[:, :, 1])
        torch.sub(pooled, across[:, :, 1], out=across[:, :, 0])
        full = pooled.new_empty(batch, height, 2, width, 2, channels)
        torch.mul(across, is_right, out=full[..., 1, :])
        torch.sub(across, full[..., 1, :], out=full[..., 0, :])
        return full.view(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
