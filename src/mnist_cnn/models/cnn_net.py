"""CnnNet: two 5x5 convolutions and three linear layers, similar to LeNet-5."""

from torch import Tensor, nn
from torch.nn import functional as F

from mnist_cnn.models.layers import check_image_size, get_layers


class CnnNet(nn.Module):
    """The network of the tutorial's section 3.1.

    Maps images (B, in_channels, image_size, image_size) to logits (B, num_classes). With the default
    arguments it has 61,706 parameters in 10 tensors.
    `layers` selects the implementation of the layers: "torch", or "handmade" for `models.handmade`; the
    parameters are the same. With `standardize` each image is first brought to mean 0 and variance 1. Raises
    `UserError` for unknown `layers` and for an `image_size` below 16.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 32,
        layers: str = "torch",
        standardize: bool = False,
    ) -> None:
        super().__init__()
        check_image_size(image_size, smallest=16, name="CnnNet")
        self.image_size, self.standardize = image_size, standardize
        layer_set = get_layers(layers)
        self.relu, self.max_pool2d = layer_set.relu, layer_set.max_pool2d
        self.conv1 = layer_set.conv2d(in_channels, 6, kernel_size=5)
        self.conv2 = layer_set.conv2d(6, 16, kernel_size=5)
        side = ((image_size - 4) // 2 - 4) // 2  # a convolution removes 4 pixels, pooling halves the rest
        self.fc1 = layer_set.linear(16 * side * side, 120)
        self.fc2 = layer_set.linear(120, 84)
        self.fc3 = layer_set.linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        if self.standardize:
            images = F.layer_norm(images, images.shape[1:])
        # Max pooling and ReLU give the same in either order; pooling first leaves ReLU a quarter of the work.
        x = self.relu(self.max_pool2d(self.conv1(images), 2))  # (B, 6, 14, 14) for 32x32 images
        x = self.relu(self.max_pool2d(self.conv2(x), 2))  # (B, 16, 5, 5)
        x = x.flatten(1)  # (B, 400)
        x = self.relu(self.fc1(x))  # (B, 120)
        x = self.relu(self.fc2(x))  # (B, 84)
        logits: Tensor = self.fc3(x)  # (B, num_classes)
        return logits
