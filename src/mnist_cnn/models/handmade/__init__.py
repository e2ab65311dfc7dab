"""Layers and losses written by hand, from the tutorial's formulas (section 2): forward and backward passes.

There is one file for each layer. Autograd only calls the functions of these files in sequence; each of
them computes its own forward and backward pass.

Shapes: B batch, C input channels, N kernels (output channels), H x W input size, I x J output size,
P x Q kernel or window size, K classes, D input features, M output features.
The tutorial's formulas of a layer include σ'(z), the derivative of the activation. Here ReLU is a layer of
its own, and its backward pass is the product with σ'(z).
"""

from mnist_cnn.models.handmade.convolution import (
    Conv2d,
    conv2d,
    conv2d_delta,
    conv2d_kernel_gradient,
    correlate,
    rot180,
)
from mnist_cnn.models.handmade.linear import Linear, linear
from mnist_cnn.models.handmade.losses import CrossEntropyLoss, OneHotMSELoss, cross_entropy, mse_loss, one_hot
from mnist_cnn.models.handmade.pooling import avg_pool2d, max_pool2d, upsample_average, upsample_max
from mnist_cnn.models.handmade.relu import relu

__all__ = [
    "Conv2d",
    "CrossEntropyLoss",
    "Linear",
    "OneHotMSELoss",
    "avg_pool2d",
    "conv2d",
    "conv2d_delta",
    "conv2d_kernel_gradient",
    "correlate",
    "cross_entropy",
    "linear",
    "max_pool2d",
    "mse_loss",
    "one_hot",
    "relu",
    "rot180",
    "upsample_average",
    "upsample_max",
]
