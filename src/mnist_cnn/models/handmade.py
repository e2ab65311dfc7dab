"""Handmade layers and losses: forward and backward passes from the tutorial's formulas (section 2).

Autograd only chains the functions of this module; each of them computes its own forward and backward
pass. `correlate`, which slides kernels over images, does the work of the convolution: the forward pass,
`conv2d_delta` and `conv2d_kernel_gradient` each call it once. `upsample_max` and `upsample_average` are
the backward passes of pooling.

Shapes: B batch, C input channels, N kernels (output channels), H x W input size, I x J output size,
P x Q kernel or window size, K classes, D input features, M output features.
In the tutorial the formulas of a layer include σ'(z), the derivative of the activation. Here ReLU is a
layer of its own, and the product with σ'(z) is its backward pass.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

Pair = tuple[int, int]
Size = int | tuple[int, ...]  # one number for both directions, or (vertical, horizontal)

# The product of a tall matrix with one of fewer columns than this is slow on a CPU. The transposed product
# takes half the time: a training step of CnnNet, which has 6 kernels, becomes 20 % faster.
MIN_PRODUCT_COLUMNS = 10

# Windows are copied in chunks of about this many elements. 2 MB in float32 stay in the cache until they are
# multiplied; the windows of a whole batch take 10 to 100 MB. A step of SimpleCNN becomes 15 % faster.
CHUNK_ELEMENTS = 2**19


# --- Convolution ---------------------------------------------------------------------------------


def correlate(x: Tensor, w: Tensor, stride: Pair = (1, 1), dilation: Pair = (1, 1)) -> Tensor:
    """Slide w over x and sum the products: the tutorial's `*`, which does not rotate the kernel.

    (x * w)[b,n,i,j] = Σ_c Σ_p Σ_q x[b, c, stride·i + dilation·p, stride·j + dilation·q] w[n,c,p,q]

    x (B, C, H, W), w (N, C, P, Q) -> (B, N, I, J). Section 2.2.2, the forward example.
    """
    channels_outermost = x.stride(1) != 1 and 1 in (x.stride(0), x.shape[0])
    if x.stride(1) != 1 and not channels_outermost:
        x = x.contiguous(memory_format=torch.channels_last)
    height, width = (d * (n - 1) + 1 for d, n in zip(dilation, w.shape[2:], strict=True))
    windows = x.unfold(2, height, stride[0]).unfold(3, width, stride[1])  # a view of x, no copy
    windows = windows[..., :: dilation[0], :: dilation[1]]  # (B, C, I, J, P, Q)

    # The rest is one product of two matrices, for which the windows are copied chunk by chunk in their
    # memory order; copying them in another order takes longer than the product.
    if channels_outermost:  # the gradient of kernels swaps batch and channels
        windows = windows.permute(1, 4, 5, 2, 3, 0)  # (C, P, Q, I, J, B)
        kernels = w.permute(1, 2, 3, 0)  # (C, P, Q, N)
        chunks = zip(_chunks(windows, windows), _chunks(kernels, windows), strict=True)
        z = torch.stack([a.flatten(3).flatten(0, 2).T @ k.flatten(0, 2) for a, k in chunks]).sum(0)
        return z.view(*windows.shape[3:], -1).permute(2, 3, 0, 1)  # (I·J·B, N) -> (B, N, I, J)
    windows = windows.permute(0, 2, 3, 4, 5, 1)  # (B, I, J, P, Q, C)
    kernels = w.permute(0, 2, 3, 1).flatten(1)  # (N, P·Q·C)
    rows = (chunk.flatten(3) for chunk in _chunks(windows, windows))
    if len(kernels) < MIN_PRODUCT_COLUMNS:
        z = torch.cat([kernels @ r.flatten(0, 2).T for r in rows], dim=1)  # (N, B·I·J)
        return z.view(-1, *windows.shape[:3]).transpose(0, 1)  # (B, N, I, J)
    return torch.cat([r @ kernels.T for r in rows]).permute(0, 3, 1, 2)  # (B, N, I, J)


def rot180(w: Tensor) -> Tensor:
    """Rotate kernels (N, C, P, Q) by 180 degrees (section 2.2.2)."""
    return w.flip(2, 3)


def conv2d_delta(delta: Tensor, weight: Tensor, input_size: Pair, stride: Pair, padding: Pair) -> Tensor:
    """Propagate δ back through a convolution to its input.

    ∂J/∂a^{l-1} = δ^l * rot180(W^l)

    This is a full convolution: δ is padded with P - 1 and Q - 1 zeros on each side. With a stride,
    zeros are also inserted between the elements of δ. The part that belongs to the padding of the input
    is cut off.

    delta (B, N, I, J), weight (N, C, P, Q), input_size = (H, W) -> (B, C, H, W). Section 2.2.2.
    """
    rows, columns = delta.shape[2:]
    (height, width), (p, q) = input_size, weight.shape[2:]
    top, left = padding
    full = _zeros(delta, height + 2 * top + p - 1, width + 2 * left + q - 1)
    vertical = slice(p - 1, p + stride[0] * (rows - 1), stride[0])
    horizontal = slice(q - 1, q + stride[1] * (columns - 1), stride[1])
    full[:, :, vertical, horizontal] = delta
    full = full[:, :, top : top + height + p - 1, left : left + width + q - 1]
    return correlate(full, rot180(weight).transpose(0, 1))


def conv2d_kernel_gradient(
    x: Tensor, delta: Tensor, kernel_size: Pair, stride: Pair, padding: Pair
) -> Tensor:
    """Return the gradient of the kernels: the input correlated with δ, without a rotation.

    ∂J/∂W^l = a^{l-1} * δ^l:   ∂J/∂W[n,c,p,q] = Σ_b Σ_i Σ_j δ[b,n,i,j] a[b,c,i+p,j+q]

    The sum runs over the batch where a forward pass sums over channels, so B and C are swapped. A stride
    of the forward pass is a dilation of δ here.

    x (B, C, H, W), delta (B, N, I, J), kernel_size = (P, Q) -> (N, C, P, Q). Section 2.2.3.
    """
    x = _pad(x, padding)
    # rows and columns at the bottom and right that no window covers
    height, width = (
        s * (n - 1) + size for s, n, size in zip(stride, delta.shape[2:], kernel_size, strict=True)
    )
    x = x[:, :, :height, :width]
    gradient = correlate(x.transpose(0, 1), delta.transpose(0, 1), dilation=stride)
    return gradient.transpose(0, 1)  # (C, N, P, Q) -> (N, C, P, Q)


class _Convolution(Function):
    """A convolution of images or feature maps with kernels.

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
        z = correlate(_pad(x, padding), weight, stride)
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
    x, weight, bias = _autocast(x, weight, bias)
    z: Tensor = _Convolution.apply(x, weight, bias, _pair(stride), _pair(padding))
    return z


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d with the same parameters and initialization, computed by `_Convolution`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, _pair(kernel_size), _pair(stride), _pair(padding), bias=bias
        )

    def forward(self, input: Tensor) -> Tensor:
        assert not isinstance(self.padding, str)  # __init__ accepts only numbers
        return conv2d(input, self.weight, self.bias, self.stride, self.padding)


