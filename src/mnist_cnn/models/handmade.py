"""The layers and losses by hand: forward and backward from the tutorial's formulas (section 2).

Autograd only chains the pieces together; what each of them computes, in either direction, stands
here. `correlate`, which slides kernels over images, carries the convolution: the forward pass,
`conv2d_delta` and `conv2d_kernel_gradient` are one call of it each. `upsample_max` and
`upsample_average` carry the pooling.

Shapes: B images in a batch, C channels in, N kernels (channels out), H x W pixels in, I x J pixels
out, P x Q pixels in a kernel or window, K classes, D features in, M features out.
σ'(z), the derivative of the activation, is not part of a convolution, a pooling or a linear layer:
here ReLU is a layer of its own, and the product with it is its backward.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

Pair = tuple[int, int]
Size = int | tuple[int, ...]  # one number for both directions, or (vertical, horizontal)

# A tall matrix times so few columns is slow on a CPU; the same product turned round takes half the
# time, and CnnNet with its 6 kernels a fifth less a training step. SimpleCNN has 32 and 64.
FEW_KERNELS = 10

# So many numbers at once are copied out of the windows: 2 MB in float32, which stay in the cache until
# they are multiplied, where those of a whole batch are 10 to 100 MB. 15 % less a step of SimpleCNN.
PIECE = 2**19


# --- Convolution ---------------------------------------------------------------------------------


def correlate(x: Tensor, w: Tensor, stride: Pair = (1, 1), dilation: Pair = (1, 1)) -> Tensor:
    """Slide w over x and sum the products: the tutorial's `*`, which does not turn the kernel.

    (x * w)[b,n,i,j] = Σ_c Σ_p Σ_q x[b, c, stride·i + dilation·p, stride·j + dilation·q] w[n,c,p,q]

    x (B, C, H, W), w (N, C, P, Q) -> (B, N, I, J). Section 2.2.2, the forward example.
    """
    sums_outermost = x.stride(1) != 1 and 1 in (x.stride(0), x.shape[0])
    if x.stride(1) != 1 and not sums_outermost:
        x = x.contiguous(memory_format=torch.channels_last)
    height, width = (d * (n - 1) + 1 for d, n in zip(dilation, w.shape[2:], strict=True))
    windows = x.unfold(2, height, stride[0]).unfold(3, width, stride[1])  # a view of x, no copy
    windows = windows[..., :: dilation[0], :: dilation[1]]  # (B, C, I, J, P, Q)

    # What is left is one product of two matrices, for which the windows are copied, piece by piece, in
    # the order that they have in memory: copied in another order they cost more than the product.
    if sums_outermost:  # as in a gradient of kernels, where images and channels have changed places
        windows = windows.permute(1, 4, 5, 2, 3, 0)  # (C, P, Q, I, J, B)
        kernels = w.permute(1, 2, 3, 0)  # (C, P, Q, N)
        pieces = zip(_pieces(windows, windows), _pieces(kernels, windows), strict=True)
        z = torch.stack([a.flatten(3).flatten(0, 2).T @ k.flatten(0, 2) for a, k in pieces]).sum(0)
        return z.view(*windows.shape[3:], -1).permute(2, 3, 0, 1)  # (I·J·B, N) -> (B, N, I, J)
    windows = windows.permute(0, 2, 3, 4, 5, 1)  # (B, I, J, P, Q, C)
    kernels = w.permute(0, 2, 3, 1).flatten(1)  # (N, P·Q·C)
    rows = (piece.flatten(3) for piece in _pieces(windows, windows))
    if len(kernels) < FEW_KERNELS:
        z = torch.cat([kernels @ r.flatten(0, 2).T for r in rows], dim=1)  # (N, B·I·J)
        return z.view(-1, *windows.shape[:3]).transpose(0, 1)  # (B, N, I, J)
    return torch.cat([r @ kernels.T for r in rows]).permute(0, 3, 1, 2)  # (B, N, I, J)


def rot180(w: Tensor) -> Tensor:
    """Turn kernels (N, C, P, Q) by 180 degrees: upside down, then left to right (section 2.2.2)."""
    return w.flip(2, 3)


def conv2d_delta(delta: Tensor, weight: Tensor, image: Pair, stride: Pair, padding: Pair) -> Tensor:
    """Carry δ back through a convolution to the image that went in.

    ∂J/∂a^{l-1} = δ^l * rot180(W^l)

    δ is surrounded by a frame of P - 1 and Q - 1 zeros: a full convolution. With a stride its
    pixels stand as far apart as the windows did. The part that belongs to the padding is left out.

    delta (B, N, I, J), weight (N, C, P, Q), image = (H, W) -> (B, C, H, W). Section 2.2.2.
    """
    rows, columns = delta.shape[2:]
    (height, width), (p, q) = image, weight.shape[2:]
    top, left = padding
    full = _zeros(delta, height + 2 * top + p - 1, width + 2 * left + q - 1)
    down = slice(p - 1, p + stride[0] * (rows - 1), stride[0])
    across = slice(q - 1, q + stride[1] * (columns - 1), stride[1])
    full[:, :, down, across] = delta
    full = full[:, :, top : top + height + p - 1, left : left + width + q - 1]
    return correlate(full, rot180(weight).transpose(0, 1))


def conv2d_kernel_gradient(image: Tensor, delta: Tensor, window: Pair, stride: Pair, padding: Pair) -> Tensor:
    """Return the gradient of the kernels: the image correlated with δ, and nothing is turned.

    ∂J/∂W^l = a^{l-1} * δ^l:   ∂J/∂W[n,c,p,q] = Σ_b Σ_i Σ_j δ[b,n,i,j] a[b,c,i+p,j+q]

    The sum runs over the images of the batch as a forward pass runs over channels, so that B and C
    change places. With a stride, the pixels of δ lie as far apart as the windows did.

    image (B, C, H, W), delta (B, N, I, J), window = (P, Q) -> (N, C, P, Q). Section 2.2.3.
    """
    image = _pad(image, padding)
    # no window reaches what is left over on the right and below
    height, width = (s * (n - 1) + size for s, n, size in zip(stride, delta.shape[2:], window, strict=True))
    image = image[:, :, :height, :width]
    gradient = correlate(image.transpose(0, 1), delta.transpose(0, 1), dilation=stride)
    return gradient.transpose(0, 1)  # (C, N, P, Q) -> (N, C, P, Q)


class _Convolution(Function):
    """A convolution of images with kernels.

    z^l = a^{l-1} * W^l + b^l
    ∂J/∂a^{l-1} = δ^l * rot180(W^l)     ∂J/∂W^l = a^{l-1} * δ^l     ∂J/∂b^l = Σ_{u,v} (δ^l)_{u,v}

    image (B, C, H, W), weight (N, C, P, Q), bias (N,) -> z (B, N, I, J); δ has the shape of z.
    Sections 2.2.2 and 2.2.3.
    """

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair
    ) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.stride, ctx.padding = stride, padding
        z = correlate(_pad(image, padding), weight, stride)
        return z if bias is None else z.add_(bias[:, None, None])

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        to_image = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:  # the first layer's image needs none
            to_image = conv2d_delta(delta, weight, image.shape[2:], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            to_weight = conv2d_kernel_gradient(image, delta, weight.shape[2:], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            to_bias = delta.sum((0, 2, 3))
        return to_image, to_weight, to_bias, None, None


def conv2d(
    image: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0
) -> Tensor:
    """Convolve as `torch.nn.functional.conv2d` does: (B, C, H, W), (N, C, P, Q) -> (B, N, I, J)."""
    image, weight, bias = _autocast(image, weight, bias)
    z: Tensor = _Convolution.apply(image, weight, bias, _pair(stride), _pair(padding))
    return z


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d, its parameters and their start included, computed by `_Convolution`."""

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
        assert not isinstance(self.padding, str)  # __init__ takes numbers only
        return conv2d(input, self.weight, self.bias, self.stride, self.padding)


