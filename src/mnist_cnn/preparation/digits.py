"""Digits brought to the form of MNIST's."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

Ink = NDArray[np.float32]  # (H, W) in [0, 1]: 0 is the background, 1 is full ink

SIZE = 28  # pixels of a side of an MNIST image
BOX = 20  # the longer side of a digit in it
CENTRE = 14.5  # of mass, in pixels from the upper left corner of the image: the mean over MNIST
TIE = 1e-3  # pixels: with the centre of mass as near to two places, rounding errors must not choose

WORK = 80  # the longer side of a digit while its strokes are measured and changed
SCALE = WORK / BOX
SUPPORT = 0.1  # the least ink, as a fraction of the largest, that belongs to the digit
WINDOW = 17  # pixels: ink is relative to the largest in a square of this side
FAINTEST = 0.3  # as a fraction of the largest ink: strokes as faint as this become full ink
RAMP = (0.25, 0.75)  # ink between these becomes none to full

# Widths of strokes in pixels of the 28x28 image. Those of MNIST lie between 1.7 and 3.4 in 8 digits of 10
# (percentiles 10 and 90). Other widths are brought to these.
THINNEST, THICKEST = 2.0, 3.0


def to_mnist_form(ink: Ink) -> NDArray[np.uint8]:
    """Return a digit as MNIST has it: uint8 (28, 28), light on dark.

    `ink` is a float image (H, W) in [0, 1] of one digit on a clean background of 0, of any size.
    Raises `ValueError` where it holds no ink. The steps, which are a function of `ink` alone:

    1. Divide by the largest value. Crop to the bounding box of the values of at least 0.1.
    2. Resize (see `resize`) so that the longer side is 80 pixels and the other one in proportion, rounded,
       at least 1. Divide by the largest value.
    3. Divide each pixel by the largest value of the 17x17 pixels around it, or by 0.3 where that is more.
       Then map [0.25, 0.75] linearly to [0, 1] and clip: edges become as sharp as those of MNIST.
    4. Measure the width of the strokes, w (see `stroke_width`). If w < 2.0·4, thicken: surround with
       floor(r) + 1 pixels of 0 and take the maximum over a disk of radius r (see `dilate`),
       r = (2.0·4 - w) / (2 (1 - 2.0 / 20)). If w > 3.0·4, thin: surround with one pixel of 0 and take the
       minimum over a disk of radius r, r = min((w - 3.0·4) / (2 (1 - 3.0 / 20)), w / 4). The divisors
       make up for step 5, which scales a digit that became larger down again.
    5. Crop again to the values of at least 0.1, and resize so that the longer side is 20 pixels.
    6. Put this at whole pixels into 28x28 pixels of 0, so that the centre of mass is as near to
       (14.5, 14.5) as possible and nothing lies outside; the centre of the first pixel is (0.5, 0.5). Of
       two places that are equally near to 0.001 pixels, take the upper, or left, one. Multiply by 255
       and round.
    """
    largest = ink.max(initial=0)
    if not largest > 0:
        raise ValueError("no ink")
    work = _fit(_crop(ink / largest), WORK)
    work = _with_even_contrast(work / work.max())
    width = stroke_width(work)
    if width < THINNEST * SCALE:
        radius = (THINNEST * SCALE - width) / (2 * (1 - THINNEST / BOX))
        work = dilate(np.pad(work, int(radius) + 1), radius)
    elif width > THICKEST * SCALE:
        radius = min((width - THICKEST * SCALE) / (2 * (1 - THICKEST / BOX)), width / 4)
        work = 1 - dilate(1 - np.pad(work, 1), radius)
    return _centred(_fit(_crop(work), BOX))


def resize(image: Ink, height: int, width: int) -> Ink:
    """Return an image (H, W) as (height, width): area averages along a side that shrinks, linear
    interpolation between the centres of pixels along a side that grows.
    """
    rows, columns = _weights(image.shape[0], height), _weights(image.shape[1], width)
    return (rows @ image @ columns.T).astype(np.float32)


def stroke_width(ink: Ink) -> float:
    """Return the mean width of the strokes in pixels: 2 · area / perimeter.

    The perimeter is the total variation: the sum of the lengths of the gradients by forward differences.
    """
    padded = np.pad(ink, 1)
    across, down = np.diff(padded, axis=1)[:-1], np.diff(padded, axis=0)[:, :-1]
    return float(2 * ink.sum() / np.hypot(across, down).sum())


def dilate(ink: Ink, radius: float) -> Ink:
    """Return the largest value within `radius` of each pixel: dx² + dy² <= radius²; none is outside."""
    reach = int(radius)
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    dilated: Ink = maximum_filter(ink, footprint=down**2 + across**2 <= radius**2, mode="nearest")
    return dilated


def _with_even_contrast(ink: Ink) -> Ink:
    local = maximum_filter(ink, WINDOW, mode="constant")
    low, high = RAMP
    even: Ink = ((ink / np.maximum(local, FAINTEST) - low) / (high - low)).clip(0, 1)
    return even


def _crop(ink: Ink) -> Ink:
    """Return the part of `ink` in the bounding box of the values of at least `SUPPORT`."""
    rows, columns = (np.flatnonzero((ink >= SUPPORT).any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _fit(ink: Ink, side: int) -> Ink:
    longer = max(ink.shape)
    height, width = (max(1, int(side * length / longer + 0.5)) for length in ink.shape)
    return resize(ink, height, width)


def _weights(given: int, wanted: int) -> NDArray[np.float32]:
    """Return the matrix (wanted, given) that resizes a line of pixels."""
    scale = given / wanted
    pixel = np.arange(given, dtype=np.float64)[None]
    if scale >= 1:
        start = np.arange(wanted)[:, None] * scale
        overlap = np.minimum(pixel + 1, start + scale) - np.maximum(pixel, start)
        area: NDArray[np.float64] = np.maximum(overlap / scale, 0)
        return area.astype(np.float32)
    at = ((np.arange(wanted)[:, None] + 0.5) * scale - 0.5).clip(0, given - 1)
    linear: NDArray[np.float64] = np.maximum(1 - np.abs(at - pixel), 0)
    return linear.astype(np.float32)


def _centred(box: Ink) -> NDArray[np.uint8]:
    """Return a digit (H, W), at most 28x28, in an image (28, 28) with the centre of mass at `CENTRE`."""
    start = []
    for axis, length in enumerate(box.shape):
        mass = box.sum(1 - axis)
        centre = float(mass @ (np.arange(length) + 0.5) / mass.sum())
        start.append(min(max(int(CENTRE - centre + 0.5 - TIE), 0), SIZE - length))
    image = np.zeros((SIZE, SIZE), np.float32)
    image[start[0] : start[0] + box.shape[0], start[1] : start[1] + box.shape[1]] = box
    return (image * 255 + 0.5).astype(np.uint8)
