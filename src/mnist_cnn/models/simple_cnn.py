"""SimpleCNN: two 3x3 convolutions and two linear layers."""

from torch import Tensor, nn

from mnist_cnn.models import layers as kits
from mnist_cnn.models.shapes import check_images


class SimpleCNN(nn.Module):
    """The tutorial's section 4.2 network.

    It has 421,642 parameters in 8 tensors for one channel and ten classes. Takes images of shape
    (B, in_channels, 28, 28) and returns logits of shape (B, num_classes).
    `layers` is "torch" for the library's layers or "handmade" for `models.handmade`; the parameters
    are the same. Raises `UserError` for other `layers` and for images of another shape.
    """

    image_size = 28

    def __init__(self, in_channels: int = 1, num_classes: int = 10, layers: str = "torch") -> None:
        super().__init__()
        kit = self.kit = kits.choose(layers)
        self.conv1 = kit.conv2d(in_channels, 32, kernel_size=3, padding=1)
        self.conv2 = kit.conv2d(32, 64, kernel_size=3, padding=1)
        self.fc1 = kit.linear(64 * 7 * 7, 128)
        self.fc2 = kit.linear(128, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.conv1.in_channels, self.image_size, name="SimpleCNN")
        relu, max_pool2d = self.kit.relu, self.kit.max_pool2d
        # ReLU and max pooling commute, exactly; pooling first leaves ReLU a quarter of the work.
        x = relu(max_pool2d(self.conv1(images), 2))  # (B, 32, 14, 14)
        x = relu(max_pool2d(self.conv2(x), 2))  # (B, 64, 7, 7)
        x = x.flatten(1)  # (B, 3136)
        x = relu(self.fc1(x))  # (B, 128)
        logits: Tensor = self.fc2(x)  # (B, num_classes)
        return logits