# --- Pooling -------------------------------------------------------------------------------------


def _pixels(x: Tensor, window: Pair, stride: Pair) -> Iterator[Tensor]:
    """Go through the pixels of a window, row by row: yield that pixel of every window.

    x (B, C, H, W) -> P·Q views (B, C, I, J) of it. What does not fill a window is in none of them.
    """
    rows, columns = ((n - size) // s + 1 for n, size, s in zip(x.shape[2:], window, stride, strict=True))
    if rows < 1 or columns < 1:
        raise ValueError(f"a window of {window} does not fit into {tuple(x.shape[2:])} pixels")
    for p in range(window[0]):
        for q in range(window[1]):
            down = slice(p, p + stride[0] * (rows - 1) + 1, stride[0])
            across = slice(q, q + stride[1] * (columns - 1) + 1, stride[1])
            yield x[:, :, down, across]


def upsample_max(
    delta: Tensor, place: Tensor, image: Pair, window: Pair, stride: Pair, padding: Pair = (0, 0)
) -> Tensor:
    """Put each δ where the maximum of its window was found; zero elsewhere.

    ∂J/∂a^{l-1} = upsample(δ^l);   a pixel that won in several windows gets the sum of their δ

    delta (B, C, I, J), place (B, C, I, J), the number of the pixel in its window, row by row,
    image = (H, W) -> (B, C, H, W). Section 2.2.1.
    """
    padded, inside = _padded_zeros(delta, image, padding)
    for number, pixel in enumerate(_pixels(padded, window, stride)):
        pixel += delta * (place == number)
    return inside


def upsample_average(
    delta: Tensor, image: Pair, window: Pair, stride: Pair, padding: Pair = (0, 0)
) -> Tensor:
    """Spread each δ evenly over the pixels of its window.

    ∂J/∂a^{l-1} = upsample(δ^l);   every pixel of a window gets δ / (P·Q)

    delta (B, C, I, J), image = (H, W) -> (B, C, H, W). Section 2.2.1.
    """
    padded, inside = _padded_zeros(delta, image, padding)
    share = delta / (window[0] * window[1])
    for pixel in _pixels(padded, window, stride):
        pixel += share
    return inside


class _MaxPooling(Function):
    """The largest pixel of each window; of equal ones the first, row by row, as in torch.

    a^l[i,j] = max_{p,q} a^{l-1}[s·i + p, s·j + q]     ∂J/∂a^{l-1} = upsample(δ^l)

    image (B, C, H, W) -> (B, C, I, J). Section 2.2.1.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, window: Pair, stride: Pair, padding: Pair) -> Tensor:
        ctx.image, ctx.window, ctx.stride, ctx.padding = image.shape[2:], window, stride, padding
        pixels = _pixels(_pad(image, padding, value=-torch.inf), window, stride)
        largest = next(pixels).clone()
        place = torch.zeros_like(largest, dtype=torch.int16)
        for number, pixel in enumerate(pixels, start=1):
            # numbers only grow, so the later of two winners is the larger of two numbers
            larger = torch.maximum(largest, pixel)
            place = torch.maximum(place, (larger > largest).to(place.dtype).mul_(number))
            largest = larger
        ctx.save_for_backward(place)
        return largest

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (place,) = ctx.saved_tensors
        to_image = upsample_max(delta, place, ctx.image, ctx.window, ctx.stride, ctx.padding)
        return to_image, None, None, None


class _AveragePooling(Function):
    """The mean of each window, where padding counts as zeros, as in torch.

    a^l[i,j] = 1/(P·Q) Σ_{p,q} a^{l-1}[s·i + p, s·j + q]     ∂J/∂a^{l-1} = upsample(δ^l)

    image (B, C, H, W) -> (B, C, I, J). Section 2.2.1.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, window: Pair, stride: Pair, padding: Pair) -> Tensor:
        ctx.image, ctx.window, ctx.stride, ctx.padding = image.shape[2:], window, stride, padding
        pixels = _pixels(_pad(image, padding), window, stride)
        total = next(pixels).clone()
        for pixel in pixels:
            total += pixel
        return total / (window[0] * window[1])

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        to_image = upsample_average(delta, ctx.image, ctx.window, ctx.stride, ctx.padding)
        return to_image, None, None, None


