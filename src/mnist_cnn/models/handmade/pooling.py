"""Max and average pooling; `upsample_max` and `upsample_average` are their backward passes."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from mnist_cnn.models.handmade.arguments import Pair, Size, as_pair


def window_elements(x: Tensor, window: Pair, stride: Pair) -> Iterator[Tensor]:
    """Yield, for each position in the window row by row, the element at that position of every window.

    x (B, C, H, W) -> P·Q views (B, C, I, J) of x. Rows and columns that do not fill a window are left out.
    Raises `ValueError` if no window fits.
    """
    rows, columns = ((n - size) // s + 1 for n, size, s in zip(x.shape[2:], window, stride, strict=True))
    if rows < 1 or columns < 1:
        raise ValueError(f"a window of {window} does not fit into an input of {tuple(x.shape[2:])}")
    for p in range(window[0]):
        for q in range(window[1]):
            vertical = slice(p, p + stride[0] * (rows - 1) + 1, stride[0])
            horizontal = slice(q, q + stride[1] * (columns - 1) + 1, stride[1])
            yield x[:, :, vertical, horizontal]


def upsample_max(delta: Tensor, argmax: Tensor, input_size: Pair, window: Pair, stride: Pair) -> Tensor:
    """Put each δ at the position of the maximum of its window, and zeros elsewhere.

    ∂J/∂a^{l-1} = upsample(δ^l);   an element that is the maximum of several windows gets the sum of their δ

    delta (B, C, I, J), argmax (B, C, I, J) the index of the maximum in its window, counted row by row,
    input_size = (H, W) -> (B, C, H, W). Section 2.2.1.
    """
    upsampled = delta.new_zeros(*delta.shape[:2], *input_size)
    for index, element in enumerate(window_elements(upsampled, window, stride)):
        element += delta * (argmax == index)
    return upsampled


def upsample_average(delta: Tensor, input_size: Pair, window: Pair, stride: Pair) -> Tensor:
    """Spread each δ evenly over the elements of its window.

    ∂J/∂a^{l-1} = upsample(δ^l);   every element of a window gets δ / (P·Q)

    delta (B, C, I, J), input_size = (H, W) -> (B, C, H, W). Section 2.2.1.
    """
    upsampled = delta.new_zeros(*delta.shape[:2], *input_size)
    share = delta / (window[0] * window[1])
    for element in window_elements(upsampled, window, stride):
        element += share
    return upsampled


class MaxPooling(Function):
    """The maximum of each window; of equal elements the first, row by row, as in torch.

    a^l[i,j] = max_{p,q} a^{l-1}[s·i + p, s·j + q]     ∂J/∂a^{l-1} = upsample(δ^l)

    x (B, C, H, W) -> (B, C, I, J). Section 2.2.1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Pair, stride: Pair) -> Tensor:
        ctx.input_size, ctx.window, ctx.stride = x.shape[2:], window, stride
        maximum, argmax = torch.stack(list(window_elements(x, window, stride))).max(0)
        ctx.save_for_backward(argmax)
        return maximum

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (argmax,) = ctx.saved_tensors
        return upsample_max(delta, argmax, ctx.input_size, ctx.window, ctx.stride), None, None


class AveragePooling(Function):
    """The mean of each window.

    a^l[i,j] = 1/(P·Q) Σ_{p,q} a^{l-1}[s·i + p, s·j + q]     ∂J/∂a^{l-1} = upsample(δ^l)

    x (B, C, H, W) -> (B, C, I, J). Section 2.2.1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Pair, stride: Pair) -> Tensor:
        ctx.input_size, ctx.window, ctx.stride = x.shape[2:], window, stride
        return torch.stack(list(window_elements(x, window, stride))).mean(0)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        return upsample_average(delta, ctx.input_size, ctx.window, ctx.stride), None, None


def max_pool2d(x: Tensor, kernel_size: Size, stride: Size | None = None) -> Tensor:
    """Compute `torch.nn.functional.max_pool2d` without padding: (B, C, H, W) -> (B, C, I, J).

    The stride is by default the size of the window. Raises `ValueError` if no window fits.
    """
    pooled: Tensor = MaxPooling.apply(x, as_pair(kernel_size), as_pair(stride or kernel_size))
    return pooled


def avg_pool2d(x: Tensor, kernel_size: Size, stride: Size | None = None) -> Tensor:
    """Compute `torch.nn.functional.avg_pool2d` without padding: (B, C, H, W) -> (B, C, I, J).

    The stride is by default the size of the window. Raises `ValueError` if no window fits.
    """
    pooled: Tensor = AveragePooling.apply(x, as_pair(kernel_size), as_pair(stride or kernel_size))
    return pooled
