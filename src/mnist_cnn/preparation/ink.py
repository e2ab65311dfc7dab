"""Ink separated from its background: polarity, uneven light, ruled lines, noise."""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mnist_cnn.preparation.digits import resize, stroke_width

Grey: TypeAlias = NDArray[Any]  # float32 (H, W), mostly in [0, 1]
Labels: TypeAlias = NDArray[np.int32]  # (H, W): the number of the piece of ink that a pixel belongs to, or 0

SMALLEST = 112  # pixels of the longer side: smaller images are enlarged
CLEAN = 0.3  # share of pixels of exactly one value from which on this is the background
LEAST_CONTRAST = 0.03  # of ink to the background, as a fraction of white, in small images
LEAST_ON_PAGE = 0.10  # in others, where folds, grain and JPEG's blocks of an empty page have less
LEAST_SIGNAL = 5.0  # contrast of ink in standard deviations of the background
LEAST_SIGNAL_OF_SMALL = 5.8  # contrast of full ink in these, in small images
LEAST_SLOPE = 0.06  # of the edges of ink there, in full ink a pixel
WIDEST = 0.3  # strokes there, as a fraction of the image
LOW, HIGH = 0.3, 0.5  # fractions of full ink: pixels above `LOW` belong to ink that reaches `HIGH`
SIDES = (0.03, 0.05, 0.08, 0.12, 0.18, 0.27)  # of squares wider than strokes, as fractions of the image's
THICK = 0.15  # strokes of that width, and what they enclose, cannot be told from shadows
COARSE = 200  # pixels of the longer side at which strokes are measured
COARSER = 128  # at which lines are found
SAMPLE = 10_000  # pixels, about, from which statistics of an image are taken
SECTIONS = 12  # of a line
LINE = 0.08  # ink of a line
DARKEST = 0.1  # grey that is added before a logarithm: below it is mostly noise
TOP = 40  # pixels with the highest contrast
MOST_SORTED = 2000  # of a sample that tells which these may be
MAX_ANGLE = 18  # degrees by which ruled lines may be inclined
BORDER = 4  # pixels


class Normalized(NamedTuple):
    """Ink float32 (H, W) in [0, 1] and its pieces, numbered; the contrast of full ink and of noise."""

    ink: Grey
    labels: Labels
    full: float
    noise: float


@dataclass(frozen=True)
class InkImage:
    """Ink in an image: `ink` float32 (H, W) in [0, 1] with 0 as background; `labels`, its connected pieces.

    `contrast`: that of full ink to the background, as a fraction of white. `is_photograph`: whether there
    may be more in it than the paper, as the table. `border`: which pixels, bool (H, W), are near the border
    of the image, which may have been turned. `is_small`: whether a digit may fill it and be faint.
    """

    ink: Grey
    labels: Labels
    border: NDArray[np.bool_]
    contrast: float
    is_photograph: bool
    is_small: bool