# --- Pooling -------------------------------------------------------------------------------------


def _window_elements(x: Tensor, window: Pair, stride: Pair) -> Iterator[Tensor]:
    """Yield, for each position in the window row by row, the element at that position of every window.

    x (B, C, H, W) -> P·Q views (B, C, I, J) of x. Rows and columns that do not fill a window are left out.
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
    padded, interior = _padded_zeros(delta, input_size, padding)
    for index, element in enumerate(_window_elements(padded, window, stride)):
        element += delta * (argmax == index)
    return interior


def upsample_average(
    delta: Tensor, input_size: Pair, window: Pair, stride: Pair, padding: Pair = (0, 0)
) -> Tensor:
    """Spread each δ evenly over the elements of its window.

    ∂J/∂a^{l-1} = upsample(δ^l);   every element of a window gets δ / (P·Q)

    delta (B, C, I, J), input_size = (H, W) -> (B, C, H, W). Section 2.2.1.
    """
    padded, interior = _padded_zeros(delta, input_size, padding)
    share = delta / (window[0] * window[1])
    for element in _window_elements(padded, window, stride):
        element += share
    return interior


class _MaxPooling(Function):
    """The maximum of each window; of equal elements the first, row by row, as in torch.

    a^l[i,j] = max_{p,q} a^{l-1}[s·i + p, s·j + q]     ∂J/∂a^{l-1} = upsample(δ^l)

    x (B, C, H, W) -> (B, C, I, J). Section 2.2.1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Pair, stride: Pair, padding: Pair) -> Tensor:
        ctx.input_size, ctx.window, ctx.stride, ctx.padding = x.shape[2:], window, stride, padding
        elements = _window_elements(_pad(x, padding, value=-torch.inf), window, stride)
        maximum = next(elements).clone()
        argmax = torch.zeros_like(maximum, dtype=torch.int16)
        for index, element in enumerate(elements, start=1):
            # a new maximum always has a larger index than the previous one, so torch.maximum replaces it
            new_maximum = torch.maximum(maximum, element)
            argmax = torch.maximum(argmax, (new_maximum > maximum).to(argmax.dtype).mul_(index))
            maximum = new_maximum
        ctx.save_for_backward(argmax)
        return maximum

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (argmax,) = ctx.saved_tensors
        grad_x = upsample_max(delta, argmax, ctx.input_size, ctx.window, ctx.stride, ctx.padding)
        return grad_x, None, None, None


