"""One training step of CnnNet with nothing hidden: NumPy, no autograd, every z, a and δ in the open.

`forward` goes through the network layer by layer and keeps what it computed; `backward` goes the
same way back, from the δ of the output to that of the first layer, and collects the gradients on the
way; `sgd_step` moves the parameters. The order is the tutorial's: convolution, ReLU, max pooling.
Everything is written for this one network: no stride, no padding, windows of 2 x 2 that do not
overlap. `models.handmade` has the same formulas for all shapes.

Shapes: B images in a batch, C channels in, N kernels, H x W pixels in, I x J pixels out, P x Q pixels
in a kernel, D numbers into a linear layer, M out, K classes.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

Array = NDArray[Any]  # of float32 or float64, whichever comes in
Parameters = dict[str, Array]  # by the names of the state dict: "conv1.weight", "conv1.bias", …


# --- The formulas --------------------------------------------------------------------------------


def correlate(a: Array, w: Array) -> Array:
    """Slide the kernels over the images and sum the products: the tutorial's `*`.

    (a * w)[b,n,i,j] = Σ_c Σ_p Σ_q a[b, c, i+p, j+q] w[n,c,p,q]

    a (B, C, H, W), w (N, C, P, Q) -> (B, N, H - P + 1, W - Q + 1). Section 2.2.2.
    """
    windows = np.lib.stride_tricks.sliding_window_view(a, w.shape[2:], axis=(2, 3))
    z: Array = np.tensordot(windows, w, axes=([1, 4, 5], [1, 2, 3]))  # (B, I, J, N)
    return z.transpose(0, 3, 1, 2)


def delta_before_convolution(delta: Array, w: Array) -> Array:
    """Carry δ back to the image that the kernels slid over.

    ∂J/∂a^{l-1} = δ^l * rot180(W^l), with a frame of zeros round δ so that the size is the image's

    delta (B, N, I, J), w (N, C, P, Q) -> (B, C, I + P - 1, J + Q - 1). Section 2.2.2.
    """
    p, q = w.shape[2:]
    framed = np.pad(delta, ((0, 0), (0, 0), (p - 1, p - 1), (q - 1, q - 1)))
    turned = w[:, :, ::-1, ::-1]  # upside down, then left to right
    return correlate(framed, turned.swapaxes(0, 1))


def kernel_gradient(a: Array, delta: Array) -> Array:
    """Return the gradient of the kernels; nothing is turned, and the batch is summed over.

    ∂J/∂W^l = a^{l-1} * δ^l

    a (B, C, H, W), delta (B, N, I, J) -> (N, C, H - I + 1, W - J + 1). Section 2.2.3.
    """
    return correlate(a.swapaxes(0, 1), delta.swapaxes(0, 1)).swapaxes(0, 1)


def relu(z: Array) -> Array:
    """Return σ(z) = max(z, 0). Section 1.3."""
    return np.maximum(z, 0)


def relu_slope(z: Array) -> Array:
    """Return σ'(z): 1 where z > 0, else 0."""
    return (z > 0).astype(z.dtype)


