import pytest
import torch

from mnist_cnn.data.degrade import DEGRADATIONS, Degrade
from mnist_cnn.errors import UserError


def stripes(count: int = 300) -> torch.Tensor:
    """Return images (count, 1, 28, 28) with vertical strokes of three pixels."""
    columns = (torch.arange(28) % 9 < 3).float()
    return columns.expand(count, 1, 28, 28).clone()


def test_no_strength_leaves_images_as_they_are():
    assert torch.equal(Degrade()(stripes()), stripes())


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_degradation_changes_a_third_of_the_images_within_their_range(name):
    torch.manual_seed(0)
    images = stripes()
    degraded = Degrade(**{name: 0.5})(images)
    assert degraded.shape == images.shape
    assert degraded.min() >= 0
    assert degraded.max() <= 1
    changed = (degraded != images).flatten(1).any(1).float().mean()
    assert 0.2 < changed < 0.45
    assert torch.equal(images, stripes())


def test_colour_images_and_their_channels_are_kept():
    torch.manual_seed(0)
    degraded = Degrade(blur=1, shadow=1, specks=1, patch=1)(torch.rand(8, 3, 20, 20))
    assert degraded.shape == (8, 3, 20, 20)


def test_unknown_degradation_is_refused():
    with pytest.raises(UserError, match=r"has no speck; it has stroke, outline"):
        Degrade(speck=0.5)
