"""Max pooling of 2x2 windows that trains faster on CPUs than the library's, with the same results."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# With fewer channels of two bytes, operations on each second pixel cannot use vector instructions.
NARROW = 16
# With fewer channels than this, and not fewer than NARROW, the library is as fast.
WIDE = 32


def max_pool2d(x: Tensor, size: int) -> Tensor:
    """Return the maxima of windows of `size` x `size` pixels, as `torch.nn.functional.max_pool2d` does.

    Maps (N, C, H, W) to (N, C, H // size, W // size). Of equal values in a window the first gets the
    gradient, as in the library. Windows of 2x2 are computed by `_MaxPool2x2` where a CPU needs gradients.
    """
    # Graphs show, and exports need, the operation of the library.
    is_traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    is_trained = x.requires_grad and torch.is_grad_enabled()
    if is_traced or not is_trained or not _is_faster(x, size):
        return F.max_pool2d(x, size)
    y: Tensor = _MaxPool2x2.apply(x)
    return y


def _is_faster(x: Tensor, size: int) -> bool:
    channels, height, width = x.shape[1:]
    even = size == 2 and height % 2 == 0 and width % 2 == 0
    return x.device.type == "cpu" and even and not NARROW <= channels < WIDE


class _MaxPool2x2(torch.autograd.Function):
    """The larger of each pair of pixels in a row, and then of each pair of these in a column.

    It takes comparisons and multiplications by their results, 0 and 1, which have vector instructions. The
    library's kernel looks at one window at a time, and its backward pass fills the gradient with zeros first.
    Pixels are stored with their channels together (`torch.channels_last`): shapes are (N, H, W, C).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        pairs, is_right = _larger_of_pairs(x.permute(0, 2, 3, 1))  # (N, H, W/2, C)
        pairs = pairs.view(n, h // 2, 2, w // 2, c)
        upper, lower = pairs[:, :, 0], pairs[:, :, 1]
        y = torch.maximum(upper, lower)  # (N, H/2, W/2, C)
        is_lower = torch.gt(lower, upper, out=torch.empty_like(y))
        ctx.save_for_backward(is_right, is_lower)
        return y.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        is_right, is_lower = ctx.saved_tensors
        n, c, h, w = gradient.shape  # of the maxima
        gradient = gradient.permute(0, 2, 3, 1)
        pairs = gradient.new_empty(n, h, 2, w, c)
        upper, lower = pairs[:, :, 0], pairs[:, :, 1]
        torch.mul(gradient, is_lower, out=lower)
        torch.sub(gradient, lower, out=upper)
        return _gradient_of_pairs(pairs.view(n, 2 * h, w, c), is_right).permute(0, 3, 1, 2)


def _is_wide(pixels: Tensor) -> bool:
    return pixels.shape[3] >= NARROW or pixels.element_size() > 2


def _larger_of_pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the larger of each pair in a row (N, H, W/2, C), and 1 where it is the right one, else 0."""
    n, h, w, c = x.shape
    if _is_wide(x):
        pixels = x.reshape(n, h, w // 2, 2, c)
        left, right = pixels[:, :, :, 0], pixels[:, :, :, 1]
        larger = torch.maximum(left, right)
        return larger, torch.gt(right, left, out=torch.empty_like(larger))
    # Of all neighbours, as if there were one long row; each second result is used.
    row = x.reshape(-1)
    larger, is_right = torch.empty_like(row), torch.empty_like(row)
    torch.maximum(row[:-c], row[c:], out=larger[:-c])
    torch.gt(row[c:], row[:-c], out=is_right[:-c])
    is_right[-c:] = 0  # read, and multiplied by 0, which is not 0 for what may be in empty memory
    return larger.view(n, h, w // 2, 2, c)[:, :, :, 0].contiguous(), is_right


def _gradient_of_pairs(gradient: Tensor, is_right: Tensor) -> Tensor:
    """Return the gradient of the pixels (N, H, 2 W, C), given that of the larger ones (N, H, W, C)."""
    n, h, w, c = gradient.shape
    if _is_wide(gradient):
        pixels = gradient.new_empty(n, h, w, 2, c)
        left, right = pixels[:, :, :, 0], pixels[:, :, :, 1]
        torch.mul(gradient, is_right, out=right)
        torch.sub(gradient, right, out=left)
        return pixels.view(n, h, 2 * w, c)
    row = gradient.new_zeros(n, h, w, 2, c)
    row[:, :, :, 0] = gradient
    row = row.view(-1)
    right = torch.mul(row, is_right, out=torch.empty_like(row))
    left = row.sub_(right)
    left[c:] += right[:-c]  # the right pixels' places are 0 in `left`
    return left.view(n, h, 2 * w, c)
