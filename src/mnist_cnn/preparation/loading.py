"""Image files of users, opened with limits: they are not trusted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter

from mnist_cnn.preparation.image_files import open_image

LONGEST = 1200  # pixels of the longer side: larger images are reduced, which also removes noise


@dataclass(frozen=True)
class Picture:
    """An image of a user, upright, opaque, and reduced to at most `LONGEST` pixels.

    `rgb` is uint8 (H, W, 3), for people. `grey` is float32 (H, W) in [0, 1], in which colours differ as
    much as possible.
    """

    rgb: NDArray[Any]
    grey: NDArray[Any]


def load_picture(path: Path) -> Picture:
    """Read an image file; raises `UnreadableImage` that says why where this is not possible.

    Of a file with several images the first is read. Transparent pixels become white where the opaque ones
    are dark, otherwise black.
    """
    image = _reduced(open_image(path, LONGEST))
    if image.mode.startswith(("I", "F")):
        grey = _scaled(np.asarray(image))
        return Picture(np.repeat(np.rint(grey * 255).astype(np.uint8)[..., None], 3, axis=2), grey)
    rgb = _opaque(image)
    return Picture(rgb, _to_grey(rgb))


def _reduced(image: Image.Image) -> Image.Image:
    longest = max(image.size)
    if longest <= LONGEST:
        return image
    if image.mode == "1":
        image = image.convert("L")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode.startswith("I;16"):
        image = image.convert("I")
    scale = LONGEST / longest
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX, reducing_gap=None)


def _scaled(values: NDArray[Any]) -> NDArray[Any]:
    """Return grey values of 16 bits or floats in [0, 1]; their range differs between programs."""
    numbers = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    low, high = numbers.min(), numbers.max()
    scaled: NDArray[Any] = (numbers - low) / (high - low if high > low else 1)
    return scaled.astype(np.float32)


def _opaque(image: Image.Image) -> NDArray[Any]:
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    pixels = np.asarray(image.convert("RGBA")).astype(np.float32)
    alpha = pixels[..., 3:] / 255
    brightness = (pixels[..., :3].mean(2, keepdims=True) * alpha).sum() / max(float(alpha.sum()), 1e-6)
    background = 255 if brightness < 128 else 0
    return np.rint(pixels[..., :3] * alpha + background * (1 - alpha)).astype(np.uint8)


def _to_grey(rgb: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of the colours weighted so that ink and paper, also of equal brightness, differ most.

    The weights are the first principal component of the differences to the mean of the surrounding pixels.
    """
    values = rgb.astype(np.float32) / 255
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all():
        grey: NDArray[Any] = values[..., 0]
        return grey
    step = max(1, max(rgb.shape[:2]) // 300)
    small = values[::step, ::step]
    side = max(3, max(small.shape[:2]) // 4)
    local = np.stack([uniform_filter(small[..., c], side, mode="nearest") for c in range(3)], axis=2)
    differences = (small - local).reshape(-1, 3)
    weights = np.linalg.eigh(differences.T @ differences)[1][:, -1]
    weights = weights * (1 if weights.sum() >= 0 else -1)
    grey = values @ weights
    # Weights of both signs give values outside [0, 1].
    low, high = min(weights.clip(max=0).sum(), 0), weights.clip(min=0).sum()
    grey = (grey - low) / (high - low)
    return grey.astype(np.float32)
