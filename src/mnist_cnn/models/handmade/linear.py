"""The linear (fully connected) layer."""

from typing import Any

from torch import Tensor, nn
from torch.autograd import Function

from mnist_cnn.models.handmade.arguments import cast_for_autocast


class LinearMap(Function):
    """The forward and backward pass of a linear layer.

    z^l = W^l a^{l-1} + b^l
    ∂J/∂a^{l-1} = (W^l)ᵀ δ^l     ∂J/∂W^l = δ^l (a^{l-1})ᵀ     ∂J/∂b^l = δ^l

    The tutorial's a and δ are column vectors of one image. Here each row is an image, which transposes the
    products, and the gradients are summed over the batch.
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
    a, weight, bias = cast_for_autocast(a, weight, bias)
    z: Tensor = LinearMap.apply(a, weight, bias)
    return z


class Linear(nn.Linear):
    """torch.nn.Linear with the same parameters and initialization, computed by `LinearMap`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)
