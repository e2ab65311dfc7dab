"""The picture of predict.py: each image, what the network saw of it, and the network's outputs."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mnist_cnn.errors import printable
from mnist_cnn.reporting.figures import BLUE, VERMILION

if TYPE_CHECKING:
    from mnist_cnn.reporting.readings import Row

COLUMNS = 3  # panels side by side


def page(rows: Sequence["Row"], classes: Sequence[str], score_name: str) -> Figure:
    """Draw a panel for each row; a frame and a word mark what is uncertain or was not read.

    classes: K names; score_name: what the scores are, such as "probability".
    """
    columns = min(COLUMNS, max(len(rows), 1))
    lines = max(math.ceil(len(rows) / columns), 1)
    figure = Figure(figsize=(5.2 * columns, 1.75 * lines), dpi=120, layout="constrained")
    grid = figure.subplots(lines, 3 * columns, squeeze=False, width_ratios=(1, 1, 1.6) * columns)
    for axes in grid.flat:
        axes.set_axis_off()
    for index, row in enumerate(rows):
        line, column = index // columns, 3 * (index % columns)
        original, digit, bars = grid[line, column : column + 3]
        reading = row.reading
        name = f"{reading.file.name}, {row.number}" if len(reading.digits) > 1 else reading.file.name
        _draw_image(original, reading.original, _shortened(name), row.uncertain or row.number is None)
        if row.number is None:
            digit.text(0.05, 0.5, _wrapped(reading.error or ""), va="center", fontsize=8, color=VERMILION)
            continue
        _draw_image(digit, reading.digits[row.number - 1, 0], "input", row.uncertain)
        _draw_scores(bars, reading.scores[row.number - 1], classes, score_name, row.uncertain)
    return figure


def _draw_image(axes: Axes, image: NDArray[Any], title: str, marked: bool) -> None:
    axes.set_axis_on()
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=8)
    axes.spines[:].set(visible=True, color=VERMILION if marked else "0.7", linewidth=2 if marked else 0.5)


def _draw_scores(
    axes: Axes, scores: NDArray[Any], classes: Sequence[str], score_name: str, uncertain: bool
) -> None:
    axes.set_axis_on()
    best = int(scores.argmax())
    color = VERMILION if uncertain else BLUE
    axes.bar(range(len(scores)), scores, color=[color if k == best else "0.7" for k in range(len(scores))])
    axes.set_xticks(range(len(scores)), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
    axes.tick_params(labelsize=7, length=2)
    axes.set_ylim(min(0.0, float(scores.min())), max(1.0, float(scores.max())))
    axes.spines[["top", "right"]].set_visible(False)
    mark = " – uncertain" if uncertain else ""
    axes.set_title(f"{classes[best]}, {score_name} {scores[best]:.3f}{mark}", fontsize=8)


def _shortened(name: str) -> str:
    name = printable(name)
    # A dollar sign would start a formula.
    return (name if len(name) <= 20 else f"{name[:8]}…{name[-11:]}").replace("$", r"\$")


def _wrapped(text: str) -> str:
    lines, line = [], ""
    for word in text.replace("$", r"\$").split():
        if len(line) + len(word) > 34:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return "\n".join([*lines, line])
