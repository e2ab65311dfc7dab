"""Ink separated from its background: polarity, uneven light, ruled lines, noise."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mnist_cnn.inference.digits import resize, stroke_width

Grey: TypeAlias = NDArray[Any]  # float32 (H, W), mostly in [0, 1]

SMALLEST = 112  # pixels of the longer side: smaller images are enlarged
CLEAN = 0.3  # share of pixels of exactly one value from which on this is the background
LEAST_CONTRAST = 0.03  # of ink to the background, as a fraction of white
LEAST_SIGNAL = 5.0  # contrast of ink in standard deviations of the background
LOW, HIGH = 0.3, 0.5  # fractions of full ink: pixels above `LOW` belong to ink that reaches `HIGH`
MAX_ANGLE = 18  # degrees by which ruled lines may be inclined


@dataclass(frozen=True)
class InkImage:
    """Ink in an image: `ink` float32 (H, W) in [0, 1] with 0 as background; `mask` bool, its pixels."""

    ink: Grey
    mask: NDArray[np.bool_]


def extract_ink(grey: Grey) -> InkImage | None:
    """Return the ink of an image, dark on light or light on dark; None where there is none."""
    if float(np.ptp(grey)) < LEAST_CONTRAST:
        return None
    grey, factor = _enlarged(grey)
    clean = _clean_background(grey)
    level = _surface(grey) if clean is None else np.full_like(grey, clean)
    if _is_dark_on_light(grey - level + level.mean(), clean):
        contrast = 1 - grey / np.maximum(level, 0.05)
    else:
        contrast = grey - level
    if clean is None:
        contrast = _without_shadows(contrast, factor)
    smooth = ndimage.gaussian_filter(contrast, 0.5 * factor if clean is None else 0.3)
    found = _normalized(smooth)
    if found is None:
        return None
    ink, mask = found
    if _may_have_lines(mask):
        lined = _without_lines(ink)
        again = None if lined is None else _normalized(lined)
        if again is not None:
            ink, mask = again
    return InkImage(ink, mask)


def _enlarged(grey: Grey) -> tuple[Grey, int]:
    longer = max(grey.shape)
    factor = 1 if longer >= SMALLEST else -(-SMALLEST // longer)
    return resize(grey, grey.shape[0] * factor, grey.shape[1] * factor) if factor > 1 else grey, factor


def _clean_background(grey: Grey) -> float | None:
    """Return the value of most pixels where many have exactly the same, as in drawings and scans."""
    values, counts = np.unique(grey, return_counts=True)
    index = counts.argmax()
    return float(values[index]) if counts[index] >= CLEAN * grey.size else None


def _surface(grey: Grey) -> Grey:
    """Return the brightness of the background as a polynomial in x and y, fitted without outliers."""
    height, width = grey.shape
    order = 2 if max(height, width) > 2 * SMALLEST else 1
    step = max(1, max(height, width) // 80)
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)

    def terms(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([y**i * x**j for i in range(order + 1) for j in range(order + 1 - i)], axis=-1)

    sample = grey[::step, ::step].ravel().astype(np.float64)
    basis = terms(rows[::step, ::step].ravel(), columns[::step, ::step].ravel())
    fitted = np.full_like(sample, np.median(sample))
    for _ in range(8):
        error = sample - fitted
        spread = max(float(np.median(np.abs(error))), 0.005)
        weight = 1 / (1 + (error / (2 * spread)) ** 2)
        solved = np.linalg.lstsq(basis * weight[:, None], sample * weight, rcond=None)[0]
        fitted = basis @ solved
    return (terms(rows, columns) @ solved).clip(0, 1).astype(np.float32)


def _is_dark_on_light(flat: Grey, clean: float | None) -> bool:
    deviation = flat - (np.median(flat) if clean is None else clean)
    power = float((deviation**2).mean())
    skewness = float((deviation**3).mean()) / power**1.5
    if abs(skewness) > 1:  # ink is rare and far from the background
        return bool(skewness < 0)
    light = flat > otsu(flat)
    height, width = flat.shape
    frame = max(1, max(height, width) // 30)
    inner = np.zeros_like(light)
    inner[frame : height - frame, frame : width - frame] = True
    patch = max(1, max(height, width) // 8)
    corners = [
        light[a, b] for a in (slice(patch), slice(-patch, None)) for b in (slice(patch), slice(-patch, None))
    ]
    border = float(light[~inner].mean()) if not inner.all() else 0.5
    vote = 2 * (border - 0.5) + (float(light.mean()) - 0.5)
    vote += float(np.mean([corner.mean() for corner in corners])) - 0.5
    return bool(vote > 0)


def otsu(values: Grey) -> float:
    """Return the threshold that separates two classes of values best (Otsu, 1979)."""
    counts, edges = np.histogram(values, 128)
    centres = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum().astype(np.float64)
    above = below[-1] - below
    mass = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return float(edges[np.nanargmax(variance) + 1])


def _without_shadows(contrast: Grey, factor: int) -> Grey:
    """Subtract what is wider than strokes: the opening by a square, which keeps the edges of shadows."""
    found = _normalized(ndimage.gaussian_filter(contrast, 0.5 * factor))
    if found is None:
        return contrast
    width = stroke_width(found[1].astype(np.float32))
    side = int(max(4 * width, max(contrast.shape) / 10)) | 1
    if side >= min(contrast.shape) / 2:
        return contrast
    smooth = ndimage.gaussian_filter(contrast, max(contrast.shape) / 400)
    opened = ndimage.grey_opening(smooth, size=(side, side), mode="nearest")
    shadow: Grey = ndimage.uniform_filter(opened, max(3, side // 8), mode="nearest")
    without: Grey = contrast - shadow
    return without


def _normalized(contrast: Grey) -> tuple[Grey, NDArray[np.bool_]] | None:
    """Return `contrast` divided by that of full ink, and the pixels of ink; None where it is too weak."""
    base = float(np.median(contrast))
    lower = contrast[contrast <= base]
    noise = float(base - np.percentile(lower, 32)) if lower.size else 0.0  # 16th percentile of all
    contrast = contrast - base
    top = float(contrast.max())
    strong = contrast[contrast > max(0.5 * top, LEAST_SIGNAL * noise)]
    if top < LEAST_CONTRAST or not strong.size:
        return None
    full = float(np.median(strong))
    ink = (contrast / full).clip(0, 1)
    low = ink > max(LOW, 3 * noise / full)
    labels, _ = ndimage.label(low, np.ones((3, 3)))
    kept = np.unique(labels[low & (ink > HIGH)])
    mask = np.isin(labels, kept[kept > 0])
    return ink.astype(np.float32), mask


def _may_have_lines(mask: NDArray[np.bool_]) -> bool:
    """Return whether connected ink reaches across the image, as ruled lines do."""
    if max(mask.shape) < 2 * SMALLEST:
        return False
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    return any(
        rows.stop - rows.start > 0.8 * mask.shape[0] or columns.stop - columns.start > 0.8 * mask.shape[1]
        for rows, columns in ndimage.find_objects(labels)
    )


def _without_lines(ink: Grey) -> Grey | None:
    """Return the ink, turned so that ruled lines are level, without them; None where there are no lines."""
    step = max(1, max(ink.shape) // 250)
    small = ndimage.uniform_filter(ink, step)[::step, ::step]

    def sharpness(angle: float) -> float:
        turned = ndimage.rotate(small, angle, reshape=False, order=1, mode="nearest")
        return float(max((np.diff(np.median(turned, axis)) ** 2).sum() for axis in (0, 1)))

    angles = np.arange(-MAX_ANGLE, MAX_ANGLE + 0.1, 1.0)
    best = max(angles, key=sharpness)
    best = max(best + np.arange(-0.75, 0.8, 0.25), key=sharpness)
    turned = ndimage.rotate(ink, best, reshape=True, order=1, mode="constant", cval=np.nan, prefilter=False)
    cleaned = np.nan_to_num(turned)
    removed = False
    for axis in (0, 1):
        # The median along a line ignores the digit. Lines are a little crooked: hence the filter across.
        wide = ndimage.maximum_filter1d(np.nan_to_num(turned), 3, axis=axis)
        wide[np.isnan(turned)] = np.nan
        with np.errstate(all="ignore"):
            level = _nanmedian(wide, 1 - axis)
        level = np.where(level > 0.08, level, 0)
        if not level.any():
            continue
        removed = True
        line = np.expand_dims(level, 1 - axis)
        on_line = (cleaned < 1.5 * line + 0.1) & (line > 0)
        rest = np.where(on_line, (cleaned - line - 0.1).clip(0), cleaned)
        thickness = int(ndimage.label(level)[0].max() and np.mean(np.bincount(ndimage.label(level)[0])[1:]))
        closed = ndimage.grey_closing(rest, size=(thickness + 3, 1) if axis == 0 else (1, thickness + 3))
        cleaned = np.where(on_line, closed, rest)
    return cleaned.astype(np.float32) if removed else None


def _nanmedian(values: Grey, axis: int) -> Grey:
    """Return the medians of lines, of which at least a third lies within the image; 0 for the others."""
    known = np.isfinite(values)
    enough = known.mean(axis) > 1 / 3
    filled = np.where(np.expand_dims(enough, axis), values, 0)
    median: Grey = np.nanmedian(filled, axis=axis).astype(np.float32)
    return median
