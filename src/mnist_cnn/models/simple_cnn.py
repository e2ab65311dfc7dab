"""SimpleCNN: two 3x3 convolutions and two linear layers."""

from torch import Tensor, nn
from torch.nn import functional as F

from mnist_cnn.models.layers import check_image_size, get_layers


class SimpleCNN(nn.Module):
    """The network of the tutorial's section 4.2.

    Maps images (B, in_channels, image_size, image_size) to logits (B, num_classes). With the default
    arguments it has 421,642 parameters in 8 tensors.
    `layers` selects the implementation of the layers: "torch", or "handmade" for `models.handmade`; the
    parameters are the same. With `standardize` each image is first brought to mean 0 and variance 1. Raises
    `UserError` for unknown `layers` and for an `image_size` below 4.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 28,
        layers: str = "torch",
        standardize: bool = False,
    ) -> None:
        super().__init__()
        check_image_size(image_size, smallest=4, name="SimpleCNN")
        self.image_size, self.standardize = image_size, standardize
        layer_set = get_layers(layers)
        self.relu, self.max_pool2d = layer_set.relu, layer_set.max_pool2d
        self.conv1 = layer_set.conv2d(in_channels, 32, kernel_size=3, padding=1)
        self.conv2 = layer_set.conv2d(32, 64, kernel_size=3, padding=1)
        side = image_size // 2 // 2  # the convolutions keep the size, each pooling halves it
        self.fc1 = layer_set.linear(64 * side * side, 128)
        self.fc2 = layer_set.linear(128, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        if self.standardize:
            images = F.layer_norm(images, images.shape[1:])
        # Max pooling and ReLU give the same in either order; pooling first leaves ReLU a quarter of the work.
        x = self.relu(self.max_pool2d(self.conv1(images), 2))  # (B, 32, 14, 14) for 28x28 images
        x = self.relu(self.max_pool2d(self.conv2(x), 2))  # (B, 64, 7, 7)
        x = x.flatten(1)  # (B, 3136)
        x = self.relu(self.fc1(x))  # (B, 128)
        logits: Tensor = self.fc2(x)  # (B, num_classes)
        return logits
