"""The convolution: the sliding window, and the two formulas of its backward pass.

`correlate` does all the work: the forward pass, `conv2d_delta` and `conv2d_kernel_gradient` each call it
once.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from mnist_cnn.models.handmade.arguments import Pair, Size, as_pair, cast_for_autocast, pad


def correlate(x: Tensor, w: Tensor, stride: Pair = (1, 1), dilation: Pair = (1, 1)) -> Tensor:
    """Slide w over x and sum the products: the tutorial's `*`, which does not rotate the kernel.

    (x * w)[b,n,i,j] = Σ_c Σ_p Σ_q x[b, c, stride·i + dilation·p, stride·j + dilation·q] w[n,c,p,q]

    x (B, C, H, W), w (N, C, P, Q) -> (B, N, I, J). Section 2.2.2, the forward example.
    """
    # With the channels last in memory, a window consists of few long runs and is copied faster.
    x = x.contiguous(memory_format=torch.channels_last)
    height, width = (d * (size - 1) + 1 for d, size in zip(dilation, w.shape[2:], strict=True))
    windows = x.unfold(2, height, stride[0]).unfold(3, width, stride[1])  # a view of x, no copy
    windows = windows[..., :: dilation[0], :: dilation[1]]  # (B, C, I, J, P, Q)
    rows = windows.permute(0, 2, 3, 4, 5, 1).flatten(3)  # (B, I, J, P·Q·C), a copy
    kernels = w.permute(0, 2, 3, 1).flatten(1)  # (N, P·Q·C)
    return (rows @ kernels.T).permute(0, 3, 1, 2)


def rot180(w: Tensor) -> Tensor:
    """Rotate kernels (N, C, P, Q) by 180 degrees (section 2.2.2)."""
    return w.flip(2, 3)


def conv2d_delta(delta: Tensor, weight: Tensor, input_size: Pair, stride: Pair, padding: Pair) -> Tensor:
    """Propagate δ back through a convolution to its input.

    ∂J/∂a^{l-1} = δ^l * rot180(W^l)

    This is a full convolution: δ is surrounded by P - 1 and Q - 1 zeros on each side. With a stride, zeros
    are also inserted between the elements of δ. The part that belongs to the padding of the input is cut off.

    delta (B, N, I, J), weight (N, C, P, Q), input_size = (H, W) -> (B, C, H, W). Section 2.2.2.
    """
    delta = with_zeros_between(delta, stride)
    (height, width), (p, q) = input_size, weight.shape[2:]
    above, left = p - 1 - padding[0], q - 1 - padding[1]
    below = height + p - 1 - above - delta.shape[2]
    right = width + q - 1 - left - delta.shape[3]
    full = F.pad(delta, (left, right, above, below))  # a negative number cuts off rows or columns
    return correlate(full, rot180(weight).transpose(0, 1))


def with_zeros_between(delta: Tensor, stride: Pair) -> Tensor:
    """Insert stride - 1 zeros between the neighbours in δ (B, N, I, J), in each direction."""
    if stride == (1, 1):
        return delta
    rows, columns = (step * (size - 1) + 1 for step, size in zip(stride, delta.shape[2:], strict=True))
    spread = delta.new_zeros(*delta.shape[:2], rows, columns)
    spread[:, :, :: stride[0], :: stride[1]] = delta
    return spread


def conv2d_kernel_gradient(
    x: Tensor, delta: Tensor, kernel_size: Pair, stride: Pair, padding: Pair
) -> Tensor:
    """Return the gradient of the kernels: the input correlated with δ, without a rotation.

    ∂J/∂W^l = a^{l-1} * δ^l:   ∂J/∂W[n,c,p,q] = Σ_b Σ_i Σ_j δ[b,n,i,j] a[b,c,i+p,j+q]

    The sum runs over the batch where a forward pass sums over the channels, so B and C are swapped. The
    stride of the forward pass is the dilation of δ here.

    x (B, C, H, W), delta (B, N, I, J), kernel_size = (P, Q) -> (N, C, P, Q). Section 2.2.3.
    """
    height, width = (  # without the rows and columns at the end that no window covers
        step * (size - 1) + kernel
        for step, size, kernel in zip(stride, delta.shape[2:], kernel_size, strict=True)
    )
    x = pad(x, padding)[:, :, :height, :width]
    gradient = correlate(x.transpose(0, 1), delta.transpose(0, 1), dilation=stride)
    return gradient.transpose(0, 1)  # (C, N, P, Q) -> (N, C, P, Q)


class Convolution(Function):
    """The forward and backward pass of a convolution.

    z^l = a^{l-1} * W^l + b^l
    ∂J/∂a^{l-1} = δ^l * rot180(W^l)     ∂J/∂W^l = a^{l-1} * δ^l     ∂J/∂b^l = Σ_{u,v} (δ^l)_{u,v}

    x (B, C, H, W), weight (N, C, P, Q), bias (N,) -> z (B, N, I, J); δ has the shape of z.
    Sections 2.2.2 and 2.2.3.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        z = correlate(pad(x, padding), weight, stride)
        return z if bias is None else z.add_(bias[:, None, None])

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:  # not for the images, the input of the first layer
            grad_x = conv2d_delta(delta, weight, x.shape[2:], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            grad_weight = conv2d_kernel_gradient(x, delta, weight.shape[2:], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            grad_bias = delta.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, None


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0
) -> Tensor:
    """Compute `torch.nn.functional.conv2d`: (B, C, H, W), (N, C, P, Q), (N,) -> (B, N, I, J)."""
    x, weight, bias = cast_for_autocast(x, weight, bias)
    z: Tensor = Convolution.apply(x, weight, bias, as_pair(stride), as_pair(padding))
    return z


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d with the same parameters and initialization, computed by `Convolution`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        bias: bool = True,
    ) -> None:
        sizes = as_pair(kernel_size), as_pair(stride), as_pair(padding)
        super().__init__(in_channels, out_channels, *sizes, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        assert not isinstance(self.padding, str)  # __init__ accepts only numbers
        return conv2d(input, self.weight, self.bias, self.stride, self.padding)