class _AveragePooling(Function):
    """The mean of each window, in which padding counts as zeros, as in torch.

    a^l[i,j] = 1/(P·Q) Σ_{p,q} a^{l-1}[s·i + p, s·j + q]     ∂J/∂a^{l-1} = upsample(δ^l)

    x (B, C, H, W) -> (B, C, I, J). Section 2.2.1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Pair, stride: Pair, padding: Pair) -> Tensor:
        ctx.input_size, ctx.window, ctx.stride, ctx.padding = x.shape[2:], window, stride, padding
        elements = _window_elements(_pad(x, padding), window, stride)
        total = next(elements).clone()
        for element in elements:
            total += element
        return total / (window[0] * window[1])

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        grad_x = upsample_average(delta, ctx.input_size, ctx.window, ctx.stride, ctx.padding)
        return grad_x, None, None, None


def max_pool2d(x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Tensor:
    """Compute `torch.nn.functional.max_pool2d`: (B, C, H, W) -> (B, C, I, J).

    Raises `ValueError` if no window fits or the padding is more than half of the window.
    """
    pooled: Tensor = _MaxPooling.apply(x, *_pooling_arguments(kernel_size, stride, padding))
    return pooled


def avg_pool2d(x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Tensor:
    """Compute `torch.nn.functional.avg_pool2d`: (B, C, H, W) -> (B, C, I, J).

    Raises `ValueError` if no window fits or the padding is more than half of the window.
    """
    pooled: Tensor = _AveragePooling.apply(x, *_pooling_arguments(kernel_size, stride, padding))
    return pooled


class MaxPool2d(nn.Module):
    """torch.nn.MaxPool2d, computed by `_MaxPooling`."""

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = _pooling_arguments(kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return max_pool2d(x, self.kernel_size, self.stride, self.padding)


class AvgPool2d(nn.Module):
    """torch.nn.AvgPool2d, computed by `_AveragePooling`."""

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = _pooling_arguments(kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(x, self.kernel_size, self.stride, self.padding)


# --- ReLU and linear -----------------------------------------------------------------------------


class _ReLU(Function):
    """The activation.

    a = σ(z) = max(z, 0)     ∂J/∂z = ∂J/∂a ⊙ σ'(z),  σ'(z) = 1 where z > 0, else 0

    z, a and δ have the same shape, which is arbitrary. Sections 1.3 and 2.1.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        a = z.clamp(min=0)
        ctx.save_for_backward(a)
        return a

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (a,) = ctx.saved_tensors
        return delta.mul(a > 0)  # a > 0 exactly where z > 0


