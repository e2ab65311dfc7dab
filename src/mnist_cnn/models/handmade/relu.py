"""ReLU, the activation."""

from typing import Any

from torch import Tensor
from torch.autograd import Function


class Rectification(Function):
    """The forward and backward pass of ReLU.

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
        grad_z: Tensor = delta * (a > 0)  # a > 0 exactly where z > 0
        return grad_z


def relu(z: Tensor) -> Tensor:
    """Compute `torch.nn.functional.relu`, max(z, 0)."""
    a: Tensor = Rectification.apply(z)
    return a
