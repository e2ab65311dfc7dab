"""Corrupted digits, in the manner of MNIST-C (Mu and Gilmer, 2019), to measure robustness.

The kinds are those of MNIST-C; the code and the severities, stated with each, are this project's own.
Every corruption maps float32 images (N, 1, H, W) in [0, 1], bright on black, to images of the same form,
and draws its random numbers from the generator that it is given.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mnist_cnn.data.idx import MNIST

Corruption = Callable[[Tensor, Generator], Tensor]


class CorruptedMNIST(MNIST):
    """MNIST whose test images appear once as they are and once under each corruption.

    The training images are as they are.
    """

    @property
    def parts(self) -> list[str]:
        return ["clean", *CORRUPTIONS]

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, 1, 28, 28) and int64 labels (N,); 16 x 10,000 test images."""
        images, targets = super().read(directory, train)
        if train:
            return images, targets
        clean = images.float() / 255
        corrupted = [images]
        for number, corrupt in enumerate(CORRUPTIONS.values()):
            generator = torch.Generator().manual_seed(number)
            corrupted.append((corrupt(clean, generator).clamp(0, 1) * 255).round().to(torch.uint8))
        return torch.cat(corrupted), targets.repeat(len(corrupted))


def shot_noise(images: Tensor, generator: Generator) -> Tensor:
    """Return counts of light: Poisson noise with 5 photons for a white pixel."""
    return torch.poisson(images * 5, generator) / 5


def impulse_noise(images: Tensor, generator: Generator) -> Tensor:
    """Return images with 15 % of the pixels set to black or white."""
    noise = torch.rand(images.shape, generator=generator)
    return torch.where(noise < 0.075, 0.0, torch.where(noise > 0.925, 1.0, images))


def glass_blur(images: Tensor, generator: Generator) -> Tensor:
    """Return images seen through uneven glass: each pixel is taken from up to 2 pixels away, then blurred."""
    count, _, height, width = images.shape
    shift = torch.randint(-2, 3, (count, 2, height, width), generator=generator)
    rows = (torch.arange(height).view(-1, 1) + shift[:, 0]).clamp(0, height - 1)
    columns = (torch.arange(width) + shift[:, 1]).clamp(0, width - 1)
    moved = images.flatten(2).gather(2, (rows * width + columns).view(count, 1, -1)).view_as(images)
    return _blur(moved, sigma=0.7)


def motion_blur(images: Tensor, generator: Generator) -> Tensor:
    """Return the mean of each image along a line of 9 pixels in a random direction."""
    angle = torch.rand(len(images), generator=generator) * math.pi
    steps = torch.linspace(-4, 4, 9)
    moved = [_affine(images, right=step * angle.cos(), down=step * angle.sin()) for step in steps]
    return torch.stack(moved).mean(0)


def shear(images: Tensor, generator: Generator) -> Tensor:
    """Return images sheared horizontally by 0.5 pixels a row, to either side."""
    return _affine(images, shear=0.5 * _signs(len(images), generator))


def scale(images: Tensor, generator: Generator) -> Tensor:
    """Return images at 60 % of their size."""
    return _affine(images, zoom=torch.full((len(images),), 1 / 0.6))


def rotate(images: Tensor, generator: Generator) -> Tensor:
    """Return images turned by 30 degrees, to either side."""
    return _affine(images, turn=math.radians(30) * _signs(len(images), generator))


def translate(images: Tensor, generator: Generator) -> Tensor:
    """Return images shifted by 3 pixels horizontally and vertically, to either side."""
    right, down = 3 * _signs(len(images), generator), 3 * _signs(len(images), generator)
    return _affine(images, right=right, down=down)


def brightness(images: Tensor, generator: Generator) -> Tensor:
    """Return images with 0.5 added to each pixel."""
    return images + 0.5


def stripe(images: Tensor, generator: Generator) -> Tensor:
    """Return images of which the middle third of the columns is inverted."""
    width = images.shape[-1]
    inside = (torch.arange(width) - (width - 1) / 2).abs() < width / 6
    return torch.where(inside, 1 - images, images)


def fog(images: Tensor, generator: Generator) -> Tensor:
    """Return images behind clouds of up to half the brightness."""
    clouds = _clouds(images, generator, cells=4)
    return images * 0.6 + clouds * 0.5


def spatter(images: Tensor, generator: Generator) -> Tensor:
    """Return images with bright drops that cover a tenth of the area."""
    drops = _clouds(images, generator, cells=12)
    limit = drops.flatten(1).quantile(0.9, dim=1).view(-1, 1, 1, 1)
    return torch.maximum(images, _blur((drops > limit).float(), sigma=0.5))


def dotted_line(images: Tensor, generator: Generator) -> Tensor:
    """Return images crossed by a straight line of dots, one in every three pixels."""
    ends = _line_ends(images, generator)
    dots = torch.zeros_like(images)
    for part in torch.linspace(0, 1, 10):
        dots = torch.maximum(dots, _dots(images, ends[:, 0] * (1 - part) + ends[:, 1] * part))
    return torch.maximum(images, dots)


