"""One training step of CnnNet written out in NumPy, without automatic differentiation.

`forward` computes the network layer by layer and caches what the backward pass needs. `backward` goes
through the layers in reverse order, computes δ of each and the gradients of the parameters. `sgd_step`
updates the parameters. The order is that of the tutorial: convolution, ReLU, max pooling.
The code covers this network only: no stride, no padding, 2 x 2 windows that do not overlap.
`models.handmade` implements the same formulas for all shapes.

Shapes: B batch, C input channels, N kernels (output channels), H x W input size, I x J output size,
P x Q kernel size, D input features, M output features, K classes.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

Array = NDArray[Any]  # float32 or float64; results have the dtype of the inputs
Parameters = dict[str, Array]  # keys as in the state dict: "conv1.weight", "conv1.bias", …


# --- The formulas --------------------------------------------------------------------------------


def correlate(a: Array, w: Array) -> Array:
    """Slide the kernels over the images and sum the products: the tutorial's `*`.

    (a * w)[b,n,i,j] = Σ_c Σ_p Σ_q a[b, c, i+p, j+q] w[n,c,p,q]

    a (B, C, H, W), w (N, C, P, Q) -> (B, N, H - P + 1, W - Q + 1). Section 2.2.2.
    """
    rows = np.lib.stride_tricks.sliding_window_view(a, w.shape[2], axis=2)  # (B, C, I, W, P)
    windows = np.lib.stride_tricks.sliding_window_view(rows, w.shape[3], axis=3)  # (B, C, I, J, P, Q)
    z: Array = np.tensordot(windows, w, axes=([1, 4, 5], [1, 2, 3]))  # (B, I, J, N)
    return z.transpose(0, 3, 1, 2)


def conv_delta(delta: Array, w: Array) -> Array:
    """Propagate δ back through a convolution to its input.

    ∂J/∂a^{l-1} = δ^l * rot180(W^l), where δ is padded with zeros so that the result has the input's size

    delta (B, N, I, J), w (N, C, P, Q) -> (B, C, I + P - 1, J + Q - 1). Section 2.2.2.
    """
    p, q = w.shape[2:]
    padded = np.pad(delta, ((0, 0), (0, 0), (p - 1, p - 1), (q - 1, q - 1)))
    rotated = w[:, :, ::-1, ::-1]  # by 180 degrees
    return correlate(padded, rotated.swapaxes(0, 1))


def kernel_gradient(a: Array, delta: Array) -> Array:
    """Return the gradient of the kernels, summed over the batch; nothing is rotated.

    ∂J/∂W^l = a^{l-1} * δ^l

    a (B, C, H, W), delta (B, N, I, J) -> (N, C, H - I + 1, W - J + 1). Section 2.2.3.
    """
    return correlate(a.swapaxes(0, 1), delta.swapaxes(0, 1)).swapaxes(0, 1)


def relu(z: Array) -> Array:
    """Return σ(z) = max(z, 0). Section 1.3."""
    return np.maximum(z, 0)


def relu_derivative(z: Array) -> Array:
    """Return σ'(z): 1 where z > 0, else 0."""
    return (z > 0).astype(z.dtype)


