"""The picture of predict.py: each image, what the network saw of it, and the network's outputs."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mnist_cnn.errors import printable
from mnist_cnn.reporting.figures import BLUE, VERMILION, whole_figure

if TYPE_CHECKING:
    from mnist_cnn.reporting.readings import Row

COLUMNS = 3  # panels side by side
MAX_BARS = 20  # scores in a panel

# In inches, as all lengths and coordinates of the page.
SIDE = 1.3  # of the two images of a panel
ABOVE = 0.3  # for the titles
BARS = 1.9
WIDTH = 2 * (SIDE + 0.15) + 0.25 + BARS + 0.2  # of a panel


def page(rows: Sequence["Row"], classes: Sequence[str], score_name: str) -> Figure:
    """Draw a panel for each row; a frame and a word mark what is uncertain or was not read.

    classes: K names; score_name: what the scores are, such as "probability".
    """
    columns = min(COLUMNS, max(len(rows), 1))
    lines = max(math.ceil(len(rows) / columns), 1)
    longest = max(len(_shortened(name)) for name in classes)
    below = 0.2 if longest <= 2 else 0.1 + 0.07 * longest  # longer names are written upwards
    height = ABOVE + SIDE + below
    figure, axes = whole_figure(WIDTH * columns, height * lines)
    for index, row in enumerate(rows):
        x, y = 0.1 + WIDTH * (index % columns), height * (index // columns) + ABOVE
        reading = row.reading
        name = f"{reading.file.name}, {row.number}" if len(reading.images) > 1 else reading.file.name
        _draw_image(axes, x, y, reading.original, _shortened(name), row.uncertain or row.number is None)
        x += SIDE + 0.15
        if row.number is None:
            error = _wrapped(reading.error or "")
            axes.text(x, y + SIDE / 2, error, va="center", fontsize=8, color=VERMILION, parse_math=False)
            continue
        image = reading.images[row.number - 1].transpose(1, 2, 0)  # (H, W, 1 or 3), as imshow takes it
        _draw_image(axes, x, y, image, "input", row.uncertain)
        x += SIDE + 0.15 + 0.25
        _draw_scores(axes, x, y, reading.scores[row.number - 1], classes, score_name, row.uncertain)
    axes.set(xlim=(0, WIDTH * columns), ylim=(height * lines, 0), aspect="auto")
    axes.set_axis_off()
    return figure


def _draw_image(axes: Axes, x: float, y: float, image: NDArray[Any], title: str, marked: bool) -> None:
    """Draw an image in the middle of the square at (x, y)."""
    scale = SIDE / max(image.shape[:2])
    half, tall = scale * image.shape[1] / 2, scale * image.shape[0]
    x, top = x + SIDE / 2, y + (SIDE - tall) / 2
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(x - half, x + half, top + tall, top))
    color, width = (VERMILION, 2.0) if marked else ("0.7", 0.5)
    axes.add_patch(Rectangle((x - half, top), 2 * half, tall, fill=False, color=color, linewidth=width))
    axes.text(x, y - 0.06, title, ha="center", va="bottom", fontsize=8, parse_math=False)


def _draw_scores(
    axes: Axes,
    x: float,
    y: float,
    scores: NDArray[Any],
    classes: Sequence[str],
    score_name: str,
    uncertain: bool,
) -> None:
    """Draw the scores, of more than 20 classes the highest, as bars with the names of their classes."""
    order = (-scores).argsort(kind="stable")
    best = int(order[0])
    shown = range(len(scores)) if len(scores) <= MAX_BARS else order[:MAX_BARS]
    low, high = min(0.0, float(scores[shown].min())), max(1.0, float(scores[best]))
    inch, zero = SIDE / (high - low), y + SIDE * high / (high - low)  # of a score of 1 and of 0
    middles = [x + BARS * (position + 0.5) / len(shown) for position in range(len(shown))]
    color = VERMILION if uncertain else BLUE
    axes.bar(
        middles,
        -inch * scores[shown],
        width=0.8 * BARS / len(shown),
        bottom=zero,
        color=[color if k == best else "0.7" for k in shown],
    )
    axes.plot((x, x), (y, y + SIDE), (x, x + BARS), (zero, zero), color="black", linewidth=0.8)
    for value in (low, high):
        place = y + inch * (high - value)
        axes.text(x - 0.05, place, f"{value:.2g}", ha="right", va="center", fontsize=7)
    axes.text(x - 0.08, y + SIDE / 2, score_name, ha="right", va="center", fontsize=7, rotation=90)
    rotation = 90 if max(map(len, classes)) > 2 else 0
    for middle, k in zip(middles, shown, strict=True):
        axes.text(
            middle,
            y + SIDE + 0.05,
            _shortened(classes[k]),
            ha="center",
            va="top",
            fontsize=7,
            rotation=rotation,
            parse_math=False,
        )
    mark = " – uncertain" if uncertain else ""
    title = f"{_shortened(classes[best])}: {scores[best]:.3f}{mark}"
    axes.text(x + BARS / 2 - 0.1, y - 0.06, title, ha="center", va="bottom", fontsize=8, parse_math=False)


def _shortened(name: str) -> str:
    name = printable(name)
    return name if len(name) <= 20 else f"{name[:8]}…{name[-11:]}"


def _wrapped(text: str) -> str:
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) > 34:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return "\n".join([*lines, line])