def extract_ink(grey: Grey) -> InkImage | None:
    """Return the ink of an image, dark on light or light on dark; None where there is none."""
    if float(np.ptp(grey)) < LEAST_CONTRAST:
        return None
    clean, small = _is_clean(grey), max(grey.shape) < SMALLEST
    factor = 1 if clean else -(-SMALLEST // max(grey.shape))
    if factor > 1:
        grey = resize(grey, grey.shape[0] * factor, grey.shape[1] * factor)
    light, decisive = _classes(grey) if clean or factor > 1 else (None, False)
    if light is not None and (clean or decisive):
        dark_ink = _light_is_background(light)
        background = light == dark_ink
        level = _plane(grey, background) if not clean else np.full_like(grey, _mode(grey[background]))
        contrast = _contrast(grey, level, dark_ink)
    elif factor > 1:
        level = _surface(grey)
        contrast = _contrast(grey, level, _is_dark_on_light(grey - level))
    else:
        contrast = _local_contrast(grey)
    smooth = contrast if clean else ndimage.gaussian_filter(contrast, 0.5 * factor)
    found = _normalized(smooth)
    if found is None:
        return None
    ink, labels, full, noise = found
    border = np.ones(ink.shape, bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    if not clean and factor == 1:
        turned = _without_lines(ink)
        rest = None if turned is None else _normalized(turned[0])
        if turned is not None and rest is not None:
            border = turned[1] & ~ndimage.binary_erosion(turned[1], iterations=BORDER)
            ink, labels = rest.ink, rest.labels
            full *= rest.full
    if full < LEAST_ON_PAGE and not small:
        return None
    if small and (full < LEAST_SIGNAL_OF_SMALL * noise or not _has_strokes(ink, labels > 0)):
        return None
    return InkImage(ink, labels, border, full, not clean and factor == 1, small)


def _has_strokes(ink: Grey, mask: NDArray[np.bool_]) -> bool:
    """Return whether ink has sharp edges and is narrow, unlike a shadow on a small empty image."""
    ink, mask = np.pad(ink, 1), np.pad(mask, 1)
    edge = ndimage.binary_dilation(mask, iterations=2) & ~ndimage.binary_erosion(mask)
    slope = np.hypot(*np.gradient(ink))[edge]
    width = stroke_width(np.where(mask, ink, 0))
    return bool(np.percentile(slope, 75) > LEAST_SLOPE and width < WIDEST * max(ink.shape))


def _is_clean(grey: Grey) -> bool:
    """Return whether many pixels have exactly one value, as in drawings."""
    counts = np.unique(_sample(grey), return_counts=True)[1]
    return bool(counts.max() >= CLEAN * counts.sum())


def _sample(values: Grey) -> Grey:
    """Return some of the values, evenly spread."""
    sample: Grey = values.ravel()[:: max(1, values.size // SAMPLE)]
    return sample


def _mode(values: Grey) -> float:
    found, counts = np.unique(_sample(values), return_counts=True)
    return float(found[counts.argmax()])


def _classes(grey: Grey) -> tuple[NDArray[np.bool_], bool]:
    """Return the lighter of two classes of pixels (Otsu), and whether they differ enough to rely on."""
    light = grey > otsu(grey)
    share = float(light.mean())
    if not 0 < share < 1:
        return light, False
    between = share * (1 - share) * (grey[light].mean() - grey[~light].mean()) ** 2
    return light, bool(min(share, 1 - share) > 0.1 and between > 0.7 * grey.var())


def _plane(grey: Grey, background: NDArray[np.bool_]) -> Grey:
    """Return the plane fitted to the background, whose edges, which are partly ink, are left out."""
    inner = ndimage.binary_erosion(background, iterations=3, border_value=1)
    chosen = inner if inner.mean() > 0.1 else background
    rows, columns = np.mgrid[0 : grey.shape[0], 0 : grey.shape[1]]
    terms = np.stack([np.ones_like(rows), rows, columns], axis=-1)
    solved = np.linalg.lstsq(terms[chosen], grey[chosen], rcond=None)[0]
    plane: Grey = terms @ solved
    return plane.astype(np.float32)


def _surface(grey: Grey) -> Grey:
    """Return the brightness of the background of a small image as a plane, fitted without outliers."""
    step = max(1, max(grey.shape) // 80)
    rows, columns = np.mgrid[0 : grey.shape[0], 0 : grey.shape[1]] / max(grey.shape)
    terms = np.stack([np.ones_like(rows), columns, rows], axis=-1)
    sample = grey[::step, ::step].ravel().astype(np.float64)
    basis: Grey = terms[::step, ::step].reshape(-1, 3)
    fitted: Grey = np.full_like(sample, np.median(sample))
    for _ in range(8):
        error = sample - fitted
        spread = max(float(np.median(np.abs(error))), 0.005)
        weight = 1 / (1 + (error / (2 * spread)) ** 2)
        weighted = (basis * weight[:, None] ** 2).T
        # In an image of one row its terms are 0.
        solved = np.linalg.pinv(weighted @ basis) @ (weighted @ sample)
        fitted = basis @ solved
    surface: Grey = (terms @ solved).clip(0, 1)
    return surface.astype(np.float32)


def _is_dark_on_light(deviation: Grey) -> bool:
    """Return whether ink is dark, from the deviations of pixels from the background."""
    power = float((deviation**2).mean())
    skewness = float((deviation**3).mean()) / power**1.5
    if abs(skewness) > 1:  # ink is rare and far from the background
        return bool(skewness < 0)
    return _light_is_background(_classes(deviation)[0])


def _light_is_background(light: NDArray[np.bool_]) -> bool:
    """Return which of two classes is the background: which has the border, corners and most pixels."""
    height, width = light.shape
    frame, patch = (max(1, max(height, width) // part) for part in (30, 8))
    border = np.concatenate(
        [light[:frame].ravel(), light[-frame:].ravel(), light[:, :frame].ravel(), light[:, -frame:].ravel()]
    )
    ends = (slice(patch), slice(-patch, None))
    corners = [float(light[rows, columns].mean()) for rows in ends for columns in ends]
    return bool(2 * border.mean() + np.mean(corners) + light.mean() > 2)


def otsu(values: Grey) -> float:
    """Return the threshold that separates two classes of values best (Otsu, 1979)."""
    low, high = float(values.min()), float(values.max())
    width = max(high - low, 1e-9) / 128
    bins = ((values - low) * (1 / width)).astype(np.intp).ravel()  # much faster than np.histogram
    counts = np.bincount(bins.clip(0, 127), minlength=128)
    edges = low + width * np.arange(129)
    centres = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum().astype(np.float64)
    above = below[-1] - below
    mass = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return float(edges[np.nanargmax(variance) + 1])


def _contrast(grey: Grey, level: Grey, dark_ink: bool) -> Grey:
    """Return the contrast of ink to its background: light that is lost, as a fraction, or added."""
    contrast: Grey = 1 - grey / np.maximum(level, 0.05) if dark_ink else grey - level
    return contrast


def _local_contrast(grey: Grey) -> Grey:
    """Return the contrast of what is as narrow as strokes, so that shadows and tables disappear.

    The background of dark ink is the closing of the image by a square wider than the strokes, that of light
    ink the opening. Both keep the edges of shadows.
    """
    step = -(-max(grey.shape) // COARSE)
    height, width = (n // step * step for n in grey.shape)
    if min(height, width) == 0:  # too thin an image to measure strokes
        return np.zeros_like(grey)
    small = grey[:height, :width].reshape(height // step, step, width // step, step).mean((1, 3))
    # In logarithms, strokes have the same contrast in the light and in a shadow.
    small = ndimage.gaussian_filter(np.log(small + DARKEST), 0.7)
    sides = [int(share * min(small.shape)) | 1 for share in SIDES]
    dark = [_narrow(-small, side) for side in sides]
    light = [_narrow(small, side) for side in sides]
    # Strokes are found from their width on, what lies between them only by wider squares.
    tops = [[_mean_of_highest(values) for values in kind] for kind in (dark, light)]
    first = next(i for i in range(len(sides)) if max(tops[0][i], tops[1][i]) >= 0.6 * max(map(max, tops)))
    if SIDES[first] < THICK:
        dark_ink = float((dark[first] ** 2).sum()) > float((light[first] ** 2).sum())
    else:
        dark_ink = _is_dark_on_light(small - np.median(small))
    own = tops[0] if dark_ink else tops[1]
    first = next(i for i in range(len(sides)) if own[i] >= 0.7 * max(own))
    side = sides[min(first + 1, len(sides) - 1)] * step | 1

    smooth = ndimage.gaussian_filter(grey, max(grey.shape) / 500)
    level = -_opened(-smooth, side) if dark_ink else _opened(smooth, side)
    contrast: Grey = smooth - level
    if dark_ink:
        # Where it is much darker than elsewhere, as on a table, there is mostly noise.
        contrast = -contrast / np.maximum(level, 0.4 * float(np.percentile(_sample(level), 90)))
    return contrast


def _mean_of_highest(values: Grey) -> float:
    """Return the mean of the `TOP` highest values."""
    values = values.ravel()
    # None of them is lower than the lowest of as many of a sample; a sort of all takes five times as long.
    least = np.sort(values[:: max(1, values.size // MOST_SORTED)])[-TOP:][0]
    return float(np.sort(values[values >= least])[-TOP:].mean())


def _narrow(image: Grey, side: int) -> Grey:
    """Return how much lighter than its surroundings is what is narrower than `side`, except at corners.

    An opening by a square also removes the corners of a sheet that is turned. They are restored, being near
    to what it leaves.
    """
    restored: Grey = np.minimum(image, _highest(_opened(image, side), 2 * round(0.3 * side) + 1))
    return image - restored


def _opened(image: Grey, side: int) -> Grey:
    """Return the opening of an image by a square of an odd `side`."""
    opened: Grey = _highest(-_highest(-image, side), side)
    return opened


def _highest(image: Grey, side: int) -> Grey:
    """Return the largest value in the square of an odd `side` around each pixel.

    The windows grow by doubling, which is ten times faster than scipy's filter.
    """
    for _ in range(2):
        image = image.T
        first, last = (np.repeat(line, side // 2, axis=0) for line in (image[:1], image[-1:]))
        image = np.concatenate([first, image, last])
        covered = 1
        while covered < side:
            step = min(covered, side - covered)
            image = np.maximum(image[:-step], image[step:])
            covered += step
    return image


def _normalized(contrast: Grey) -> Normalized | None:
    """Return `contrast` as ink, divided by that of full ink; None if it is too weak."""
    if float(np.ptp(contrast)) < LEAST_CONTRAST:
        return None
    above, decisive = _classes(contrast)
    sample = _sample(contrast[~above] if decisive else contrast)
    base = float(np.median(sample))
    lower = sample[sample <= base]
    noise = float(base - np.percentile(lower, 32)) if lower.size else 0.0  # 16th percentile of all
    contrast = contrast - base
    top = float(contrast.max())
    strong = contrast[contrast > max(0.5 * top, LEAST_SIGNAL * noise)]
    if top < LEAST_CONTRAST or not strong.size:
        return None
    full = float(np.median(strong))
    ink = (contrast / full).clip(0, 1)
    low = ink > max(LOW, 3 * noise / full)
    labels, count = ndimage.label(low, np.ones((3, 3)))
    numbers = np.zeros(count + 1, np.int32)
    numbers[labels[low & (ink > HIGH)]] = 1
    numbers *= numbers.cumsum(dtype=np.int32)
    return Normalized(ink.astype(np.float32), numbers[labels], full, noise)


def _without_lines(ink: Grey) -> tuple[Grey, NDArray[np.bool_]] | None:
    """Return the ink, turned so that ruled lines are level, without them, and which pixels are of the image.

    It is None if there are no lines.
    """
    step = -(-max(ink.shape) // COARSER)
    small = ndimage.uniform_filter(ink, step)[::step, ::step]

    def sharpest(angles: Grey) -> tuple[float, float]:
        """Return the angle at which medians of inclined rows, or columns, differ most, and the largest."""
        both = [_medians(small, angles), _medians(small.T, -angles)]
        differences = np.array([(np.diff(values, axis=1) ** 2).sum(1) for values in both]).max(0)
        best = int(differences.argmax())
        return float(angles[best]), max(float(values[best].max()) for values in both)

    best, _ = sharpest(np.arange(-MAX_ANGLE, MAX_ANGLE + 0.1, 1.5))
    best, highest = sharpest(best + np.arange(-1.0, 1.1, 0.25))
    if highest < LINE / 2:  # not even a thin line, reduced
        return None
    turned = _turned(ink, best)
    outside = np.isnan(turned)
    cleaned = known = np.where(outside, 0, turned)
    removed = False
    for axis in (0, 1):
        # The median along a line ignores the digit. Lines are a little crooked: hence the filter across.
        before, after = (np.roll(known, shift, axis) for shift in (1, -1))
        wide = np.where(outside, np.nan, np.maximum(np.maximum(known, before), after))
        level = _nanmedian(wide, 1 - axis)
        level = np.where((level > LINE) & _goes_across(wide, 1 - axis), level, 0)
        if not level.any():
            continue
        removed = True
        line = np.expand_dims(level, 1 - axis)
        on_line = (cleaned < 1.5 * line + 0.1) & (line > 0)
        rest = np.where(on_line, (cleaned - line - 0.1).clip(0), cleaned)
        thickness = int(np.mean(np.bincount(ndimage.label(level)[0])[1:]))
        closed = ndimage.grey_closing(rest, size=(thickness + 3, 1) if axis == 0 else (1, thickness + 3))
        cleaned = np.where(on_line, closed, rest)
    return (cleaned.astype(np.float32), ~outside) if removed else None


def _turned(image: Grey, angle: float) -> Grey:
    """Return a larger image that holds the image turned by `angle` degrees, and NaN around it."""
    (height, width), turn = image.shape, np.deg2rad(angle)
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    new_height = int(abs(cos) * height + abs(sin) * width + 0.5)
    new_width = int(abs(sin) * height + abs(cos) * width + 0.5)
    left = (width - cos * new_width + sin * new_height) / 2
    top = (height - sin * new_width - cos * new_height) / 2
    matrix = (cos, -sin, left, sin, cos, top)
    size = (new_width, new_height)
    # Pillow is four times as fast as scipy.
    turned = Image.fromarray(image).transform(
        size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=float("nan")
    )
    return np.asarray(turned)


def _goes_across(values: Grey, axis: int) -> NDArray[np.bool_]:
    """Return which lines have ink in all sections but one: a stroke of the digit ends before the border."""
    starts = np.linspace(0, values.shape[axis], SECTIONS, endpoint=False).astype(int)
    inked = np.add.reduceat(values > 0.05, starts, axis, dtype=np.int32)
    known = np.add.reduceat(np.isfinite(values), starts, axis, dtype=np.int32)
    lengths = np.expand_dims(np.diff([*starts, values.shape[axis]]), 1 - axis)
    gaps = (inked <= lengths / 2) & (known >= lengths / 2)
    across: NDArray[np.bool_] = gaps.sum(axis) <= 1
    return across


def _medians(image: Grey, angles: Grey) -> Grey:
    """Return the medians (A, H) of rows inclined by each of the angles, in degrees, of every second pixel."""
    height, width = image.shape
    columns = np.arange(0, width, 2)
    rise = np.rint(np.tan(np.deg2rad(angles))[:, None, None] * (columns - width / 2)).astype(int)
    inclined = image[(np.arange(height)[:, None] + rise).clip(0, height - 1), columns]
    inclined.sort(axis=2)  # half of the time of np.median
    count = len(columns)
    medians: Grey = (inclined[..., count // 2] + inclined[..., (count - 1) // 2]) / 2
    return medians


def _nanmedian(values: Grey, axis: int) -> Grey:
    """Return the medians of lines, of which at least a third lies within the image; 0 for the others."""
    count = np.isfinite(values).sum(axis)
    ordered = np.sort(values, axis)  # NaN comes last
    middles = [np.expand_dims(middle, axis) for middle in ((count - 1).clip(0) // 2, count // 2)]
    low, high = (
        np.take_along_axis(ordered, middle.clip(max=values.shape[axis] - 1), axis) for middle in middles
    )
    median: Grey = np.where(count > values.shape[axis] / 3, ((low + high) / 2).squeeze(axis), 0)
    return median.astype(np.float32)