def relu(z: Tensor) -> Tensor:
    """Compute `torch.nn.functional.relu`, max(z, 0)."""
    a: Tensor = _ReLU.apply(z)
    return a


class ReLU(nn.Module):
    """torch.nn.ReLU, computed by `_ReLU`."""

    def forward(self, z: Tensor) -> Tensor:
        return relu(z)


class _Linear(Function):
    """A fully connected layer.

    z^l = W^l a^{l-1} + b^l
    ∂J/∂a^{l-1} = (W^l)ᵀ δ^l     ∂J/∂W^l = δ^l (a^{l-1})ᵀ     ∂J/∂b^l = δ^l

    The tutorial's a and δ are column vectors of one image. Here each row is an image, which transposes
    the products, and gradients are summed over the batch.
    a (B, D), weight (M, D), bias (M,) -> z (B, M); δ has the shape of z. Section 2.1.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(a, weight)
        z = a @ weight.T
        return z if bias is None else z.add_(bias)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        a, weight = ctx.saved_tensors
        grad_a = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_a = delta @ weight
        if ctx.needs_input_grad[1]:
            grad_weight = delta.T @ a
        if ctx.needs_input_grad[2]:
            grad_bias = delta.sum(0)
        return grad_a, grad_weight, grad_bias


def linear(a: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `torch.nn.functional.linear`: (B, D), (M, D), (M,) -> (B, M)."""
    a, weight, bias = _autocast(a, weight, bias)
    z: Tensor = _Linear.apply(a, weight, bias)
    return z


class Linear(nn.Linear):
    """torch.nn.Linear with the same parameters and initialization, computed by `_Linear`."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


# --- Losses --------------------------------------------------------------------------------------


class _CrossEntropy(Function):
    """Softmax and cross-entropy combined, against the target distribution t of each image.

    p = softmax(z) = exp(z) / Σ_k exp(z_k)     J = -1/B Σ_b Σ_k t log p
    δ^L = ∂J/∂z^L = (p - t) / B

    logits z (B, K), target t (B, K), each row of which sums to 1 -> J (). Sections 1.6, 2.1, 4.3.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(logits, target)
        return -(target * _log_softmax(logits)).sum(1).mean()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        logits, target = ctx.saved_tensors
        return delta * (_log_softmax(logits).exp() - target) / len(logits), None


class _SquaredError(Function):
    """The mean squared error.

    J = 1/(B·K) Σ_b Σ_k (a - y)²     δ^L = ∂J/∂a^L = 2 (a - y) / (B·K)

    outputs a and target y of the same shape, usually (B, K) -> J (). Sections 2.1 and 3.4.
    """

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(outputs, target)
        return (outputs - target).square().mean()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
        outputs, target = ctx.saved_tensors
        grad_outputs = delta * 2 * (outputs - target) / outputs.numel()
        return grad_outputs, -grad_outputs


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Compute `torch.nn.functional.cross_entropy`: logits (B, K), int64 targets (B,) -> ()."""
    (logits,) = _autocast(logits, to=torch.float32)
    target = one_hot(targets, logits) * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    loss: Tensor = _CrossEntropy.apply(logits, target)
    return loss


def mse_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Compute `torch.nn.functional.mse_loss` of two tensors of the same shape -> ().

    Raises `ValueError` if the shapes differ: nothing is broadcast.
    """
    if outputs.shape != target.shape:
        raise ValueError(
            f"the shapes of outputs {tuple(outputs.shape)} and target {tuple(target.shape)} differ"
        )
    loss: Tensor = _SquaredError.apply(*_autocast(outputs, target, to=torch.float32))
    return loss