def zigzag(images: Tensor, generator: Generator) -> Tensor:
    """Return images crossed by a zigzag line that is 1.5 pixels wide and swings by 3 pixels."""
    ends = _line_ends(images, generator)
    along = ends[:, 1] - ends[:, 0]
    aside = torch.stack([-along[:, 1], along[:, 0]], 1) / along.norm(dim=1, keepdim=True)
    line = torch.zeros_like(images)
    for part in torch.linspace(0, 1, 45):
        swing = 3 * (2 * abs(2 * ((4 * part) % 1) - 1) - 1)
        line = torch.maximum(line, _dots(images, ends[:, 0] + part * along + swing * aside))
    return torch.maximum(images, line)


def canny_edges(images: Tensor, generator: Generator) -> Tensor:
    """Return the outlines: white where the blurred image is steepest along its gradient (Canny, 1986)."""
    smooth = _blur(images, sigma=1.0)
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    gradient = F.conv2d(F.pad(smooth, (1, 1, 1, 1)), torch.stack([sobel, sobel.T]).unsqueeze(1))
    strength: Tensor = gradient.norm(dim=1, keepdim=True)
    step = gradient / strength.clamp(min=1e-6)
    ahead = _at(strength, step[:, 0], step[:, 1])
    behind = _at(strength, -step[:, 0], -step[:, 1])
    return ((strength >= ahead) & (strength > behind) & (strength > 0.8)).to(torch.float32)


CORRUPTIONS: dict[str, Corruption] = {
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "shear": shear,
    "scale": scale,
    "rotate": rotate,
    "brightness": brightness,
    "translate": translate,
    "stripe": stripe,
    "fog": fog,
    "spatter": spatter,
    "dotted_line": dotted_line,
    "zigzag": zigzag,
    "canny_edges": canny_edges,
}


def _signs(count: int, generator: Generator) -> Tensor:
    return torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Return images blurred by a normal curve of `sigma` pixels."""
    curve = torch.exp(-0.5 * (torch.arange(-3, 4) / sigma).square())
    curve = (curve / curve.sum()).view(1, 1, 1, -1)
    return F.conv2d(F.conv2d(images, curve, padding=(0, 3)), curve.transpose(2, 3), padding=(3, 0))


def _affine(
    images: Tensor,
    turn: Tensor | float = 0.0,
    zoom: Tensor | float = 1.0,
    shear: Tensor | float = 0.0,
    right: Tensor | float = 0.0,
    down: Tensor | float = 0.0,
) -> Tensor:
    """Return the pixels at the coordinates that the map gives, one number or (N,) for each argument."""
    count, _, _, width = images.shape
    one = torch.ones(count)
    cos, sin = (one * turn).cos(), (one * turn).sin()
    x = [cos * zoom, (shear * cos - sin) * zoom, one * right * 2 / width]
    y = [sin * zoom, (shear * sin + cos) * zoom, one * down * 2 / width]
    matrix = torch.stack(x + y, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _at(images: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Return the images (N, 1, H, W) read `right` and `down` pixels (N, H, W) away from each pixel."""
    height, width = images.shape[-2:]
    x = (torch.arange(width) + 0.5 + right) * 2 / width - 1
    y = (torch.arange(height).view(-1, 1) + 0.5 + down) * 2 / height - 1
    return F.grid_sample(images, torch.stack([x, y], dim=3), align_corners=False)


def _clouds(images: Tensor, generator: Generator, cells: int) -> Tensor:
    """Return uniform noise of cells x cells values in [0, 1], enlarged to (N, 1, H, W)."""
    coarse = torch.rand(len(images), 1, cells, cells, generator=generator)
    return F.interpolate(coarse, images.shape[-2:], mode="bicubic", align_corners=True).clamp(0, 1)


def _line_ends(images: Tensor, generator: Generator) -> Tensor:
    """Return the ends (N, 2, 2) of lines, in pixels (x, y), from the left border to the right one."""
    height, width = images.shape[-2:]
    y = torch.rand(len(images), 2, generator=generator) * (height - 1)
    x = torch.tensor([0.0, width - 1]).expand_as(y)
    return torch.stack([x, y], dim=2)


def _dots(images: Tensor, points: Tensor) -> Tensor:
    """Return images with a dot of about 1.5 pixels at each of `points` (N, 2), in pixels (x, y)."""
    height, width = images.shape[-2:]
    x = torch.arange(width) - points[:, 0].view(-1, 1, 1, 1)
    y = torch.arange(height).view(-1, 1) - points[:, 1].view(-1, 1, 1, 1)
    dots: Tensor = (1.5 - (x.square() + y.square()).sqrt()).clamp(0, 1)
    return dots
