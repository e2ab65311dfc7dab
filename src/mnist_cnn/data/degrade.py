"""Random degradations of training images, drawn for each image, computed for many images at once."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mnist_cnn.errors import UserError

VERTICES = 5  # of a polyline
DOTS = 60  # that a polyline is drawn with

Degradation = Callable[[Tensor, Tensor], Tensor]  # images (N, C, H, W), strengths (N, 1, 1, 1) -> images


class Degrade:
    """Adds scan artifacts: other stroke widths, blur, grey paper, shadows, noise, covered parts.

    Takes and returns float32 images (B, C, H, W) in [0, 1], bright on black. Each degradation is applied to
    the fraction `share` of the images of a batch, chosen at random, with a strength for each image drawn
    uniformly from 0 to the given one:

    - `stroke`: how far strokes are widened or thinned, 1 being a pixel to each side;
    - `outline`: how far the inside of strokes is removed;
    - `scatter`: how far each pixel is taken from another place, 1 being up to 3 pixels away;
    - `blur`: how far an image is replaced by its mean over 5 x 5 pixels;
    - `motion`: the length of a line over which each pixel is averaged, 1 being 12 pixels;
    - `invert`: how far a rectangle of any size is inverted;
    - `fade`: how much of the contrast is lost, half of it as a brighter background;
    - `shadow`: the largest brightness that a smooth pattern adds;
    - `spots`: the brightness of spots that cover up to a quarter of the area;
    - `lines`: the brightness of a line of random corners, in part dotted;
    - `noise`: the standard deviation of normally distributed noise;
    - `specks`: the fraction of pixels that turn black or white;
    - `patch`: the largest side of a rectangle of one grey level, as a fraction of the image's.

    Numbers are drawn from torch's default generator of the device. Raises `UserError` for an unknown name.
    """

    def __init__(self, share: float = 1 / 3, **strengths: float) -> None:
        unknown = sorted(strengths.keys() - DEGRADATIONS.keys())
        if unknown:
            raise UserError(f"The augmentation has no {unknown[0]}; it has {', '.join(DEGRADATIONS)}.")
        self.share = share
        # In the order of the table, whatever that of the settings is.
        self.degradations = [
            (strengths[name], function) for name, function in DEGRADATIONS.items() if strengths.get(name)
        ]

    def __call__(self, images: Tensor) -> Tensor:
        images = images.clone()
        count = math.ceil(self.share * len(images))
        for limit, function in self.degradations:
            chosen = torch.rand(len(images), device=images.device).argsort()[:count]
            strength = limit * torch.rand(count, 1, 1, 1, device=images.device)
            images[chosen] = function(images[chosen], strength)
        return images.clamp_(0, 1)


def _stroke(images: Tensor, strength: Tensor) -> Tensor:
    widens = torch.rand_like(strength) < 0.5
    # Thinning by a whole pixel would erase strokes, which are two to three wide.
    return images.lerp(
        torch.where(widens, _wider(images), _thinner(images)), torch.where(widens, strength, strength * 0.7)
    )


def _outline(images: Tensor, strength: Tensor) -> Tensor:
    return images - strength * _thinner(images)


def _scatter(images: Tensor, strength: Tensor) -> Tensor:
    count, channels, height, width = images.shape
    shift = (torch.rand(2, count, height, width, device=images.device) * 2 - 1) * 3 * strength[:, 0]
    rows = (torch.arange(height, device=images.device).view(-1, 1) + shift[0].round()).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + shift[1].round()).clamp(0, width - 1)
    index = (rows * width + columns).long().view(count, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, index).view_as(images)


def _blur(images: Tensor, strength: Tensor) -> Tensor:
    return images.lerp(F.avg_pool2d(F.pad(images, (2, 2, 2, 2)), 5, stride=1), strength)


def _motion(images: Tensor, strength: Tensor) -> Tensor:
    count, _, height, width = images.shape
    angle = torch.rand(count, device=images.device) * math.pi
    steps = torch.linspace(-6, 6, 7, device=images.device).view(-1, 1) * strength.flatten()  # (7, N)
    shift = torch.stack([steps * angle.cos() * 2 / width, steps * angle.sin() * 2 / height], 2)  # (7, N, 2)
    y, x = torch.meshgrid(_centers(height, images), _centers(width, images), indexing="ij")
    grid = torch.stack([x, y], 2) + shift.view(7, count, 1, 1, 2)
    moved = [F.grid_sample(images, one, align_corners=False) for one in grid]
    return torch.stack(moved).mean(0)


def _invert(images: Tensor, strength: Tensor) -> Tensor:
    sides = torch.rand(2, len(images), 1, 1, 1, device=images.device)
    return torch.where(_rectangle(images, sides), images.lerp(1 - images, strength), images)


def _fade(images: Tensor, strength: Tensor) -> Tensor:
    return images * (1 - strength) + strength / 2


def _shadow(images: Tensor, strength: Tensor) -> Tensor:
    return images + strength * _clouds(images, cells=4)


def _spots(images: Tensor, strength: Tensor) -> Tensor:
    least = 0.65 + 0.3 * torch.rand_like(strength)  # of the pattern, where there is a spot
    spots = ((_clouds(images, cells=10) - least) * 8).clamp(0, 1)
    return torch.maximum(images, strength * spots)


def _lines(images: Tensor, strength: Tensor) -> Tensor:
    count, _, height, width = images.shape
    corners = torch.rand(count, 2, VERTICES, device=images.device)
    points = F.interpolate(corners, DOTS, mode="linear", align_corners=True)  # (N, 2, DOTS)
    every = torch.randint(1, 5, (count, 1), device=images.device)
    shown = torch.arange(DOTS, device=images.device) % every == 0  # every dot, or every second to fourth
    radius = 0.5 + torch.rand(count, 1, 1, device=images.device)
    x = (torch.arange(width, device=images.device) - points[:, 0, :, None] * (width - 1)).square()
    y = (torch.arange(height, device=images.device) - points[:, 1, :, None] * (height - 1)).square()
    x = x.masked_fill(~shown[:, :, None], 1e6)
    distance = (y[:, :, :, None] + x[:, :, None, :]).amin(1).sqrt()  # (N, H, W)
    return torch.maximum(images, strength * (radius + 0.5 - distance).clamp(0, 1).unsqueeze(1))


def _noise(images: Tensor, strength: Tensor) -> Tensor:
    return images + strength * torch.randn_like(images)


def _specks(images: Tensor, strength: Tensor) -> Tensor:
    speck = torch.rand_like(images[:, :1])
    images = torch.where(speck < strength / 2, 0.0, images)
    return torch.where(speck > 1 - strength / 2, 1.0, images)


def _patch(images: Tensor, strength: Tensor) -> Tensor:
    sides = strength * torch.rand(2, len(images), 1, 1, 1, device=images.device)
    return torch.where(_rectangle(images, sides), torch.rand_like(strength), images)


def _wider(images: Tensor) -> Tensor:
    return F.max_pool2d(images, 3, stride=1, padding=1)


def _thinner(images: Tensor) -> Tensor:
    return -F.max_pool2d(-images, 3, stride=1, padding=1)


def _clouds(images: Tensor, cells: int) -> Tensor:
    """Return smooth patterns (N, 1, H, W) in [0, 1]."""
    coarse = torch.rand(len(images), 1, cells, cells, device=images.device)
    return F.interpolate(coarse, images.shape[-2:], mode="bilinear", align_corners=True)


def _rectangle(images: Tensor, sides: Tensor) -> Tensor:
    """Return which pixels (N, 1, H, W) lie in rectangles of `sides` (2, N, 1, 1, 1), at random places."""
    half, center = sides, torch.rand_like(sides) * 2 - 1
    y, x = _centers(images.shape[-2], images).view(-1, 1), _centers(images.shape[-1], images)
    return ((y - center[0]).abs() < half[0]) & ((x - center[1]).abs() < half[1])


def _centers(length: int, images: Tensor) -> Tensor:
    """Return the centres of pixels (length,) in grid_sample's coordinates, which span [-1, 1]."""
    return (torch.arange(length, device=images.device) * 2 + 1) / length - 1


DEGRADATIONS: dict[str, Degradation] = {
    "stroke": _stroke,
    "outline": _outline,
    "scatter": _scatter,
    "blur": _blur,
    "motion": _motion,
    "invert": _invert,
    "fade": _fade,
    "shadow": _shadow,
    "spots": _spots,
    "lines": _lines,
    "noise": _noise,
    "specks": _specks,
    "patch": _patch,
}
