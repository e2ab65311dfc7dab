import pytest
import torch
from torch import Tensor, nn

from mnist_cnn.models.ensemble import Ensemble


class Constant(nn.Module):
    """Gives the same logits for each image."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


class Corner(nn.Module):
    """Gives the upper left pixel and its negative."""

    def forward(self, images: Tensor) -> Tensor:
        corner = images[:, 0, 0, 0]
        return torch.stack([corner, -corner], dim=1)


def test_probabilities_of_the_networks_are_averaged():
    first, second = Constant(0.0, 1.0, 5.0), Constant(3.0, 1.0, 0.0)
    outputs = Ensemble([first, second])(torch.zeros(4, 1, 6, 6))
    expected = (first.logits.softmax(0) + second.logits.softmax(0)) / 2
    torch.testing.assert_close(outputs.softmax(1), expected.expand(4, -1))
    torch.testing.assert_close(outputs.exp(), expected.expand(4, -1))  # already normalized


def test_outputs_of_a_regression_are_averaged():
    outputs = Ensemble([Constant(0.0, 1.0), Constant(3.0, 2.0)], probabilities=False)(torch.zeros(1, 1, 6, 6))
    assert outputs.tolist() == [[1.5, 1.5]]


def test_shifts_are_by_one_pixel_to_each_side():
    images = torch.arange(16.0).view(1, 1, 4, 4)
    outputs = Ensemble([Corner()], probabilities=False, shifts=True)(images)
    # the corner itself, twice repeated at the border, and its right and lower neighbours
    assert outputs[0, 0] == pytest.approx((0 + 0 + 0 + 1 + 4) / 5)
