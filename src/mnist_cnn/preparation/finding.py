"""Digits found in an image and prepared for the network."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mnist_cnn.preparation.digits import BOX, CENTRE, SIZE, Ink, to_mnist_form
from mnist_cnn.preparation.ink import LEAST_ON_PAGE, InkImage, extract_ink

Box = tuple[slice, slice]

LEAST_EXTENT = 0.05  # of a digit in a photograph, as a fraction of its longer side
LEAST_AT_BORDER = 0.4  # contrast of ink there, as a fraction of white

MOST_PARTS = 2000  # of digits in an image: the time grows with their square


class NothingFound(Exception):
    """No digit was found in an image, or more marks than could be digits."""


class Part(NamedTuple):
    """A connected piece of ink."""

    label: int
    box: Box
    mass: float

    @property
    def height(self) -> int:
        return int(self.box[0].stop - self.box[0].start)

    @property
    def extent(self) -> int:
        return max(int(side.stop - side.start) for side in self.box)


def find_digits(grey: NDArray[np.float32], split: bool = False) -> tuple[NDArray[np.uint8], int]:
    """Return the digits in a grey image (H, W) in [0, 1], and how many more `split` would give.

    The digits are uint8 (N, 1, 28, 28), in MNIST's form. N is 1, or with `split` the number of digits, left
    to right and line by line. Raises `NothingFound` if there is no digit, or more than `MOST_PARTS` marks.
    """
    ready = _in_mnist_form(grey)
    if ready is not None:
        return ready[None, None], 0
    ink = extract_ink(grey)
    digits, others = ([], 0) if ink is None else _cut_out_digits(ink, split)
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
        fits = max(np.ptp(rows), np.ptp(columns)) + 1 == BOX
        if fits and all(abs(index + 0.5 - CENTRE) <= 0.75 for index in ndimage.center_of_mass(image)):
            return image
    return None


def _cut_out_digits(image: InkImage, split: bool) -> tuple[list[Ink], int]:
    """Return the ink of each digit, cut out, and how many more `split` would give."""
    labels = image.labels
    masses = np.bincount(labels.ravel(), image.ink.ravel())
    parts = [Part(i, box, float(masses[i])) for i, box in enumerate(ndimage.find_objects(labels), start=1)]
    if parts and image.is_photograph:  # a digit that fills a scan touches its edges
        parts = _without_edges(parts, labels)
    if not image.is_small:
        parts = _without_shades(parts, labels, image)
    if not parts:
        return [], 0
    groups = _split(parts)
    others = 0 if split else len(groups) - 1
    chosen = groups if split else [_one_digit(parts)]
    return [_cut_out(image.ink, labels, group) for group in chosen], others


def _without_edges(parts: list[Part], labels: NDArray[np.int32]) -> list[Part]:
    """Leave out the edges of the page and the table next to it, if something else was found."""
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


def _without_shades(parts: list[Part], labels: NDArray[np.int32], image: InkImage) -> list[Part]:
    """Leave out folds, and dark corners and sides of a photograph: ink has more contrast.

    What is left is none if it is specks alone.
    """
    at_border = set(np.unique(labels[image.border]).tolist())
    kept = []
    for part in parts:
        values = image.ink[part.box][labels[part.box] == part.label]
        least = LEAST_AT_BORDER if part.label in at_border else LEAST_ON_PAGE
        if image.contrast * float(np.percentile(values, 90)) >= least:
            kept.append(part)
    least_extent = LEAST_EXTENT * max(labels.shape) if image.is_photograph else 0
    return kept if any(part.extent >= least_extent for part in kept) else []


def _boxes(parts: list[Part]) -> NDArray[np.int64]:
    """Return the top, left, bottom and right of each part, (N, 4)."""
    return np.array([[side.start for side in p.box] + [side.stop for side in p.box] for p in parts])


def _joined(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the box around boxes (N, 4)."""
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])


