"""CnnNet: two 5x5 convolutions and three linear layers, in the manner of LeNet-5."""

from torch import Tensor, nn
from torch.nn import functional as F

from mnist_cnn.models.shapes import check_images


class CnnNet(nn.Module):
    """The tutorial's section 3.1 network: 61,706 parameters in 10 tensors for one channel and ten classes.

    Takes images of shape (B, in_channels, 32, 32) and returns logits of shape (B, num_classes).
    Raises `UserError` for images of another shape.
    """

    image_size = 32

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, kernel_size=5)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.conv1.in_channels, self.image_size, name="CnnNet")
        # ReLU and max pooling commute, exactly; pooling first leaves ReLU a quarter of the work.
        x = F.relu(F.max_pool2d(self.conv1(images), 2))  # (B, 6, 14, 14)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B, 16, 5, 5)
        x = x.flatten(1)  # (B, 400)
        x = F.relu(self.fc1(x))  # (B, 120)
        x = F.relu(self.fc2(x))  # (B, 84)
        logits: Tensor = self.fc3(x)  # (B, num_classes)
        return logits
