import math

import pytest
import torch

from mnist_cnn.data.augment import Warp


def blob(count: int = 200, size: int = 28) -> torch.Tensor:
    """Return images (count, 1, size, size) of a smooth bright spot a little off the centre."""
    y, x = torch.meshgrid(torch.arange(size) - 10.0, torch.arange(size) - 16.0, indexing="ij")
    return torch.exp(-(x.square() + y.square()) / 18).expand(count, 1, size, size)


def centers(images: torch.Tensor) -> torch.Tensor:
    """Return the centre of mass (count, 2) of each image, (x, y) in pixels from the middle of the image."""
    size = images.shape[-1]
    axis = torch.arange(size) - (size - 1) / 2
    mass = images.sum((1, 2, 3))
    return (
        torch.stack([(images * axis).sum((1, 2, 3)), (images * axis.view(-1, 1)).sum((1, 2, 3))], 1)
        / mass[:, None]
    )


def test_zero_ranges_leave_images_as_they_are():
    torch.manual_seed(0)
    images = torch.rand(4, 3, 20, 20)
    torch.testing.assert_close(Warp()(images), images, atol=1e-4, rtol=0)


def test_shifts_fill_their_range_and_differ_between_images_and_axes():
    torch.manual_seed(0)
    moved = centers(Warp(translate=3)(blob())) - centers(blob())
    assert moved.abs().amax(0).tolist() == pytest.approx([3, 3], abs=0.15)
    assert moved.mean(0).abs().max() < 0.4
    assert abs(torch.corrcoef(moved.T)[0, 1]) < 0.2


def test_rotation_keeps_the_distance_from_the_middle():
    torch.manual_seed(0)
    before, after = centers(blob()), centers(Warp(degrees=30)(blob()))
    torch.testing.assert_close(after.norm(dim=1), before.norm(dim=1), atol=0.05, rtol=0)
    turned = torch.atan2(after[:, 1], after[:, 0]) - torch.atan2(before[:, 1], before[:, 0])
    assert math.degrees(turned.abs().max()) == pytest.approx(30, abs=1)


def test_elastic_displacement_is_smooth_and_has_its_standard_deviation():
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    places = torch.stack([x, y]).expand(2000, 2, 28, 28)  # the brightness of a pixel says where it comes from
    field = (Warp(elastic=1.5)(places) - places)[..., 6:-6, 6:-6]  # without what comes from outside
    deviation = field.std(0)
    assert deviation.min() > 1.35
    assert deviation.max() < 1.65
    assert (field[..., 1:] - field[..., :-1]).std() < 0.5


def test_same_seed_gives_the_same_images_whatever_was_drawn_before():
    images = blob(8)
    warp = Warp(degrees=10, elastic=1)
    torch.manual_seed(3)
    first = warp(images)
    warp(blob(5, size=32))
    torch.manual_seed(3)
    assert torch.equal(warp(images), first)