def max_pool(a: Array) -> tuple[Array, NDArray[np.intp]]:
    """Return the largest of each 2 x 2 window, and which of the four it was (of equals, the first).

    a (B, C, H, W) -> two of (B, C, H/2, W/2); the place is 0, 1, 2, 3 row by row. Section 2.2.1.
    """
    b, c, h, w = a.shape
    windows = a.reshape(b, c, h // 2, 2, w // 2, 2).swapaxes(3, 4).reshape(b, c, h // 2, w // 2, 4)
    return windows.max(-1), windows.argmax(-1)


def upsample(delta: Array, place: NDArray[np.intp]) -> Array:
    """Put each δ at the remembered place of its 2 x 2 window, zeros at the other three.

    delta (B, C, I, J), place (B, C, I, J) -> (B, C, 2I, 2J). Section 2.2.1.
    """
    b, c, i, j = delta.shape
    windows = delta[..., None] * (place[..., None] == np.arange(4))  # (B, C, I, J, 4)
    image: Array = windows.reshape(b, c, i, j, 2, 2).swapaxes(3, 4).reshape(b, c, 2 * i, 2 * j)
    return image


def cross_entropy(logits: Array, targets: NDArray[np.integer]) -> tuple[float, Array]:
    """Return the cross-entropy of the softmax, and its δ.

    p = softmax(z)     J = -1/B Σ_b log p[b, target of b]     δ^L = ∂J/∂z^L = (p - one-hot) / B

    logits (B, K), targets (B,) -> J and δ^L (B, K). Sections 2.1 and 4.3.
    """
    shifted = logits - logits.max(1, keepdims=True)  # the same p, and exp() cannot overflow
    p = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    images = np.arange(len(logits))
    loss = -np.log(p[images, targets]).mean()
    delta = p.copy()
    delta[images, targets] -= 1
    return float(loss), delta / len(logits)


def squared_error(outputs: Array, targets: NDArray[np.integer]) -> tuple[float, Array]:
    """Return the mean squared error against the one-hot targets y, and its δ.

    J = 1/(B·K) Σ_b Σ_k (z - y)²     δ^L = ∂J/∂z^L = 2 (z - y) / (B·K)

    outputs (B, K), targets (B,) -> J and δ^L (B, K). Sections 2.1 and 3.4.
    """
    error = outputs - np.eye(outputs.shape[1], dtype=outputs.dtype)[targets]
    return float((error**2).mean()), 2 * error / error.size


# --- CnnNet --------------------------------------------------------------------------------------


@dataclass
class Forward:
    """What a forward pass leaves behind for the backward pass, by the name of the layer."""

    inputs: dict[str, Array] = field(default_factory=dict)  # a^{l-1}, what went into the layer
    z: dict[str, Array] = field(default_factory=dict)  # what it made of it, before σ
    places: dict[str, NDArray[np.intp]] = field(default_factory=dict)  # where pooling found maxima


@dataclass
class Backward:
    """What a backward pass gives: δ = ∂J/∂z of each layer, and the gradients of the parameters."""

    deltas: dict[str, Array]
    gradients: Parameters


def parameters_of(network: nn.Module) -> Parameters:
    """Copy the parameters of a network out of torch, in their own precision."""
    return {name: value.detach().numpy().copy() for name, value in network.named_parameters()}


def forward(parameters: Parameters, images: Array) -> Forward:
    """Run CnnNet on images (B, C, 32, 32); the logits (B, K) are `z["fc3"]` of the result."""
    kept = Forward()
    a = images
    for layer in ("conv1", "conv2"):
        kept.inputs[layer] = a
        bias = parameters[f"{layer}.bias"][:, None, None]
        z = kept.z[layer] = correlate(a, parameters[f"{layer}.weight"]) + bias
        a, kept.places[layer] = max_pool(relu(z))  # (B, 6, 14, 14), then (B, 16, 5, 5)

    a = a.reshape(len(a), -1)  # (B, 400)
    for layer in ("fc1", "fc2", "fc3"):
        kept.inputs[layer] = a
        # the tutorial's W a with a column for one image; here a row for each
        z = kept.z[layer] = a @ parameters[f"{layer}.weight"].T + parameters[f"{layer}.bias"]
        a = relu(z)  # (B, 120), then (B, 84); that of fc3 is not used
    return kept


def backward(parameters: Parameters, kept: Forward, delta: Array) -> Backward:
    """Carry the δ of the logits (B, K) back through CnnNet, layer by layer."""
    w = {name.removesuffix(".weight"): value for name, value in parameters.items()}
    a, z = kept.inputs, kept.z

    # Linear layers (section 2.1): δ^l = (W^{l+1})ᵀ δ^{l+1} ⊙ σ'(z^l)
    deltas = {"fc3": delta}  # (B, K)
    deltas["fc2"] = deltas["fc3"] @ w["fc3"] * relu_slope(z["fc2"])  # (B, 84)
    deltas["fc1"] = deltas["fc2"] @ w["fc2"] * relu_slope(z["fc1"])  # (B, 120)

    # Pooling (2.2.1): δ^l = upsample(δ) ⊙ σ'(z^l), where pooling has no σ of its own
    pooled = (deltas["fc1"] @ w["fc1"]).reshape(kept.places["conv2"].shape)  # (B, 16, 5, 5)
    deltas["conv2"] = upsample(pooled, kept.places["conv2"]) * relu_slope(z["conv2"])

    # Convolution (2.2.2): δ * rot180(W), then through the pooling before it
    pooled = delta_before_convolution(deltas["conv2"], w["conv2"])  # (B, 6, 14, 14)
    deltas["conv1"] = upsample(pooled, kept.places["conv1"]) * relu_slope(z["conv1"])

    # Gradients: ∂J/∂W = δ aᵀ, ∂J/∂b = δ (2.1) and ∂J/∂W = a * δ, ∂J/∂b = Σ δ (2.2.3),
    # summed over the images of the batch
    gradients: Parameters = {}
    for layer in ("conv1", "conv2"):
        gradients[f"{layer}.weight"] = kernel_gradient(a[layer], deltas[layer])
        gradients[f"{layer}.bias"] = deltas[layer].sum((0, 2, 3))
    for layer in ("fc1", "fc2", "fc3"):
        gradients[f"{layer}.weight"] = deltas[layer].T @ a[layer]
        gradients[f"{layer}.bias"] = deltas[layer].sum(0)
    return Backward(deltas, gradients)


def sgd_step(parameters: Parameters, gradients: Parameters, lr: float) -> Parameters:
    """Return the parameters one step of gradient descent further: W - lr · ∂J/∂W (section 3.5)."""
    return {name: value - lr * gradients[name] for name, value in parameters.items()}
