"""Max and average pooling; `upsample_max` and `upsample_average` are their backward passes."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from mnist_cnn.models.handmade.arguments import Pair, Size, as_pair, pad


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


def upsample_max(
    delta: Tensor, argmax: Tensor, input_size: Pair, window: Pair, stride: Pair, padding: Pair = (0, 0)
) -> Tensor:
    """Put each δ at the position of the maximum of its window, and zeros elsewhere.

    ∂J/∂a^{l-1} = upsample(δ^l);   an element that is the maximum of several windows gets the sum of their δ

    delta (B, C, I, J), argmax (B, C, I, J) the index of the maximum in its window, counted row by row,
    input_size = (H, W) -> (B, C, H, W). Section 2.2.1.
    """
    padded = padded_zeros(delta, input_size, padding)
    for index, element in enumerate(window_elements(padded, window, stride)):
        element += delta * (argmax == index)
    return without_padding(padded, padding)


def upsample_average(
    delta: Tensor, input_size: Pair, window: Pair, stride: Pair, padding: Pair = (0, 0)
) -> Tensor:
    """Spread each δ evenly over the elements of its window.

    ∂J/∂a^{l-1} = upsample(δ^l);   every element of a window gets δ / (P·Q)

    delta (B, C, I, J), input_size = (H, W) -> (B, C, H, W). Section 2.2.1.
    """
    padded = padded_zeros(delta, input_size, padding)
    share = delta / (window[0] * window[1])
    for element in window_elements(padded, window, stride):
        element += share
    return without_padding(padded, padding)


def padded_zeros(delta: Tensor, input_size: Pair, padding: Pair) -> Tensor:
    """Return zeros for the gradient of a padded input, in the memory format of convolutions."""
    batch, channels = delta.shape[:2]
    height, width = input_size[0] + 2 * padding[0], input_size[1] + 2 * padding[1]
    empty = torch.empty(
        (batch, channels, height, width),
        dtype=delta.dtype,
        device=delta.device,
        memory_format=torch.channels_last,
    )
    return empty.zero_()


def without_padding(x: Tensor, padding: Pair) -> Tensor:
    """Return the part of x (B, C, H, W) without `padding` rows and columns on each side."""
    return x[:, :, padding[0] : x.shape[2] - padding[0], padding[1] : x.shape[3] - padding[1]]


class MaxPooling(Function):
    """The maximum of each window; of equal elements the first, row by row, as in torch.

    a^l[i,j] = max_{p,q} a^{l-1}[s·i + p, s·j + q]     ∂J/∂a^{l-1} = upsample(δ^l)

    x (B, C, H, W) -> (B, C, I, J). Section 2.2.1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Pair, stride: Pair, padding: Pair) -> Tensor:
        ctx.input_size, ctx.window, ctx.stride, ctx.padding = x.shape[2:], window, stride, padding
        elements = window_elements(pad(x, padding, value=-torch.inf), window, stride)
        maximum = next(elements).clone()
        argmax = torch.zeros_like(maximum, dtype=torch.int16)
        for index, element in enumerate(elements, start=1):
            # Indices increase, so torch.maximum puts the index of a new maximum in place of the former one.
            argmax = torch.maximum(argmax, index * (element > maximum).to(argmax.dtype))
            maximum = torch.maximum(maximum, element)
        ctx.save_for_backward(argmax)
        return maximum

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (argmax,) = ctx.saved_tensors
        grad_x = upsample_max(delta, argmax, ctx.input_size, ctx.window, ctx.stride, ctx.padding)
        return grad_x, None, None, None


class AveragePooling(Function):
    """The mean of each window, in which padding counts as zeros, as in torch.

    a^l[i,j] = 1/(P·Q) Σ_{p,q} a^{l-1}[s·i + p, s·j + q]     ∂J/∂a^{l-1} = upsample(δ^l)

    x (B, C, H, W) -> (B, C, I, J). Section 2.2.1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Pair, stride: Pair, padding: Pair) -> Tensor:
        ctx.input_size, ctx.window, ctx.stride, ctx.padding = x.shape[2:], window, stride, padding
        elements = window_elements(pad(x, padding), window, stride)
        total = next(elements).clone()
        for element in elements:
            total += element
        return total / (window[0] * window[1])

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        grad_x = upsample_average(delta, ctx.input_size, ctx.window, ctx.stride, ctx.padding)
        return grad_x, None, None, None


def pooling_arguments(window: Size, stride: Size | None, padding: Size) -> tuple[Pair, Pair, Pair]:
    """Return the window, the stride (by default that of the window) and the padding as pairs.

    Raises `ValueError` if the padding is more than half of the window.
    """
    window, padding = as_pair(window), as_pair(padding)
    if any(2 * margin > size for margin, size in zip(padding, window, strict=True)):
        raise ValueError(f"a padding of {padding} is more than half of the window {window}")
    return window, window if stride is None else as_pair(stride), padding


def max_pool2d(x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Tensor:
    """Compute `torch.nn.functional.max_pool2d`: (B, C, H, W) -> (B, C, I, J).

    Raises `ValueError` if no window fits or the padding is more than half of the window.
    """
    pooled: Tensor = MaxPooling.apply(x, *pooling_arguments(kernel_size, stride, padding))
    return pooled


def avg_pool2d(x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Tensor:
    """Compute `torch.nn.functional.avg_pool2d`: (B, C, H, W) -> (B, C, I, J).

    Raises `ValueError` if no window fits or the padding is more than half of the window.
    """
    pooled: Tensor = AveragePooling.apply(x, *pooling_arguments(kernel_size, stride, padding))
    return pooled


class MaxPool2d(nn.Module):
    """torch.nn.MaxPool2d, computed by `MaxPooling`."""

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = pooling_arguments(kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return max_pool2d(x, self.kernel_size, self.stride, self.padding)


class AvgPool2d(nn.Module):
    """torch.nn.AvgPool2d, computed by `AveragePooling`."""

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = pooling_arguments(kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(x, self.kernel_size, self.stride, self.padding)
