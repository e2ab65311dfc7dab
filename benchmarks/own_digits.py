"""Accuracy of predict.py's preparation on MNIST digits rendered as people photograph, scan and draw them.

`python -m benchmarks.own_digits ckpt [ckpt …]` renders digits of MNIST that the networks were not trained
on: those of the validation split, or with `--split test` the test images. Each condition is rendered with
seeds of its own, written to a file, and read back like a file of the user. `--out` writes the accuracies as
JSON; `--mnist` measures instead how much MNIST's
own images lose on the way through files and preparation, and `--time` how long a photograph takes.

Three conditions draw digits that MNIST has few of: ones with a long upstroke and crossed sevens, written, and
printed eights with a drop shadow. Their ones and sevens are Bézier curves of a pen whose width changes, on
photographed paper. The training images of `mnist_cnn.data.strokes` are polylines of one width, drawn with
other parameters at MNIST's size, so that a network is not measured by what it was trained on.
"""

import argparse
import colorsys
import functools
import json
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

from benchmarks import machine
from mnist_cnn.data import MNIST
from mnist_cnn.data.split import stratified_split
from mnist_cnn.inference.predictor import Predictor
from mnist_cnn.preparation.digits import resize
from mnist_cnn.preparation.finding import NothingFound
from mnist_cnn.preparation.prepare import prepare_file

ROOT = Path(__file__).parents[1]

Array = NDArray[Any]
Generator = np.random.Generator
Condition = Callable[[Array, Generator, Path], None]  # writes an image of a digit, (28, 28) in [0, 1]
Drawing = Callable[[Generator, Path], None]  # writes an image of a digit of its own

PHOTOGRAPHS = (  # of the conditions, those that --time measures
    "photograph of pen on grey paper",
    "photograph with shadow",
    "photograph turned 15 degrees",
    "ruled paper",
    "squared paper",
    "blackboard",
    "colour ink on coloured paper",
    "broken strokes",
    "specks of dirt",
    "sheet on a dark table",
)

CONDITIONS: dict[str, Condition] = {}
LABELS: dict[str, int] = {}  # of the conditions that draw their own digits


def condition(function: Condition) -> Condition:
    CONDITIONS[function.__name__.replace("_", " ").strip()] = function
    return function


def drawn(label: int) -> Callable[[Drawing], Drawing]:
    """Register a condition that draws the digit `label` instead of MNIST's."""

    def register(function: Drawing) -> Drawing:
        name = function.__name__.replace("_", " ")
        CONDITIONS[name] = lambda _, rng, path: function(rng, path)
        LABELS[name] = label
        return function

    return register


# ---------------------------------------------------------------- strokes


def outline(digit: Array) -> Array:
    """Return the digit enlarged 8 times, bool (256, 256), with a margin."""
    large: Array = resize(np.pad(digit, 2).astype(np.float32), 256, 256) > 0.5
    return large


def skeleton(shape: Array) -> Array:
    """Return the middle lines of strokes, one pixel wide (Zhang and Suen, 1984)."""
    image = np.pad(shape, 1).astype(np.uint8)
    changed = True
    while changed:
        changed = False
        for step in (0, 1):
            p = [
                np.roll(image, shift, (0, 1))
                for shift in ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
            ]
            neighbours = sum(q.astype(int) for q in p)
            crossings = sum(((p[i] == 0) & (p[(i + 1) % 8] == 1)).astype(int) for i in range(8))
            a, b, c, d = p[0], p[2], p[4], p[6]
            first, second = (a * b * c, b * c * d) if step == 0 else (a * b * d, a * c * d)
            gone = (image == 1) & (neighbours >= 2) & (neighbours <= 6) & (crossings == 1)
            gone &= (first == 0) & (second == 0)
            if gone.any():
                image[gone] = 0
                changed = True
    return image[1:-1, 1:-1].astype(bool)


def pen(digit: Array, width: float) -> Array:
    """Return the digit (256, 256) drawn with a round pen; `width` in pixels of MNIST's 28."""
    distance = _distance_to_line(digit.tobytes())
    return resize((width * 2 + 0.5 - distance).clip(0, 1).astype(np.float32), 256, 256)


@functools.lru_cache(maxsize=1000)
def _distance_to_line(digit: bytes) -> Array:
    """Return the distance to the middle lines of a digit (128, 128), given as 28x28 float32."""
    pixels = np.frombuffer(digit, np.float32).reshape(28, 28)
    line = skeleton(resize(outline(pixels).astype(np.float32), 128, 128) > 0.5)
    distance: Array = ndimage.distance_transform_edt(~line)
    return distance


