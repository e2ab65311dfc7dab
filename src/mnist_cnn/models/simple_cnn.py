"""SimpleCNN: two 3x3 convolutions and two linear layers."""

from torch import Tensor, nn
from torch.nn import functional as F

from mnist_cnn.models.shapes import check_images


class SimpleCNN(nn.Module):
    """The tutorial's section 4.2 network: 421,642 parameters in 8 tensors for one channel and ten classes.

    Takes images of shape (B, in_channels, 28, 28) and returns logits of shape (B, num_classes).
    Raises `UserError` for images of another shape.
    """

    image_size = 28

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.fc1 = nn.Linear(64 * 7 * 7, 128)
        self.fc2 = nn.Linear(128, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.conv1.in_channels, self.image_size, name="SimpleCNN")
        # ReLU and max pooling commute, exactly; pooling first leaves ReLU a quarter of the work.
        x = F.relu(F.max_pool2d(self.conv1(images), 2))  # (B, 32, 14, 14)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B, 64, 7, 7)
        x = x.flatten(1)  # (B, 3136)
        x = F.relu(self.fc1(x))  # (B, 128)
        logits: Tensor = self.fc2(x)  # (B, num_classes)
        return logits