def _gaps(box: NDArray[np.int64], boxes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the distance of a box from each of `boxes` in pixels, 0 where they overlap."""
    rows, columns = np.maximum(boxes[:, :2] - box[2:], box[:2] - boxes[:, 2:]).clip(0).T
    gaps: NDArray[np.float64] = np.hypot(rows, columns)
    return gaps


def _one_digit(parts: list[Part]) -> list[Part]:
    """Return the largest part and those near it that are not specks."""
    largest = max(parts, key=lambda part: part.mass * part.extent)
    parts = [p for p in parts if p.extent >= 0.12 * largest.extent or p.mass >= 0.03 * largest.mass]
    boxes = _boxes(parts)
    chosen = np.array([part is largest for part in parts])
    while True:
        box = _joined(boxes[chosen])
        near = chosen | (_gaps(box, boxes) <= 0.3 * max(box[2:] - box[:2])) & ~_are_dashes(box, boxes)
        if (near == chosen).all():
            return [part for part, is_near in zip(parts, near, strict=True) if is_near]
        chosen = near


def _split(parts: list[Part]) -> list[list[Part]]:
    """Return the parts of each digit: left to right, line by line."""
    tallest = max(part.height for part in parts)
    # Digits are the large parts; a small one belongs to the nearest of them.
    large = [p for p in parts if p.height >= 0.45 * tallest]
    small = [p for p in parts if p.extent >= 0.1 * tallest and p.height < 0.45 * tallest]
    if len(large) + len(small) > MOST_PARTS:
        raise NothingFound(f"more than {MOST_PARTS:,} marks; cut out the digits")
    large.sort(key=lambda p: p.box[1].start)
    groups, boxes = [[p] for p in large], _boxes(large)

    def join(index: int, parts: list[Part], box: NDArray[np.int64]) -> None:
        groups[index] += parts
        boxes[index] = _joined(np.stack([boxes[index], box]))

    last = 0  # no group before this one is in the same place as another
    while last < len(groups):
        index = last
        while len(found := _in_same_place(index, boxes)):
            index, other = sorted((index, int(found[0])))
            join(index, groups.pop(other), boxes[other])
            boxes = np.delete(boxes, other, axis=0)
            last -= other <= last
        last += 1
    for part in small:
        (box,) = _boxes([part])
        gaps = _gaps(box, boxes)
        nearest = int(gaps.argmin())
        if gaps[nearest] <= 0.2 * tallest and not _are_dashes(boxes[nearest], box[None])[0]:
            join(nearest, [part], box)
    return [groups[index] for line in _lines(boxes) for index in line]


def _are_dashes(box: NDArray[np.int64], boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of `boxes` lie across beside the middle of a box, as a minus does."""
    heights, widths = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    beside = (boxes[:, 3] <= box[1]) | (boxes[:, 1] >= box[3])
    place = ((boxes[:, 0] + boxes[:, 2]) / 2 - box[0]) / (box[2] - box[0])
    dashes: NDArray[np.bool_] = beside & (widths > 1.8 * heights) & (place > 0.25) & (place < 0.75)
    return dashes


def _in_same_place(index: int, boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the boxes that share rows with one, and more than half of the columns of the narrower one."""
    box = boxes[index]
    rows, columns = (np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])).T
    narrower = np.minimum(boxes[:, 3] - boxes[:, 1], box[3] - box[1])
    same = (columns > 0.5 * narrower) & (rows > 0)
    same[index] = False
    return np.flatnonzero(same)


def _lines(boxes: NDArray[np.int64]) -> list[list[int]]:
    """Return the indices of boxes by the lines of writing: those whose rows overlap by half."""
    top, left, bottom, _ = boxes.T.tolist()
    lines: list[list[int]] = []
    for index in sorted(range(len(boxes)), key=lambda i: top[i] + bottom[i]):
        middle = (top[index] + bottom[index]) / 2
        for line in lines:
            if top[line[-1]] <= middle <= bottom[line[-1]]:
                line.append(index)
                break
        else:
            lines.append([index])
    return [sorted(line, key=lambda i: left[i]) for line in lines]


def _cut_out(ink: Ink, labels: NDArray[np.int32], parts: list[Part]) -> Ink:
    margin = 2
    box = _joined(_boxes(parts))
    top, left = (box[:2] - margin).clip(0)
    bottom, right = box[2:] + margin
    ink, labels = ink[top:bottom, left:right], labels[top:bottom, left:right]
    mask = np.isin(labels, [part.label for part in parts])
    # Edges of strokes are fainter than the threshold and belong to them all the same.
    near = ndimage.binary_dilation(mask, np.ones((3, 3)), iterations=2)
    return np.where(near, ink, 0).astype(np.float32)
