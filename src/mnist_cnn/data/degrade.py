"""Random degradations of training images, drawn for each image, computed for a whole batch at once."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mnist_cnn.errors import UserError


class Degrade:
    """Makes images look like worse scans: other pens, blur, grey paper, shadows, noise, and covered parts.

    Takes and returns float32 images (B, C, H, W) in [0, 1], bright on black. Each degradation is drawn for
    a third of the images, with a strength that is uniform between none and the given one:

    - `stroke`: how far strokes are widened or thinned, 1 being a pixel to each side;
    - `blur`: how far an image is replaced by its mean over 5 x 5 pixels;
    - `fade`: how much of the contrast is lost, half of it as a brighter background;
    - `shadow`: the largest brightness that a smooth pattern adds;
    - `noise`: the standard deviation of normally distributed noise;
    - `specks`: the fraction of pixels that turn black or white;
    - `patch`: the largest side of a rectangle of one grey level, as a fraction of the image's.

    Numbers are drawn from torch's default generator of the device. Raises `UserError` for strengths outside
    of [0, 1].
    """

    def __init__(
        self,
        stroke: float = 0.0,
        blur: float = 0.0,
        fade: float = 0.0,
        shadow: float = 0.0,
        noise: float = 0.0,
        specks: float = 0.0,
        patch: float = 0.0,
    ) -> None:
        strengths = {
            "stroke": stroke,
            "blur": blur,
            "fade": fade,
            "shadow": shadow,
            "noise": noise,
            "specks": specks,
            "patch": patch,
        }
        for name, value in strengths.items():
            if not 0 <= value <= 1:
                raise UserError(f"The augmentation's {name}={value} should be between 0, for none, and 1.")
        self.strengths = strengths

    def __call__(self, images: Tensor) -> Tensor:
        strength = {name: self._draw(images, limit) for name, limit in self.strengths.items()}
        images = self._pen(images, strength["stroke"])
        images = images.lerp(F.avg_pool2d(F.pad(images, (2, 2, 2, 2)), 5, stride=1), strength["blur"])
        images = images * (1 - strength["fade"]) + strength["fade"] / 2
        images = images + strength["shadow"] * self._clouds(images)
        images = images + strength["noise"] * torch.randn_like(images)
        speck = torch.rand_like(images[:, :1])
        images = torch.where(speck < strength["specks"] / 2, 0.0, images)
        images = torch.where(speck > 1 - strength["specks"] / 2, 1.0, images)
        return self._cover(images, strength["patch"]).clamp_(0, 1)

    def _draw(self, images: Tensor, limit: float) -> Tensor:
        """Return a strength (B, 1, 1, 1) for each image, 0 for two thirds of them."""
        drawn = torch.rand(len(images), 1, 1, 1, device=images.device)
        return drawn.mul_(3).sub_(2).clamp_(min=0).mul_(limit)

    def _pen(self, images: Tensor, strength: Tensor) -> Tensor:
        if not self.strengths["stroke"]:
            return images
        wider = F.max_pool2d(images, 3, stride=1, padding=1)
        thinner = -F.max_pool2d(-images, 3, stride=1, padding=1)
        widens = torch.rand_like(strength) < 0.5
        # Thinning by a whole pixel would erase strokes, which are two to three wide.
        return images.lerp(torch.where(widens, wider, thinner), torch.where(widens, strength, strength * 0.7))

    def _clouds(self, images: Tensor) -> Tensor:
        """Return smooth patterns (B, 1, H, W) in [0, 1]."""
        coarse = torch.rand(len(images), 1, 4, 4, device=images.device)
        return F.interpolate(coarse, images.shape[-2:], mode="bilinear", align_corners=True)

    def _cover(self, images: Tensor, strength: Tensor) -> Tensor:
        """Cover a rectangle of each image with a random shape, place and grey level."""
        count, _, height, width = images.shape
        half = strength / 2 * torch.rand(2, count, 1, 1, 1, device=images.device)
        center = torch.rand(2, count, 1, 1, 1, device=images.device)
        y = torch.linspace(0, 1, height, device=images.device).view(-1, 1)
        x = torch.linspace(0, 1, width, device=images.device)
        inside = ((y - center[0]).abs() < half[0]) & ((x - center[1]).abs() < half[1])  # (B, 1, H, W)
        return torch.where(inside, torch.rand_like(strength), images)
