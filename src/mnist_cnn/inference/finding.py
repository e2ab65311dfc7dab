"""Digits found in an image and prepared for the network."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mnist_cnn.inference.digits import BOX, CENTRE, SIZE, Ink, to_mnist_form
from mnist_cnn.inference.ink import InkImage, extract_ink
from mnist_cnn.inference.loading import load_picture

Box = tuple[slice, slice]


class NothingFound(Exception):
    """No digit was found in an image."""


class Part(NamedTuple):
    """A connected piece of ink."""

    label: int
    box: Box
    mass: float

    @property
    def height(self) -> int:
        return int(self.box[0].stop - self.box[0].start)

    @property
    def width(self) -> int:
        return int(self.box[1].stop - self.box[1].start)

    @property
    def extent(self) -> int:
        return max(self.height, self.width)


def prepare_file(path: Path, split: bool = False) -> NDArray[np.uint8]:
    """Return the digits in an image file in MNIST's form, uint8 (N, 1, 28, 28).

    N is 1, or with `split` the number of digits, left to right and line by line.
    Raises `loading.UnreadableImage`, and `NothingFound` where there is no digit.
    """
    return prepare(load_picture(path).grey, split)[0]


def prepare(grey: NDArray[np.float32], split: bool = False) -> tuple[NDArray[np.uint8], int]:
    """Return the digits in a grey image (H, W) in [0, 1], and how many more `split` would give.

    The digits are uint8 (N, 1, 28, 28), as of `prepare_file`. Raises `NothingFound` where there is no digit.
    """
    ready = _in_mnist_form(grey)
    if ready is not None:
        return ready[None, None], 0
    ink = extract_ink(grey)
    digits, others = ([], 0) if ink is None else find_digits(ink, split)
    if not digits:
        raise NothingFound("no digit found")
    return np.stack([to_mnist_form(digit) for digit in digits])[:, None], others


def _in_mnist_form(grey: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """Return an image that already has MNIST's form, as it is or inverted; None for any other."""
    if grey.shape != (SIZE, SIZE):
        return None
    pixels = np.rint(grey * 255).astype(np.uint8)
    for image in (pixels, 255 - pixels):
        rows, columns = np.nonzero(image)
        if not len(rows) or image.max() < 200 or (image == 0).mean() < 0.4:
            continue
        mass = image[rows, columns].astype(np.float64)
        centre = [float((index + 0.5) @ mass / mass.sum()) for index in (rows, columns)]
        fits = max(np.ptp(rows), np.ptp(columns)) + 1 == BOX
        if fits and all(abs(value - CENTRE) <= 0.75 for value in centre):
            return image
    return None


def find_digits(image: InkImage, split: bool) -> tuple[list[Ink], int]:
    """Return the ink of each digit, cut out, and how many more `split` would give."""
    labels, count = ndimage.label(image.mask, np.ones((3, 3)))
    if count == 0:
        return [], 0
    masses = ndimage.sum_labels(image.ink, labels, np.arange(1, count + 1))
    boxes = ndimage.find_objects(labels)
    parts = [Part(i + 1, box, float(mass)) for i, (box, mass) in enumerate(zip(boxes, masses, strict=True))]
    if image.is_photograph:  # a digit that fills a scan touches its edges
        parts = _without_edges(parts, labels)
    groups = _split(parts)
    others = 0 if split else len(groups) - 1
    chosen = groups if split else [_one_digit(parts)]
    return [_cut_out(image.ink, labels, group) for group in chosen], others


def _without_edges(parts: list[Part], labels: NDArray[np.int32]) -> list[Part]:
    """Leave out the edges of the page and the table beside it, if something else was found."""
    height, width = labels.shape
    sides = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    at_edge = set()
    for side in sides:
        for label, count in zip(*np.unique(side, return_counts=True), strict=True):
            if label and count > 0.3 * len(side):
                at_edge.add(int(label))
    others = [part for part in parts if part.label not in at_edge]
    if any(part.extent > 0.08 * min(height, width) for part in others):
        return others
    return parts


