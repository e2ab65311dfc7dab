"""Digits drawn for the tests: lines of round pens, by coordinates in [0, 1]."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = list[tuple[float, float]]  # (x, y)

FIVE: list[Points] = [
    [(0.75, 0.1), (0.3, 0.1), (0.28, 0.45), (0.5, 0.4), (0.72, 0.52), (0.7, 0.8), (0.5, 0.9), (0.25, 0.85)]
]
FIVE_WITH_DETACHED_BAR: list[Points] = [
    [(0.45, 0.1), (0.8, 0.08)],
    [(0.3, 0.14), (0.28, 0.45), (0.5, 0.4), (0.72, 0.52), (0.7, 0.8), (0.5, 0.9), (0.25, 0.85)],
]
SEVEN: list[Points] = [[(0.2, 0.1), (0.8, 0.1), (0.45, 0.9)]]
ONE: list[Points] = [[(0.5, 0.1), (0.5, 0.9)]]
ZERO: list[Points] = [
    [(0.5 + 0.28 * np.cos(t), 0.5 + 0.4 * np.sin(t)) for t in np.linspace(0, 2 * np.pi, 40)]
]


def draw(strokes: list[Points], size: int = 100, width: float = 0.1) -> NDArray[Any]:
    """Return ink, float32 (size, size): 0 for the background, 1 for strokes; `width` relative to the size."""
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    distance = np.full((size, size), np.inf)
    for points in strokes:
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            length = (x1 - x0) ** 2 + (y1 - y0) ** 2
            along = (((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / max(length, 1e-9)).clip(0, 1)
            nearest = np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))
            distance = np.minimum(distance, nearest)
    return ((width / 2 - distance) * size + 0.5).clip(0, 1).astype(np.float32)


def difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the mean difference of two images relative to their mean ink; 2 where they do not overlap.

    One pixel up, down, left or right does not count: the centre of mass is rounded to whole pixels.
    """
    a, b = one.astype(np.float64), other.astype(np.float64)
    shifts = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    least = min(np.abs(a - np.roll(b, shift, (0, 1))).sum() for shift in shifts)
    return float(least / ((a.sum() + b.sum()) / 2))
