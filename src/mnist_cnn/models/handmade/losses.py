"""The losses: cross-entropy and mean squared error."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from mnist_cnn.models.handmade.arguments import cast_for_autocast


class CrossEntropy(Function):
    """Softmax and cross-entropy combined, against the target distribution t of each image.

    p = softmax(z) = exp(z) / Σ_k exp(z_k)     J = -1/B Σ_b Σ_k t log p
    δ^L = ∂J/∂z^L = (p - t) / B

    logits z (B, K), target t (B, K), each row of which sums to 1 -> J (). Sections 1.6, 2.1 and 4.3.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(logits, target)
        return -(target * log_softmax(logits)).sum(1).mean()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        logits, target = ctx.saved_tensors
        return delta * (log_softmax(logits).exp() - target) / len(logits), None


def log_softmax(logits: Tensor) -> Tensor:
    """Return log p (B, K). The largest logit is subtracted first, because its exp() could overflow."""
    shifted = logits - logits.amax(1, keepdim=True)
    return shifted - shifted.exp().sum(1, keepdim=True).log()


class SquaredError(Function):
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


def one_hot(targets: Tensor, like: Tensor) -> Tensor:
    """Return the one-hot encoding of int64 targets (B,), with shape, dtype and device of `like` (B, K)."""
    classes = torch.arange(like.shape[1], device=targets.device)
    return (targets[:, None] == classes).to(like.dtype)


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Compute `torch.nn.functional.cross_entropy`: logits (B, K), int64 targets (B,) -> ()."""
    (logits,) = cast_for_autocast(logits, to=torch.float32)
    target = one_hot(targets, logits) * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    loss: Tensor = CrossEntropy.apply(logits, target)
    return loss


def mse_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Compute `torch.nn.functional.mse_loss` of two tensors of the same shape -> ()."""
    loss: Tensor = SquaredError.apply(*cast_for_autocast(outputs, target, to=torch.float32))
    return loss


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """torch.nn.CrossEntropyLoss of logits (B, K) and int64 targets (B,), computed by `CrossEntropy`."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing=label_smoothing)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(input, target, self.label_smoothing)


class OneHotMSELoss(nn.Module):
    """The mean squared error of outputs (B, K) against the one-hot encoding of int64 targets (B,)."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return mse_loss(outputs, one_hot(targets, outputs))