def one_hot(targets: Tensor, like: Tensor) -> Tensor:
    """Return the one-hot encoding of int64 targets (B,), with shape, dtype and device of `like` (B, K)."""
    classes = torch.arange(like.shape[1], device=targets.device)
    return (targets[:, None] == classes).to(like.dtype)


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """torch.nn.CrossEntropyLoss of logits (B, K) and int64 targets (B,), computed by `_CrossEntropy`."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing=label_smoothing)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(input, target, self.label_smoothing)


class MSELoss(nn.MSELoss):
    """torch.nn.MSELoss of two tensors of the same shape, computed by `_SquaredError`."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return mse_loss(input, target)


class OneHotMSELoss(nn.Module):
    """Mean squared error of outputs (B, K) against the one-hot encoding of int64 targets (B,)."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return mse_loss(outputs, one_hot(targets, outputs))


# --- Helpers -------------------------------------------------------------------------------------


def _log_softmax(logits: Tensor) -> Tensor:
    """Return log p (B, K); the largest logit is subtracted first, because its exp() could overflow."""
    shifted = logits - logits.amax(1, keepdim=True)
    return shifted - shifted.exp().sum(1, keepdim=True).log()


def _chunks(x: Tensor, windows: Tensor) -> tuple[Tensor, ...]:
    """Split x along its first dimension so that each chunk of `windows` has about `CHUNK_ELEMENTS`."""
    if torch.compiler.is_compiling():
        return (x,)  # the number of chunks would fix the batch size of an exported network
    return torch.split(x, max(1, CHUNK_ELEMENTS // max(1, windows[:1].numel())))


def _pair(size: Size) -> Pair:
    """Return (vertical, horizontal)."""
    if isinstance(size, int):
        return size, size
    vertical, horizontal = size
    return vertical, horizontal


def _pooling_arguments(window: Size, stride: Size | None, padding: Size) -> tuple[Pair, Pair, Pair]:
    """Return window, stride (by default that of the window) and padding as pairs."""
    window, padding = _pair(window), _pair(padding)
    if any(2 * pad > size for pad, size in zip(padding, window, strict=True)):
        raise ValueError(f"a padding of {padding} is more than half of the window {window}")
    return window, window if stride is None else _pair(stride), padding


def _pad(x: Tensor, padding: Pair, value: float = 0.0) -> Tensor:
    """Add `padding` rows and columns of `value` on each side of x (B, C, H, W)."""
    if padding == (0, 0):
        return x
    vertical, horizontal = padding
    return F.pad(x, (horizontal, horizontal, vertical, vertical), value=value)


def _zeros(like: Tensor, height: int, width: int) -> Tensor:
    """Return zeros (B, C, height, width) in channels-last memory format, like the results of `correlate`."""
    batch, channels = like.shape[:2]
    return like.new_zeros(batch, height, width, channels).permute(0, 3, 1, 2)


def _padded_zeros(delta: Tensor, input_size: Pair, padding: Pair) -> tuple[Tensor, Tensor]:
    """Return zeros for the gradient of a padded input, and a view of the part without the padding."""
    (height, width), (top, left) = input_size, padding
    padded = _zeros(delta, height + 2 * top, width + 2 * left)
    return padded, padded[:, :, top : top + height, left : left + width]


def _autocast(*tensors: Any, to: torch.dtype | None = None) -> tuple[Any, ...]:
    """Under autocast, cast to the dtype that torch's own layer uses: autocast's, or `to` for a loss.

    The cast comes before the function, so that its forward and backward see one dtype, and the backward of
    the cast converts the gradient of a float32 parameter back to float32.
    """
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = to or torch.get_autocast_dtype(device)
    castable = (torch.float32, torch.float16, torch.bfloat16)  # autocast leaves float64 unchanged
    return tuple(t.to(dtype) if t is not None and t.dtype in castable else t for t in tensors)