def _gap(one: Box, other: Box) -> float:
    """Return the distance between two boxes in pixels, 0 where they overlap."""
    gaps = [max(a.start - b.stop, b.start - a.stop, 0) for a, b in zip(one, other, strict=True)]
    return float(np.hypot(*gaps))


def _joined(parts: list[Part]) -> Box:
    return (
        slice(min(p.box[0].start for p in parts), max(p.box[0].stop for p in parts)),
        slice(min(p.box[1].start for p in parts), max(p.box[1].stop for p in parts)),
    )


def _one_digit(parts: list[Part]) -> list[Part]:
    """Return the largest part and those near it that are not specks."""
    parts = sorted(parts, key=lambda part: part.mass * part.extent, reverse=True)
    chosen = [parts[0]]
    rest = [p for p in parts[1:] if p.extent >= 0.12 * parts[0].extent or p.mass >= 0.03 * parts[0].mass]
    added = True
    while added:
        added = False
        box = _joined(chosen)
        reach = 0.3 * max(box[0].stop - box[0].start, box[1].stop - box[1].start)
        for part in rest:
            if _gap(box, part.box) <= reach:
                chosen.append(part)
                rest.remove(part)
                added = True
                break
    return chosen


def _split(parts: list[Part]) -> list[list[Part]]:
    """Return the parts of each digit: left to right, line by line."""
    tallest = max(part.height for part in parts)
    parts = [p for p in parts if p.extent >= 0.1 * tallest]
    # Digits are the large parts; a small one belongs to the nearest of them.
    large = [p for p in parts if p.height >= 0.45 * tallest]
    groups = [[p] for p in sorted(large, key=lambda p: p.box[1].start)]
    merged = True
    while merged:
        merged = False
        for i, group in enumerate(groups):
            for other in groups[i + 1 :]:
                a, b = _joined(group), _joined(other)
                overlap = min(a[1].stop, b[1].stop) - max(a[1].start, b[1].start)
                narrower = min(a[1].stop - a[1].start, b[1].stop - b[1].start)
                rows = min(a[0].stop, b[0].stop) - max(a[0].start, b[0].start)
                if overlap > 0.5 * narrower and rows > 0:
                    group += other
                    groups.remove(other)
                    merged = True
                    break
            if merged:
                break
    for part in parts:
        if part in large:
            continue
        nearest = min(groups, key=lambda group: _gap(_joined(group), part.box))
        if _gap(_joined(nearest), part.box) <= 0.2 * tallest:
            nearest.append(part)
    return [group for line in _lines(groups) for group in line]


def _lines(groups: list[list[Part]]) -> list[list[list[Part]]]:
    """Return groups by the lines of writing: those whose rows overlap by half."""
    lines: list[list[list[Part]]] = []
    for group in sorted(groups, key=lambda g: _joined(g)[0].start + _joined(g)[0].stop):
        box = _joined(group)[0]
        middle = (box.start + box.stop) / 2
        for line in lines:
            last = _joined(line[-1])[0]
            if last.start <= middle <= last.stop:
                line.append(group)
                break
        else:
            lines.append([group])
    return [sorted(line, key=lambda g: _joined(g)[1].start) for line in lines]


def _cut_out(ink: Ink, labels: NDArray[np.int32], parts: list[Part]) -> Ink:
    mask = np.isin(labels, [part.label for part in parts])
    box = _joined(parts)
    margin = 2
    rows, columns = (slice(max(0, side.start - margin), side.stop + margin) for side in box)
    # Edges of strokes are fainter than the threshold and belong to them all the same.
    near = ndimage.binary_dilation(mask[rows, columns], np.ones((3, 3)), iterations=2)
    return np.where(near, ink[rows, columns], 0).astype(np.float32)