def max_pool2d(image: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Tensor:
    """Pool as `torch.nn.functional.max_pool2d` does: (B, C, H, W) -> (B, C, I, J)."""
    pooled: Tensor = _MaxPooling.apply(image, *_pooling(kernel_size, stride, padding))
    return pooled


def avg_pool2d(image: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Tensor:
    """Pool as `torch.nn.functional.avg_pool2d` does: (B, C, H, W) -> (B, C, I, J)."""
    pooled: Tensor = _AveragePooling.apply(image, *_pooling(kernel_size, stride, padding))
    return pooled


class MaxPool2d(nn.Module):
    """torch.nn.MaxPool2d, computed by `_MaxPooling`."""

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        self.window, self.stride, self.padding = _pooling(kernel_size, stride, padding)

    def forward(self, image: Tensor) -> Tensor:
        return max_pool2d(image, self.window, self.stride, self.padding)


class AvgPool2d(nn.Module):
    """torch.nn.AvgPool2d, computed by `_AveragePooling`."""

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        self.window, self.stride, self.padding = _pooling(kernel_size, stride, padding)

    def forward(self, image: Tensor) -> Tensor:
        return avg_pool2d(image, self.window, self.stride, self.padding)


# --- ReLU and linear -----------------------------------------------------------------------------


class _ReLU(Function):
    """The activation.

    a = σ(z) = max(z, 0)     ∂J/∂z = ∂J/∂a ⊙ σ'(z),  σ'(z) = 1 where z > 0, else 0

    z of any shape, and a and δ of the same. Sections 1.3 and 2.1.
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
    """Return max(z, 0), as `torch.nn.functional.relu` does."""
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

    The tutorial's a and δ are columns, one image; here images are rows, which turns each product
    round, and the gradients are summed over the images.
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
        to_a = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_a = delta @ weight
        if ctx.needs_input_grad[1]:
            to_weight = delta.T @ a
        if ctx.needs_input_grad[2]:
            to_bias = delta.sum(0)
        return to_a, to_weight, to_bias


def linear(a: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply and add as `torch.nn.functional.linear` does: (B, D), (M, D), (M,) -> (B, M)."""
    a, weight, bias = _autocast(a, weight, bias)
    z: Tensor = _Linear.apply(a, weight, bias)
    return z


class Linear(nn.Linear):
    """torch.nn.Linear, its parameters and their start included, computed by `_Linear`."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


# --- Losses --------------------------------------------------------------------------------------


class _CrossEntropy(Function):
    """Softmax and cross-entropy in one, against the target distribution t of each image.

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

    outputs a and target y of one shape, usually (B, K) -> J (). Sections 2.1 and 3.4.
    """

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(outputs, target)
        return (outputs - target).square().mean()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
        outputs, target = ctx.saved_tensors
        to_outputs = delta * 2 * (outputs - target) / outputs.numel()
        return to_outputs, -to_outputs


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the loss that `torch.nn.functional.cross_entropy` does: (B, K), int64 (B,) -> ()."""
    (logits,) = _autocast(logits, to=torch.float32)
    target = one_hot(targets, logits) * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    loss: Tensor = _CrossEntropy.apply(logits, target)
    return loss


def mse_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the loss that `torch.nn.functional.mse_loss` does: two of one shape -> ()."""
    if outputs.shape != target.shape:
        raise ValueError(f"outputs {tuple(outputs.shape)} and target {tuple(target.shape)} differ")
    loss: Tensor = _SquaredError.apply(*_autocast(outputs, target, to=torch.float32))
    return loss


def one_hot(targets: Tensor, like: Tensor) -> Tensor:
    """Return 1 at the class and 0 elsewhere: int64 (B,), in shape and type like `like` (B, K)."""
    classes = torch.arange(like.shape[1], device=targets.device)
    return (targets[:, None] == classes).to(like.dtype)


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """torch.nn.CrossEntropyLoss of logits (B, K) and int64 classes (B,), by `_CrossEntropy`."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing=label_smoothing)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(input, target, self.label_smoothing)


class MSELoss(nn.MSELoss):
    """torch.nn.MSELoss of two tensors of one shape, computed by `_SquaredError`."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return mse_loss(input, target)


class OneHotMSELoss(nn.Module):
    """Mean squared error of outputs (B, K) against the one-hot of int64 classes (B,)."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return mse_loss(outputs, one_hot(targets, outputs))


# --- What they share -----------------------------------------------------------------------------


def _log_softmax(logits: Tensor) -> Tensor:
    """Return log p (B, K); the largest logit is taken off first, as exp() of it could overflow."""
    shifted = logits - logits.amax(1, keepdim=True)
    return shifted - shifted.exp().sum(1, keepdim=True).log()


def _pieces(x: Tensor, windows: Tensor) -> tuple[Tensor, ...]:
    """Split x along its first dimension so that the same part of the windows has about `PIECE` numbers."""
    if torch.compiler.is_compiling():
        return (x,)  # an exported network takes batches of any size
    return torch.split(x, max(1, PIECE // max(1, windows[:1].numel())))


def _pair(size: Size) -> Pair:
    """Return (vertical, horizontal)."""
    if isinstance(size, int):
        return size, size
    vertical, horizontal = size
    return vertical, horizontal


def _pooling(window: Size, stride: Size | None, padding: Size) -> tuple[Pair, Pair, Pair]:
    """Return window, stride (that of the window where not given) and padding, each as a pair."""
    window, padding = _pair(window), _pair(padding)
    if any(2 * pad > size for pad, size in zip(padding, window, strict=True)):
        raise ValueError(f"a padding of {padding} is more than half of the window {window}")
    return window, window if stride is None else _pair(stride), padding


def _pad(image: Tensor, padding: Pair, value: float = 0.0) -> Tensor:
    """Surround the images with `padding` rows and columns of `value`."""
    if padding == (0, 0):
        return image
    vertical, horizontal = padding
    return F.pad(image, (horizontal, horizontal, vertical, vertical), value=value)


def _zeros(like: Tensor, height: int, width: int) -> Tensor:
    """Return zeros (B, C, height, width), channels last in memory, as `correlate` leaves its results."""
    batch, channels = like.shape[:2]
    return like.new_zeros(batch, height, width, channels).permute(0, 3, 1, 2)


def _padded_zeros(delta: Tensor, image: Pair, padding: Pair) -> tuple[Tensor, Tensor]:
    """Return zeros for the gradient of padded images, and a view of the part without padding."""
    (height, width), (top, left) = image, padding
    padded = _zeros(delta, height + 2 * top, width + 2 * left)
    return padded, padded[:, :, top : top + height, left : left + width]


def _autocast(*tensors: Any, to: torch.dtype | None = None) -> tuple[Any, ...]:
    """Under autocast, cast as torch's own layer does: to its precision, or `to` for a loss.

    It happens before the layer, so that forward and backward see one type, and the cast's own
    backward brings the gradient of a float32 parameter back to float32.
    """
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = to or torch.get_autocast_dtype(device)
    # autocast leaves float64 alone
    low = (torch.float32, torch.float16, torch.bfloat16)
    return tuple(t.to(dtype) if t is not None and t.dtype in low else t for t in tensors)