def max_pool(a: Array) -> tuple[Array, NDArray[np.intp]]:
    """Return the maximum of each 2 x 2 window and its index in the window (of equal elements the first).

    a (B, C, H, W) -> two arrays (B, C, H/2, W/2); the index counts row by row from 0 to 3. Section 2.2.1.
    """
    b, c, h, w = a.shape
    windows = a.reshape(b, c, h // 2, 2, w // 2, 2).swapaxes(3, 4).reshape(b, c, h // 2, w // 2, 4)
    return windows.max(-1), windows.argmax(-1)


def upsample(delta: Array, argmax: NDArray[np.intp]) -> Array:
    """Put each δ at the position of the maximum of its 2 x 2 window, and zeros at the other three.

    delta (B, C, I, J), argmax (B, C, I, J) from `max_pool` -> (B, C, 2I, 2J). Section 2.2.1.
    """
    b, c, i, j = delta.shape
    windows = delta[..., None] * (argmax[..., None] == np.arange(4))  # (B, C, I, J, 4)
    upsampled: Array = windows.reshape(b, c, i, j, 2, 2).swapaxes(3, 4).reshape(b, c, 2 * i, 2 * j)
    return upsampled


def cross_entropy(logits: Array, targets: NDArray[np.integer]) -> tuple[float, Array]:
    """Return the cross-entropy of the softmax, and its δ.

    p = softmax(z)     J = -1/B Σ_b log p[b, target of b]     δ^L = ∂J/∂z^L = (p - one-hot) / B

    logits (B, K), targets (B,) -> J and δ^L (B, K). Sections 2.1 and 4.3.
    """
    shifted = logits - logits.max(1, keepdims=True)  # leaves p unchanged, and exp() cannot overflow
    p = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    rows = np.arange(len(logits))
    loss = -np.log(p[rows, targets]).mean()
    delta = p.copy()
    delta[rows, targets] -= 1
    return float(loss), delta / len(logits)


# --- CnnNet --------------------------------------------------------------------------------------


@dataclass
class ForwardCache:
    """The results of a forward pass that the backward pass needs, by layer name."""

    inputs: dict[str, Array] = field(default_factory=dict)  # a^{l-1}, the input of the layer
    z: dict[str, Array] = field(default_factory=dict)  # its output before σ
    argmax: dict[str, NDArray[np.intp]] = field(default_factory=dict)  # from the pooling after it


@dataclass
class BackwardResult:
    """The results of a backward pass: δ = ∂J/∂z by layer name, and the gradients by parameter name."""

    deltas: dict[str, Array]
    gradients: Parameters


def copy_parameters(network: nn.Module) -> Parameters:
    """Return copies of the parameters of `network` as arrays of the same dtype."""
    return {name: value.detach().numpy().copy() for name, value in network.named_parameters()}


def forward(parameters: Parameters, images: Array) -> ForwardCache:
    """Apply CnnNet to images (B, C, 32, 32); the logits (B, K) are `z["fc3"]` of the result."""
    cache = ForwardCache()
    a = images
    for layer in ("conv1", "conv2"):
        cache.inputs[layer] = a
        bias = parameters[f"{layer}.bias"][:, None, None]
        z = cache.z[layer] = correlate(a, parameters[f"{layer}.weight"]) + bias
        a, cache.argmax[layer] = max_pool(relu(z))  # (B, 6, 14, 14), then (B, 16, 5, 5)

    a = a.reshape(len(a), -1)  # (B, 400)
    for layer in ("fc1", "fc2", "fc3"):
        cache.inputs[layer] = a
        # the tutorial's W a with one column per image is a Wᵀ here, with one row per image
        z = cache.z[layer] = a @ parameters[f"{layer}.weight"].T + parameters[f"{layer}.bias"]
        a = relu(z)  # (B, 120), then (B, 84); not used for fc3
    return cache


def backward(parameters: Parameters, cache: ForwardCache, delta: Array) -> BackwardResult:
    """Propagate the δ of the logits (B, K) back through CnnNet, layer by layer."""
    w = {name.removesuffix(".weight"): value for name, value in parameters.items()}
    a, z = cache.inputs, cache.z

    # Linear layers (section 2.1): δ^l = (W^{l+1})ᵀ δ^{l+1} ⊙ σ'(z^l)
    deltas = {"fc3": delta}  # (B, K)
    deltas["fc2"] = deltas["fc3"] @ w["fc3"] * relu_derivative(z["fc2"])  # (B, 84)
    deltas["fc1"] = deltas["fc2"] @ w["fc2"] * relu_derivative(z["fc1"])  # (B, 120)

    # Pooling (2.2.1): δ^l = upsample(δ) ⊙ σ'(z^l), because pooling has no σ of its own
    pooled = (deltas["fc1"] @ w["fc1"]).reshape(cache.argmax["conv2"].shape)  # (B, 16, 5, 5)
    deltas["conv2"] = upsample(pooled, cache.argmax["conv2"]) * relu_derivative(z["conv2"])

    # Convolution (2.2.2): δ * rot180(W), then the pooling in front of it
    pooled = conv_delta(deltas["conv2"], w["conv2"])  # (B, 6, 14, 14)
    deltas["conv1"] = upsample(pooled, cache.argmax["conv1"]) * relu_derivative(z["conv1"])

    # Gradients: ∂J/∂W = δ aᵀ, ∂J/∂b = δ (2.1) and ∂J/∂W = a * δ, ∂J/∂b = Σ δ (2.2.3),
    # summed over the batch
    gradients: Parameters = {}
    for layer in ("conv1", "conv2"):
        gradients[f"{layer}.weight"] = kernel_gradient(a[layer], deltas[layer])
        gradients[f"{layer}.bias"] = deltas[layer].sum((0, 2, 3))
    for layer in ("fc1", "fc2", "fc3"):
        gradients[f"{layer}.weight"] = deltas[layer].T @ a[layer]
        gradients[f"{layer}.bias"] = deltas[layer].sum(0)
    return BackwardResult(deltas, gradients)


def sgd_step(parameters: Parameters, gradients: Parameters, lr: float) -> Parameters:
    """Return the parameters after one step of gradient descent, W - lr · ∂J/∂W (section 3.5)."""
    return {name: value - lr * gradients[name] for name, value in parameters.items()}
