"""Drawn ones and sevens as Europeans write them, of which MNIST has few, for training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_cnn.data.source import Source

SIZE = 28  # pixels of a side of an image
BOX = 20  # the longer side of a digit in it, with its strokes
MIDDLE = 14.0  # of the image; the centre of mass of a digit is put there
CROSSED = 0.7  # of the sevens
WITH_SERIF = 0.3

Array = NDArray[np.float64]


class EuropeanDigits(Source):
    """Ones with a long upstroke, and sevens, most of them crossed: `count` of each, the same each time.

    They are polylines of one random width, in random proportions, antialiased, in MNIST's form.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def fetch(self, directory: Path) -> str:
        """Return a phrase that says what is drawn."""
        return f"{self.count:,} drawn ones and sevens each"

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return images uint8 (2 * count, 1, 28, 28) and targets int64 (2 * count,)."""
        random = np.random.default_rng(0)
        strokes = [draw(random) for draw in (_one, _seven) for _ in range(self.count)]
        images = np.array([_image(lines, random) for lines in strokes], np.uint8).reshape(-1, 1, SIZE, SIZE)
        return torch.from_numpy(images), torch.tensor([0, 1]).repeat_interleave(self.count)

    def classes(self, directory: Path) -> list[str]:
        """Return the names of the digits that are drawn."""
        return ["1", "7"]


def _one(random: np.random.Generator) -> list[Array]:
    """Return the strokes of a one, points (N, 2) as x to the right and y down, the stem being 1 high."""
    angle, length = np.deg2rad(random.uniform(35, 68)), random.uniform(0.3, 0.9)
    start = (-length * np.cos(angle), length * np.sin(angle))
    return [_line(start, (0, 0), random), _line((0, 0), (-random.uniform(-0.1, 0.25), 1), random)]


def _seven(random: np.random.Generator) -> list[Array]:
    """Return the strokes of a seven, in the same units."""
    left = (-random.uniform(0.4, 0.8), random.uniform(-0.12, 0.15))
    lean = random.uniform(0.05, 0.55)
    strokes = [_line(left, (0, 0), random), _line((0, 0), (-lean, 1), random)]
    if random.random() < CROSSED:
        place, slope, half = random.uniform(0.35, 0.65), random.uniform(-0.4, 0.3), random.uniform(0.12, 0.32)
        middle = -lean * place + random.uniform(-0.08, 0.08)
        start, end = ((middle + side, place + side * slope) for side in (-half, half))
        strokes.append(_line(start, end, random))
    if random.random() < WITH_SERIF:
        strokes.append(np.array([left, (left[0], left[1] + random.uniform(0.06, 0.18))]))
    return strokes


def _line(start: Sequence[float], end: Sequence[float], random: np.random.Generator) -> Array:
    """Return a line with a corner near its middle, so that it is a little bent."""
    middle = (np.array(start) + np.array(end)) / 2 + random.normal(0, 0.03, 2)
    return np.array([start, middle, end])


def _image(strokes: Sequence[Array], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return strokes drawn with a pen of 1.6 to 3.2 pixels, uint8 (28, 28)."""
    width = random.uniform(1.6, 3.2)
    points = np.concatenate(strokes)
    scale = (BOX - width) / np.ptp(points, axis=0).max()
    lines = np.concatenate([np.stack([stroke[:-1], stroke[1:]], 1) for stroke in strokes]) * scale
    lengths = np.hypot(*(lines[:, 1] - lines[:, 0]).T)
    lines += MIDDLE - np.average(lines.mean(1), axis=0, weights=lengths)
    nearest = np.min([_distance(start, end) for start, end in lines], axis=0)
    ink: Array = (width / 2 + 0.5 - nearest).clip(0, 1)
    return np.rint(255 * ink).astype(np.uint8)


def _distance(start: Array, end: Array) -> Array:
    """Return the distance of the centre of each pixel (28, 28) from the line between two points."""
    pixels = np.stack(np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5), axis=-1)
    along = end - start
    share = ((pixels - start) @ along / (along @ along)).clip(0, 1)
    distance: Array = np.linalg.norm(pixels - start - share[..., None] * along, axis=-1)
    return distance
