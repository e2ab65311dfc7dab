"""CnnNet: two 5x5 convolutions and three linear layers, in the manner of LeNet-5."""

from torch import Tensor, nn

from mnist_cnn.models import layers as kits
from mnist_cnn.models.shapes import check_images


class CnnNet(nn.Module):
    """The tutorial's section 3.1 network.

    It has 61,706 parameters in 10 tensors for one channel and ten classes. Takes images of shape
    (B, in_channels, 32, 32) and returns logits of shape (B, num_classes).
    `layers` is "torch" for the library's layers or "handmade" for `models.handmade`; the parameters
    are the same. Raises `UserError` for other `layers` and for images of another shape.
    """

    image_size = 32

    def __init__(self, in_channels: int = 1, num_classes: int = 10, layers: str = "torch") -> None:
        super().__init__()
        kit = self.kit = kits.choose(layers)
        self.conv1 = kit.conv2d(in_channels, 6, kernel_size=5)
        self.conv2 = kit.conv2d(6, 16, kernel_size=5)
        self.fc1 = kit.linear(16 * 5 * 5, 120)
        self.fc2 = kit.linear(120, 84)
        self.fc3 = kit.linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.conv1.in_channels, self.image_size, name="CnnNet")
        relu, max_pool2d = self.kit.relu, self.kit.max_pool2d
        # ReLU and max pooling commute, exactly; pooling first leaves ReLU a quarter of the work.
        x = relu(max_pool2d(self.conv1(images), 2))  # (B, 6, 14, 14)
        x = relu(max_pool2d(self.conv2(x), 2))  # (B, 16, 5, 5)
        x = x.flatten(1)  # (B, 400)
        x = relu(self.fc1(x))  # (B, 120)
        x = relu(self.fc2(x))  # (B, 84)
        logits: Tensor = self.fc3(x)  # (B, num_classes)
        return logits
