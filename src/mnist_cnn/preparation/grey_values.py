"""The grey values of images that have more than 8 bits: which is black and which is white."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_cnn.preparation.image_files import UnreadableImage, mode_of, open_image

GreyValues = tuple[float, float]  # black and white

WHITES = (1, 255, 1023, 4095, 16383, 65535)  # of floats, and of 8, 10, 12, 14 and 16 bits
SAMPLE = 200  # files that are looked at


def is_deep(mode: str) -> bool:
    """Return whether images of this mode of Pillow have more than 8 bits: integers or floats."""
    return mode.startswith(("I", "F"))


def find_grey_values(files: Sequence[Path]) -> GreyValues | None:
    """Return black and white of the image files of a data set, from a sample of them.

    It is None if none of these has more than 8 bits. Files that cannot be read are left out.
    """
    found = []
    for file in files[:: max(1, len(files) // SAMPLE)]:
        with suppress(UnreadableImage):
            if is_deep(mode_of(file)):
                values = _finite(np.asarray(open_image(file, 1)))
                found += [values.min(), values.max()]
    return grey_values_of(np.array(found)) if found else None


def grey_values_of(values: NDArray[Any]) -> GreyValues:
    """Return black and white of numbers: 0 and the white of the fewest bits that holds them.

    White is the largest number instead if that is below an eighth of it. With negative numbers black and
    white are -1 and 1, or else the smallest and the largest number.
    """
    low, high = float(values.min()), float(values.max())
    if low < 0:
        return (-1.0, 1.0) if low >= -1 and high <= 1 else (low, high)
    white = next((white for white in WHITES if high <= white), high)
    return 0.0, float(white if high > white / 8 else high)


def scaled(image: Image.Image, grey_values: Sequence[float] | None) -> NDArray[np.float32]:
    """Return an image with more than 8 bits as float32 (H, W) in [0, 1]."""
    values = _finite(np.asarray(image))
    black, white = grey_values or grey_values_of(values)
    if white <= black:
        return np.zeros(values.shape, np.float32)
    result: NDArray[np.float32] = ((values - black) / (white - black)).clip(0, 1).astype(np.float32)
    return result


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the values as floats, with 0 for what is no number or infinite."""
    return np.nan_to_num(values.astype(np.float64), nan=0, posinf=0, neginf=0)
