"""Image files as images for a network, in one way for training, evaluation and prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.ndimage import uniform_filter

from mnist_cnn.preparation.finding import find_digits
from mnist_cnn.preparation.grey_values import is_deep, scaled
from mnist_cnn.preparation.image_files import open_image

# Pixels of the longer side in which one digit, or several, are looked for; reducing also removes noise.
LONGEST = 480
LONGEST_OF_SEVERAL = 1200


class Prepared(NamedTuple):
    """The images for a network that an image file holds."""

    images: NDArray[np.uint8]  # (N, C, H, W)
    original: Image.Image  # upright and opaque, RGB or grey, for people
    others: int = 0  # how many more digits `split` would give


@dataclass(frozen=True)
class Preparation:
    """How image files become images for a network: the settings `prepare` and others of the data.

    With `prepare="resize"` an image is scaled to (channels, size, size), with its proportions kept and padded
    with black; transparent pixels become white. With `prepare="digits"` the digit in an image is looked for,
    on any background, and brought to the form of MNIST's: (1, 28, 28), light on dark.

    `grey_values` are black and white of images with more than 8 bits; if they are None, those of each image.
    """

    prepare: Literal["resize", "digits"]
    channels: int
    size: int
    grey_values: Sequence[float] | None = None

    def read(self, path: Path, split: bool = False) -> Prepared:
        """Return the image of a file, or with `split` each digit in it, left to right and line by line.

        Raises `UnreadableImage`, and `NothingFound` if there is no digit.
        """
        if self.prepare == "digits":
            longest = LONGEST_OF_SEVERAL if split else LONGEST
            image = _reduced(open_image(path, longest), longest)
            opaque = self._opaque(image, white=None)
            deep = is_deep(image.mode)
            grey = scaled(image, self.grey_values) if deep else _to_grey(np.asarray(opaque))
            digits, others = find_digits(grey, split)
            return Prepared(digits, opaque, others)
        opaque = self._opaque(open_image(path, 2 * self.size), white=True)
        fitted = ImageOps.pad(opaque.convert("L" if self.channels == 1 else "RGB"), (self.size,) * 2, color=0)
        pixels = np.asarray(fitted)
        return Prepared(pixels[None, None] if self.channels == 1 else pixels.transpose(2, 0, 1)[None], opaque)

    def _opaque(self, image: Image.Image, white: bool | None) -> Image.Image:
        """Return an image of 8 bits on white, or on black, or if `white` is None on what differs from it."""
        if is_deep(image.mode):
            return Image.fromarray(np.rint(scaled(image, self.grey_values) * 255).astype(np.uint8))
        if not image.has_transparency_data:
            return image.convert("RGB")
        image = image.convert("RGBA")
        if white is None:
            pixels = np.asarray(image).astype(np.float32)
            alpha = pixels[..., 3]
            white = bool((pixels[..., :3].mean(2) * alpha).sum() < 128 * alpha.sum())
        background = Image.new("RGBA", image.size, "white" if white else "black")
        return Image.alpha_composite(background, image).convert("RGB")


def prepare_file(path: Path, split: bool = False) -> NDArray[np.uint8]:
    """Return the digit in an image file in MNIST's form, uint8 (1, 1, 28, 28).

    With `split` these are all digits in it, (N, 1, 28, 28). Raises `UnreadableImage`, and `NothingFound` if
    there is no digit.
    """
    return Preparation("digits", channels=1, size=28).read(path, split).images


def _reduced(image: Image.Image, longest: int) -> Image.Image:
    if max(image.size) <= longest:
        return image
    if image.mode == "1":
        image = image.convert("L")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode.startswith("I;16"):
        image = image.convert("I")
    scale = longest / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX)


def _to_grey(rgb: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of the colours weighted so that ink and paper, also of equal brightness, differ most.

    The weights are the first principal component of the differences to the mean of the surrounding pixels.
    """
    values = rgb.astype(np.float32) / 255
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all():
        return values[..., 0]
    step = max(1, max(rgb.shape[:2]) // 300)
    small = values[::step, ::step]
    side = max(3, max(small.shape[:2]) // 4)
    local = np.stack([uniform_filter(small[..., c], side, mode="nearest") for c in range(3)], axis=2)
    differences = (small - local).reshape(-1, 3)
    weights = np.linalg.eigh(differences.T @ differences)[1][:, -1]
    weights = weights * (1 if weights.sum() >= 0 else -1)
    summed = values @ weights
    # Weights of both signs give values outside [0, 1].
    low, high = min(weights.clip(max=0).sum(), 0), weights.clip(min=0).sum()
    weighted: NDArray[np.float32] = ((summed - low) / (high - low)).astype(np.float32)
    return weighted
