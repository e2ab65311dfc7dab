"""The tutorial's training loop: torchvision's transforms for each image, float32, SGD with momentum."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

DATA = Path(__file__).parents[1] / "data"


def mnist(name: str, train: bool) -> Dataset[tuple[Tensor, int]]:
    """Return the images for the network `name`, "simple" or "cnnnet"."""
    steps = [transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]
    if name == "cnnnet":
        steps.insert(0, transforms.Pad(2))
    images: Dataset[tuple[Tensor, int]] = datasets.MNIST(DATA, train, transforms.Compose(steps))
    return images


def network(name: str) -> nn.Module:
    """Return SimpleCNN or CnnNet with ReLU before pooling, as the tutorial has it."""
    if name == "cnnnet":
        first, second = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        linear = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    else:
        first, second = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        linear = [nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10)]
    blocks = [first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten(), *linear)


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[tuple[Tensor, int]]
) -> Iterator[float]:
    """Train on the batches of `loader` and yield the loss of each step."""
    criterion = nn.CrossEntropyLoss()
    for batch, targets in loader:
        loss = criterion(model(batch), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def accuracy(model: nn.Module, loader: DataLoader[tuple[Tensor, int]]) -> float:
    """Return the accuracy of `model` on the images of `loader`."""
    right = count = 0
    with torch.no_grad():
        for batch, targets in loader:
            right += int((model(batch).argmax(1) == targets).sum())
            count += len(targets)
    return right / count