def tight(ink: Array) -> Array:
    rows, columns = (np.flatnonzero((ink > 0.3).any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)


def scaled(ink: Array, height: int) -> Array:
    """Return the digit alone with its longer side `height` pixels long."""
    ink = tight(ink)
    factor = height / max(ink.shape)
    return resize(ink, *(max(1, round(n * factor)) for n in ink.shape))


def turned(ink: Array, angle: float) -> Array:
    result: Array = ndimage.rotate(np.pad(ink, 20), angle, order=1)
    return result.clip(0, 1)


def placed(ink: Array, height: int, width: int, rng: Generator, margin: int = 4) -> Array:
    """Return the digit anywhere in a canvas of zeros."""
    canvas = np.zeros((max(height, ink.shape[0] + 2 * margin), max(width, ink.shape[1] + 2 * margin)))
    row, column = (
        rng.integers(margin, n - m - margin + 1) for n, m in zip(canvas.shape, ink.shape, strict=True)
    )
    canvas[row : row + ink.shape[0], column : column + ink.shape[1]] = ink
    return canvas


# ---------------------------------------------------------------- paper and camera


def vignette(shape: tuple[int, ...], rng: Generator) -> Array:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / max(shape)
    y0, x0 = rng.uniform(0.2, 0.8, 2) * (np.array(shape) / max(shape))
    fall = 1 - rng.uniform(0.2, 0.7) * ((y - y0) ** 2 + (x - x0) ** 2)
    slope = 1 + rng.uniform(-0.3, 0.3) * (x - 0.5) + rng.uniform(-0.3, 0.3) * (y - 0.5)
    light: Array = fall * slope
    return light


def texture(shape: tuple[int, ...], rng: Generator) -> Array:
    coarse = ndimage.zoom(rng.normal(size=[n // 16 + 2 for n in shape]), 16, order=1)[: shape[0], : shape[1]]
    paper: Array = 1 + 0.012 * coarse + 0.012 * rng.normal(size=shape)
    return paper


def ruled(shape: tuple[int, ...], rng: Generator, squared: bool) -> Array:
    """Return the transmission of a ruled paper, turned by a few degrees."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float64)
    angle = np.deg2rad(rng.uniform(-4, 4))
    spacing = max(shape) * rng.uniform(0.12, 0.22) / (2 if squared else 1)
    thickness = max(1.0, max(shape) / rng.uniform(150, 300))
    across = x * np.sin(angle) + y * np.cos(angle)
    along = x * np.cos(angle) - y * np.sin(angle)
    lines = np.zeros(shape)
    for axis in (across, along) if squared else (across,):
        distance = np.abs((axis + rng.uniform(0, spacing)) % spacing - spacing / 2)
        lines = np.maximum(lines, (thickness / 2 + 0.5 - distance).clip(0, 1))
    return 1 - rng.uniform(0.15, 0.45) * lines


def photograph(
    ink: Array, rng: Generator, path: Path, paper: Array | float = 1.0, darkness: float | None = None
) -> None:
    """Write ink on paper as a JPEG of a camera: light, texture, blur, noise."""
    strength = rng.uniform(0.45, 0.8) if darkness is None else darkness
    level = rng.uniform(0.5, 0.92)
    picture = level * paper * texture(ink.shape, rng) * vignette(ink.shape, rng) * (1 - strength * ink)
    picture = ndimage.gaussian_filter(picture, rng.uniform(0.3, max(ink.shape) / 300))
    picture = picture + rng.normal(size=picture.shape) * rng.uniform(0.005, 0.02)
    save(picture, path.with_suffix(".jpg"), quality=int(rng.integers(50, 90)))


def save(picture: Array, path: Path, **options: Any) -> None:
    Image.fromarray(np.rint(picture.clip(0, 1) * 255).astype(np.uint8)).save(path, **options)


# ---------------------------------------------------------------- conditions


@condition
def mnist_itself(digit: Array, rng: Generator, path: Path) -> None:
    save(digit, path.with_suffix(".png"))


@condition
def mnist_as_jpeg_dark_on_light(digit: Array, rng: Generator, path: Path) -> None:
    save(1 - digit, path.with_suffix(".jpg"), quality=75)


@condition
def scan_16x16_light_on_dark(digit: Array, rng: Generator, path: Path) -> None:
    save(_filled_16(digit, rng), path.with_suffix(".png"))


@condition
def scan_16x16_dark_on_light(digit: Array, rng: Generator, path: Path) -> None:
    save(1 - _filled_16(digit, rng), path.with_suffix(".png"))


def _filled_16(digit: Array, rng: Generator) -> Array:
    ink = tight(outline(digit))
    height, width = ink.shape
    # Narrow digits are not stretched to the whole width.
    across = (
        16 if width > 0.6 * height and rng.random() < 0.5 else max(2, min(16, round(16 * width / height)))
    )
    down = 16 if height >= width else max(2, round(16 * height / width))
    small = ndimage.gaussian_filter(resize(ink, down, across), rng.uniform(0.2, 0.6), mode="constant")
    canvas = np.zeros((16, 16))
    row, column = (16 - down) // 2, (16 - across) // 2
    canvas[row : row + down, column : column + across] = small / small.max()
    return (canvas + rng.normal(size=canvas.shape) * 0.02).clip(0, 1)


@condition
def scan_28x28_thin(digit: Array, rng: Generator, path: Path) -> None:
    ink = scaled(pen(digit, rng.uniform(0.6, 1.2)), int(rng.integers(14, 22)))
    canvas = placed(ink, 28, 28, rng, 1)
    save(0.93 - 0.8 * canvas + rng.normal(size=canvas.shape) * 0.02, path.with_suffix(".png"))


@condition
def scan_28x28_thin_faint_off_centre(digit: Array, rng: Generator, path: Path) -> None:
    ink = scaled(pen(digit, rng.uniform(0.7, 1.4)), int(rng.integers(12, 21)))
    canvas = placed(ink / ink.max(), 28, 28, rng, 1)
    light = 1 + rng.uniform(-0.05, 0.05) * (np.arange(28)[:, None] / 28 - 0.5)
    noisy = rng.uniform(0.7, 0.95) * light * (1 - rng.uniform(0.15, 0.3) * canvas)
    save(noisy + rng.normal(size=canvas.shape) * rng.uniform(0.005, 0.02), path.with_suffix(".png"))


@condition
def scan_16x16_binary(digit: Array, rng: Generator, path: Path) -> None:
    ink = _filled_16(digit, rng) > rng.uniform(0.35, 0.6)
    save(ink if rng.random() < 0.5 else ~ink, path.with_suffix(".png"))


@condition
def scan_16x16_on_grey_paper(digit: Array, rng: Generator, path: Path) -> None:
    scan = rng.uniform(0.6, 0.9) * (1 - rng.uniform(0.2, 0.6) * _filled_16(digit, rng))
    save(scan + rng.normal(size=scan.shape) * 0.02, path.with_suffix(".png"))


@condition
def scan_28x28_eroded_faint_off_centre(digit: Array, rng: Generator, path: Path) -> None:
    radius = rng.uniform(0, 0.35) * 2 * ndimage.distance_transform_edt(outline(digit)).mean()
    ink = scaled(ndimage.distance_transform_edt(outline(digit)) > radius, 20)
    canvas = np.zeros((28, 28))
    row, column = (np.clip((28 - n) // 2 + rng.integers(-6, 7), 0, 28 - n) for n in ink.shape)
    canvas[row : row + ink.shape[0], column : column + ink.shape[1]] = ink
    noisy = rng.uniform(0.6, 0.9) * (1 - rng.uniform(0.1, 0.4) * canvas)
    save(noisy + rng.normal(size=canvas.shape) * rng.uniform(0.002, 0.015), path.with_suffix(".png"))


@condition
def photograph_of_pen_on_grey_paper(digit: Array, rng: Generator, path: Path) -> None:
    ink = scaled(pen(digit, rng.uniform(0.8, 2.0)), int(rng.integers(60, 260)))
    photograph(placed(ink, 320, 320, rng, 20), rng, path)


@condition
def photograph_with_shadow(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, rng.uniform(0.8, 2.0)), int(rng.integers(80, 240))), 320, 400, rng, 20)
    y, x = np.mgrid[0 : ink.shape[0], 0 : ink.shape[1]] / max(ink.shape)
    angle = rng.uniform(0, 2 * np.pi)
    edge = (x - 0.5) * np.cos(angle) + (y - 0.4) * np.sin(angle) + rng.uniform(-0.15, 0.15)
    shadow = 1 - rng.uniform(0.2, 0.5) / (1 + np.exp(-edge / rng.uniform(0.005, 0.05)))
    photograph(ink, rng, path, paper=shadow)


@condition
def photograph_turned_15_degrees(digit: Array, rng: Generator, path: Path) -> None:
    ink = scaled(turned(pen(digit, rng.uniform(1, 2)), rng.uniform(-15, 15)), int(rng.integers(80, 240)))
    photograph(placed(ink, 320, 320, rng, 20), rng, path)


@condition
def ruled_paper(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, rng.uniform(1, 2)), int(rng.integers(100, 220))), 360, 360, rng, 20)
    photograph(ink, rng, path, paper=ruled(ink.shape, rng, False))


@condition
def squared_paper(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, rng.uniform(1, 2)), int(rng.integers(100, 220))), 360, 360, rng, 20)
    photograph(ink, rng, path, paper=ruled(ink.shape, rng, True))


@condition
def blurred(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, rng.uniform(1, 2)), int(rng.integers(60, 200))), 240, 240, rng, 20)
    photograph(ndimage.gaussian_filter(ink, rng.uniform(2, 4)), rng, path)


@condition
def blackboard(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, rng.uniform(1, 2.5)), int(rng.integers(80, 200))), 260, 300, rng, 10)
    board = 0.18 * texture(ink.shape, rng) * vignette(ink.shape, rng)
    picture = ndimage.gaussian_filter(board + rng.uniform(0.4, 0.75) * ink, 1)
    save(picture + rng.normal(size=ink.shape) * 0.02, path.with_suffix(".jpg"), quality=70)


@condition
def drawing_12_pixels(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(outline(digit), 12), 14, 14, rng, 1)
    save(1 - ink, path.with_suffix(".bmp"))


@condition
def drawing_3000_pixels(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, rng.uniform(0.3, 3)), 2200), 3000, 3000, rng)
    save(1 - (ink > 0.5), path.with_suffix(".webp"), quality=50, method=0)


@condition
def small_in_a_corner(digit: Array, rng: Generator, path: Path) -> None:
    ink = scaled(pen(digit, rng.uniform(1, 2.5)), int(rng.integers(24, 60)))
    canvas = np.pad(ink, ((5, 600), (5, 700)))
    save(np.rot90(1 - canvas, 2)[::-1, ::-1], path.with_suffix(".png"))


@condition
def touching_the_border(digit: Array, rng: Generator, path: Path) -> None:
    ink = scaled(pen(digit, rng.uniform(1, 2.5)), int(rng.integers(60, 200)))
    sides = [(0, int(rng.integers(1, 80)))[:: rng.choice([1, -1])] for _ in range(2)]
    save(1 - np.pad(ink, sides), path.with_suffix(".png"))


@condition
def filling_the_frame(digit: Array, rng: Generator, path: Path) -> None:
    ink = tight(pen(digit, rng.uniform(1.5, 3)))
    save(ink if rng.random() < 0.5 else 1 - ink, path.with_suffix(".png"))


@condition
def hairline(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, 0.3), int(rng.integers(100, 300))), 400, 400, rng)
    save(1 - ink, path.with_suffix(".png"))


@condition
def thick_marker(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, rng.uniform(3.5, 4.5)), int(rng.integers(80, 300))), 400, 400, rng)
    save(ink, path.with_suffix(".png"))


@condition
def colour_ink_on_coloured_paper(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, rng.uniform(1, 2.5)), int(rng.integers(80, 200))), 260, 260, rng, 10)
    pairs = [
        ((20, 40, 160), (250, 248, 240)),
        ((200, 30, 40), (255, 255, 255)),
        ((240, 200, 30), (255, 255, 255)),
        ((200, 30, 40), (40, 130, 50)),
        ((10, 110, 60), (250, 230, 150)),
        ((255, 230, 80), (30, 60, 150)),
    ]
    colour, paper = (np.array(c) / 255 for c in pairs[rng.integers(len(pairs))])
    light = (texture(ink.shape, rng) * vignette(ink.shape, rng))[..., None]
    picture = (paper + (colour - paper) * 0.9 * ink[..., None]) * light
    save(picture, path.with_suffix(".jpg"), quality=80)


@condition
def exif_rotation(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, rng.uniform(1, 2)), int(rng.integers(80, 200))), 240, 320, rng, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right of the stored image
    save(np.rot90(0.9 - 0.7 * ink), path.with_suffix(".jpg"), exif=exif, quality=80)


@condition
def transparent_background(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, rng.uniform(1, 2.5)), int(rng.integers(80, 200))), 240, 240, rng, 10)
    colour = np.full((*ink.shape, 3), rng.choice([0, 255]), np.uint8)
    alpha = np.rint(ink[..., None] * 255).astype(np.uint8)
    Image.fromarray(np.concatenate([colour, alpha], axis=2)).save(path.with_suffix(".png"))


@condition
def broken_strokes(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, rng.uniform(1, 2)), int(rng.integers(100, 200))), 260, 260, rng, 10)
    rows, columns = np.nonzero(ink > 0.5)
    y, x = np.mgrid[0 : ink.shape[0], 0 : ink.shape[1]]
    for index in rng.integers(len(rows), size=2):
        ink = ink * ((y - rows[index]) ** 2 + (x - columns[index]) ** 2 > rng.uniform(6, 11) ** 2)
    photograph(ink, rng, path)


@condition
def specks_of_dirt(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, rng.uniform(1, 2)), int(rng.integers(100, 200))), 360, 360, rng, 10)
    y, x = np.mgrid[0 : ink.shape[0], 0 : ink.shape[1]]
    for _ in range(8):
        row, column = rng.uniform(0, 360, 2)
        ink = np.maximum(ink, (rng.uniform(1, 4) + 0.5 - np.hypot(y - row, x - column)).clip(0, 1))
    photograph(ink, rng, path)


@condition
def sheet_on_a_dark_table(digit: Array, rng: Generator, path: Path) -> None:
    ink = placed(scaled(pen(digit, rng.uniform(1, 2)), int(rng.integers(70, 150))), 240, 240, rng, 20)
    ink = turned(ink, rng.uniform(-8, 8))
    sheet = np.pad(turned(np.ones((240, 240)), rng.uniform(-8, 8)), 30)
    ink = np.pad(
        ink,
        [
            (max(0, a - b) // 2, max(0, a - b) - max(0, a - b) // 2)
            for a, b in zip(sheet.shape, ink.shape, strict=True)
        ],
    )
    sheet = np.pad(
        sheet,
        [
            (max(0, b - a) // 2, max(0, b - a) - max(0, b - a) // 2)
            for a, b in zip(sheet.shape, ink.shape, strict=True)
        ],
    )
    photograph(ink, rng, path, paper=0.25 + 0.75 * sheet)


# ---------------------------------------------------------------- digits that MNIST has few of


@drawn(1)
def one_with_a_long_upstroke(rng: Generator, path: Path) -> None:
    lean, angle, length = rng.uniform(-0.02, 0.22), np.deg2rad(rng.uniform(42, 62)), rng.uniform(0.45, 0.8)
    top, bottom = (0.0, 0.0), (-lean, 1.0)  # x to the right, y down
    start = (-length * np.cos(angle), length * np.sin(angle))
    ink = written([bent(start, top, rng), bent(top, bottom, rng)], rng)
    photograph(placed(scaled(ink, int(rng.integers(80, 240))), 320, 320, rng, 20), rng, path)


@drawn(7)
def crossed_seven(rng: Generator, path: Path) -> None:
    width, lean, rise = rng.uniform(0.45, 0.75), rng.uniform(0.15, 0.45), rng.uniform(-0.06, 0.1)
    left, right, bottom = (-width, rise), (0.0, 0.0), (-lean, 1.0)
    place, half, slope = rng.uniform(0.4, 0.6), rng.uniform(0.15, 0.26), rng.uniform(-0.3, 0.15)
    middle = -lean * place + rng.uniform(-0.04, 0.04)
    cross = bent((middle - half, place - half * slope), (middle + half, place + half * slope), rng)
    strokes = [bent(left, right, rng), bent(right, bottom, rng), cross]
    if rng.random() < 0.4:
        strokes.append(bent((-width - 0.02, rise + rng.uniform(0.08, 0.18)), left, rng))
    ink = written(strokes, rng)
    photograph(placed(scaled(ink, int(rng.integers(80, 240))), 320, 320, rng, 20), rng, path)


def bent(start: Sequence[float], end: Sequence[float], rng: Generator) -> Array:
    """Return the points (60, 2) of a quadratic Bézier curve, up to a twelfth of its length from straight."""
    first, last = np.array(start), np.array(end)
    across = (last - first)[::-1] * [1, -1]
    control = (first + last) / 2 + across * rng.uniform(-0.16, 0.16)
    t = np.linspace(0, 1, 60)[:, None]
    points: Array = (1 - t) ** 2 * first + 2 * t * (1 - t) * control + t**2 * last
    return points


def written(strokes: Sequence[Array], rng: Generator) -> Array:
    """Return strokes, (N, 2) as x and y in heights of the digit, drawn by a pen that is pressed unevenly."""
    side = 512  # pixels of the height
    canvas = Image.new("L", (2 * side, 2 * side))
    draw = ImageDraw.Draw(canvas)
    width = side * rng.uniform(0.035, 0.09)
    for points in strokes:
        pressure = np.interp(np.linspace(0, 1, len(points)), [0, 0.5, 1], rng.uniform(0.7, 1.2, 3))
        tremor = ndimage.gaussian_filter1d(rng.normal(size=points.shape), 6, axis=0) * 0.012
        places = (points + tremor + [1, 0.5]) * side
        for (x, y), radius in zip(places, pressure * width / 2, strict=True):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX)) / 255


@drawn(8)
def printed_eight_with_a_drop_shadow(rng: Generator, path: Path) -> None:
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = ("DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSansMono-Bold", "DejaVuSerif-Bold")
    size = int(rng.integers(100, 260))
    font = ImageFont.truetype(fonts / f"{rng.choice(names)}.ttf", size)
    mask = Image.new("L", (360, 360))
    place = tuple(rng.integers(150, 210, 2).tolist())
    ImageDraw.Draw(mask).text(place, "8", fill=255, font=font, anchor="mm")
    right, down = size * rng.uniform(0.03, 0.08, 2) * [rng.choice([-1, 1]), 1]
    blur = ImageFilter.GaussianBlur(size * rng.uniform(0.005, 0.04))
    shadow = np.asarray(ImageChops.offset(mask, int(right), int(down)).filter(blur))[..., None] / 255
    paper = hue(rng.random(), rng.uniform(0.4, 1.0), rng.uniform(0.5, 0.9))
    is_dark = rng.random() < 0.3
    brightness = rng.uniform(0.0, 0.15) if is_dark else rng.uniform(0.9, 1.0)
    colour = hue(rng.random(), rng.uniform(0, 0.6), brightness)
    picture = paper * (1 - rng.uniform(0.3, 0.7) * shadow)
    picture += (colour - picture) * np.asarray(mask)[..., None] / 255
    save(picture + rng.normal(size=picture.shape) * 0.005, path.with_suffix(".jpg"), quality=85)


def hue(angle: float, saturation: float, value: float) -> Array:
    return np.array(colorsys.hsv_to_rgb(angle, saturation, value))


def render(name: str, digits: Array, folder: Path) -> list[Path]:
    """Write each digit, uint8 (N, 28, 28), under a condition; return the files in order."""
    files = []
    for index, digit in enumerate(digits):
        rng = np.random.default_rng([zlib.crc32(name.encode()), index])
        CONDITIONS[name](digit.astype(np.float32) / 255, rng, folder / f"{index:05}")
        (file,) = folder.glob(f"{index:05}.*")
        files.append(file)
    return files


def accuracies(
    predictors: Sequence[Predictor], digits: Array, labels: Array, name: str, keep: Path | None
) -> list[float]:
    """Return the accuracy of each network under a condition; what no digit is found in is misread."""
    labels = np.full_like(labels, LABELS[name]) if name in LABELS else labels
    with tempfile.TemporaryDirectory() as folder:
        files = render(name, digits, Path(folder))
        prepared = _prepared(files)
        right = np.array([predictor.scores(prepared).argmax(1) == labels for predictor in predictors])
        right &= prepared.any((1, 2, 3))
        if keep:
            for index in np.flatnonzero(~right[-1]).tolist():
                title = f"{name} {index} is {labels[index]}.png"
                _keep(files[index], prepared[index, 0], keep / title)
    rates: list[float] = right.mean(1).tolist()
    return rates


def time_of_photographs(digits: Array) -> tuple[float, int]:
    """Return the CPU time in ms that a photograph takes from its file to the digit, and how many there were.

    They are ten conditions of photographed paper, enlarged or reduced to 100 to 900 pixels a side.
    """
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name in PHOTOGRAPHS:
            rendered = Path(folder, name)
            rendered.mkdir()
            for file in render(name, digits, rendered):
                with Image.open(file) as image:
                    factor = rng.uniform(100, 900) / max(image.size)
                    size = (round(image.width * factor), round(image.height * factor))
                    image.resize(size, Image.Resampling.BICUBIC).save(file, quality=85)
                files.append(file)
        start = time.process_time()
        _prepared(files)
        return 1000 * (time.process_time() - start) / len(files), len(files)


def _prepared(files: Sequence[Path]) -> Array:
    """Return the digit in each file, uint8 (N, 1, 28, 28), empty where none is found."""
    prepared = np.zeros((len(files), 1, 28, 28), np.uint8)
    for index, file in enumerate(files):
        with suppress(NothingFound):
            prepared[index] = prepare_file(file)[0]
    return prepared


def through_files(predictor: Predictor, digits: Array, labels: Array) -> tuple[float, float]:
    """Return the accuracy on MNIST's images as they are, and on the same read from files."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = _prepared(render("mnist itself", digits, Path(folder)))
    direct, read = (predictor.scores(x).argmax(1) == labels for x in (digits[:, None], prepared))
    return float(direct.mean()), float(read.mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ckpt", type=Path, nargs="*")
    parser.add_argument("--time", action="store_true", help="ms to prepare a photograph; needs no ckpt")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--images", type=int, help="of each condition (default: 200; with --mnist, all)")
    parser.add_argument("--only", choices=CONDITIONS, nargs="+", help="conditions (default: all)")
    parser.add_argument(
        "--keep", type=Path, help="a folder for what the last network misreads, and its input"
    )
    parser.add_argument("--out", type=Path, help="a JSON file for the accuracies")
    parser.add_argument("--mnist", action="store_true", help="MNIST's images, directly and through files")
    options = parser.parse_args()

    images, targets = MNIST().read(ROOT / "data", train=options.split == "validation")
    if options.split == "validation":  # the images that data.val_size=5000 keeps from the training
        rows = stratified_split(targets, 5000, seed=0, setting="data.val_size")[1]
        images, targets = images[rows], targets[rows]
    count = options.images or (None if options.mnist else 200)
    digits, labels = images[:count, 0].numpy(), targets[:count].numpy()
    if options.time:
        milliseconds, count = time_of_photographs(digits[:20])
        print(f"{milliseconds:.1f} ms to prepare a photograph (CPU time, mean of {count})")
        return
    if not options.ckpt:
        parser.error("give the checkpoints to measure, or --time")
    predictors = [Predictor.load(path) for path in options.ckpt]
    if options.mnist:
        for path, predictor in zip(options.ckpt, predictors, strict=True):
            direct, read = through_files(predictor, digits, labels)
            print(f"{path}: {direct:.2%} directly, {read:.2%} through files, of {len(labels):,} images")
        return
    rates = {}
    for name in options.only or CONDITIONS:
        rates[name] = accuracies(predictors, digits, labels, name, options.keep)
        print(f"{name:36}", *(f"{rate:7.2%}" for rate in rates[name]), flush=True)
    rates["mean"] = np.mean(list(rates.values()), axis=0).tolist()
    print(f"{'mean':36}", *(f"{rate:7.2%}" for rate in rates["mean"]))
    if options.out:
        result = {
            "measured_by": "python -m benchmarks.own_digits",
            "machine": machine.describe(),
            "split": options.split,
            "n": len(labels),
            "networks": [describe_network(path) for path in options.ckpt],
            "accuracy": rates,
        }
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def describe_network(ckpt: Path) -> str:
    """Return the command of the run that a checkpoint is of."""
    file = ckpt.parents[1] / ".hydra" / "overrides.yaml"
    return " ".join(["python train.py", *(OmegaConf.load(file) if file.is_file() else [])])


def _keep(file: Path, prepared: Array, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    canvas = Image.new("RGB", (520, 260))
    original = Image.open(file).convert("RGB")
    original.thumbnail((256, 256))
    if max(original.size) < 100:
        original = original.resize(
            (256 * original.width // max(original.size), 256 * original.height // max(original.size)), 0
        )
    canvas.paste(original, (0, 0))
    canvas.paste(Image.fromarray(prepared).resize((256, 256), 0), (260, 0))
    canvas.save(to)


if __name__ == "__main__":
    main()
