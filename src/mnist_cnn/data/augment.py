"""Random distortions of training images, drawn for each image, computed for a whole batch at once."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

NODES = 6  # the elastic field has NODES x NODES random displacements, blurred over one distance of nodes


class Warp:
    """Moves the pixels of each image: a random affine map, and a smooth random displacement of its points.

    Takes and returns float32 images (B, C, H, W) in [0, 1]; what comes from outside an image is 0. For each
    image it draws, uniformly from these ranges:

    - a rotation in [-degrees, degrees],
    - a scale of width and one of height in [1 - scale, 1 + scale],
    - a shear in [-shear, shear], the horizontal shift in pixels for each pixel of height,
    - a shift in [-translate, translate] pixels, horizontally and vertically.

    `elastic` is the standard deviation, in pixels, of a normally distributed displacement field, as in the
    elastic distortions of Simard, Steinkraus and Platt (2003); 0 leaves it out.

    The coordinates that each pixel is read from are linear in the random numbers of an image, so those of a
    batch are one matrix product. Numbers are drawn from torch's default generator of the device.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        translate: float = 0.0,
        elastic: float = 0.0,
    ) -> None:
        self.radians = math.radians(degrees)
        self.scale = scale
        self.shear = shear
        self.translate = translate
        self.elastic = elastic
        self._basis = torch.empty(0, 0)  # for the size and the device of the latest images
        self._size: Sequence[int] = ()

    def __call__(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if (height, width) != self._size or self._basis.device != images.device:
            self._size, self._basis = (height, width), self._make_basis(height, width).to(images.device)
        coefficients = self._draw(len(images), images.device)  # (B, 2, 3 + NODES * NODES)
        grid = (coefficients @ self._basis).view(-1, 2, height, width).permute(0, 2, 3, 1)  # (B, H, W, 2)
        return F.grid_sample(images, grid, align_corners=False)

    def _draw(self, count: int, device: torch.device) -> Tensor:
        """Return for each image the coefficients of x, y, 1 and the nodes in its two coordinates."""
        turn, shear, width, height, right, down = torch.rand(6, count, device=device).mul_(2).sub_(1)
        cos, sin = (turn * self.radians).cos(), (turn * self.radians).sin()
        width, height, shear = 1 + self.scale * width, 1 + self.scale * height, self.shear * shear
        x = [cos * width, (shear * cos - sin) * height, self.translate * right]
        y = [sin * width, (shear * sin + cos) * height, self.translate * down]
        affine = torch.stack(x + y, dim=1).view(-1, 2, 3)
        if not self.elastic:
            return affine
        nodes = self.elastic * torch.randn(count, 2, NODES * NODES, device=device)
        return torch.cat([affine, nodes], dim=2)

    def _make_basis(self, height: int, width: int) -> Tensor:
        """Return x, y, 1 and the weight of each node at each pixel (K, H * W), in grid_sample's units."""
        y, x = torch.meshgrid(
            torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij"
        )
        rows = [x, y, torch.ones_like(x)]
        if self.elastic:
            weights = torch.einsum("ih,jw->ijhw", _bumps(height), _bumps(width)).flatten(0, 1)
            # Each pixel gets a displacement of variance 1.
            rows += list(weights / weights.square().sum(0).sqrt())
        return torch.stack(rows).flatten(1) * (2 / width)  # grid_sample's coordinates span [-1, 1]


def _bumps(length: int) -> Tensor:
    """Return NODES normal curves (NODES, length), their centres and their width one distance apart."""
    centers = torch.linspace(-0.5, length - 0.5, NODES)
    distance = length / (NODES - 1)
    return torch.exp(-0.5 * ((torch.arange(length) - centers[:, None]) / distance).square())
