"""What predict.py reports: a table, predictions.csv and figures."""

import csv
import logging
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mnist_cnn.errors import UserError, printable
from mnist_cnn.files import atomic_write, shown_path
from mnist_cnn.inference.predictor import Predictor, Reading
from mnist_cnn.reporting import figures
from mnist_cnn.reporting.figures import BLUE, VERMILION
from mnist_cnn.reporting.scores import score

log = logging.getLogger(__name__)

PANELS = 60  # digits in a figure; more are written to further figures
COLUMNS = 3  # panels side by side
MAX_BARS = 20  # scores in a panel

# In inches, as all lengths and coordinates of the page.
SIDE = 1.3  # of the two images of a panel
ABOVE = 0.3  # for the titles
BARS = 1.9
WIDTH = 2 * (SIDE + 0.15) + 0.25 + BARS + 0.2  # of a panel


@dataclass
class Row:
    """A digit of a file with its two highest scores, or a file in which none was read."""

    reading: Reading
    number: int | None = None  # of the digit in the file, from 1
    digit: str = ""
    score: float = 0.0
    runner_up: str = ""
    runner_up_score: float = 0.0
    uncertain: bool = False


def report(
    folder: Path,
    predictor: Predictor,
    readings: Sequence[Reading],
    min_confidence: float,
    draw_all: bool = False,
) -> None:
    """Print a table, and write predictions.csv and predictions.png to `folder`.

    The figures show the first 60 digits and what is uncertain or was not read, or with `draw_all` everything.
    Raises `UserError` at the end if nothing was read in one of the files.
    """
    rows = table(readings, predictor.classes, min_confidence)
    for line in _lines(rows, predictor.gives_probabilities):
        log.info("%s", line)
    _write_csv(folder / "predictions.csv", rows, predictor.gives_probabilities)
    drawn = [
        row for i, row in enumerate(rows) if draw_all or i < PANELS or row.uncertain or row.number is None
    ]
    for start in range(0, len(drawn), PANELS):
        number = start // PANELS + 1
        name = "predictions.png" if number == 1 else f"predictions_{number}.png"
        figure = page(drawn[start : start + PANELS], predictor.classes, predictor.gives_probabilities)
        figures.save(figure, folder / name)
    log.info("folder: %s", shown_path(folder))
    failed = [reading for reading in readings if reading.error]
    if failed:
        raise UserError(f"nothing was read in {len(failed)} of {len(readings)} files; see the table.")


def table(readings: Sequence[Reading], classes: Sequence[str], min_confidence: float) -> list[Row]:
    """Return a row for each digit, and for each file in which none was read."""
    rows = []
    for reading in readings:
        if reading.error:
            rows.append(Row(reading))
        for number, scores in enumerate(reading.scores.tolist(), start=1):
            named = sorted(zip(classes, scores, strict=True), key=lambda pair: -pair[1])
            (digit, best), (runner_up, second) = named[:2]
            rows.append(Row(reading, number, digit, best, runner_up, second, best < min_confidence))
    return rows


def _lines(rows: Sequence[Row], are_probabilities: bool) -> list[str]:
    """Return the table as lines of text."""
    several = any(row.number is not None and row.number > 1 for row in rows)
    cells = [["file", "number", "digit", _score_name(are_probabilities), "runner-up", ""]]
    for row in rows:
        reading, name = row.reading, printable(str(row.reading.file))
        if row.number is None:
            cells.append([name, "", "–", "", "", reading.error or ""])
            continue
        marks = ["uncertain"] if row.uncertain else []
        if reading.others:  # a broken stroke can look like two digits
            plural = "s" if reading.others > 1 else ""
            marks.append(f"perhaps {reading.others} more digit{plural}; split=true reads them")
        first = score(row.score, are_probabilities)
        second = f"{row.runner_up}  {score(row.runner_up_score, are_probabilities)}"
        cells.append([name, str(row.number), row.digit, first, second, ", ".join(marks)])
    if not several:
        cells = [[line[0], *line[2:]] for line in cells]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        padded = [cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return lines


def _score_name(are_probabilities: bool) -> str:
    return "probability" if are_probabilities else "output"


def _width(text: str) -> int:
    """Return the columns that `text` takes in a terminal: two for a Chinese or Japanese character."""
    return sum(1 + (east_asian_width(character) in "WF") for character in text)


def _write_csv(path: Path, rows: Sequence[Row], are_probabilities: bool) -> None:
    name = _score_name(are_probabilities)
    with (
        atomic_write(path) as aside,
        # Names of files that are not UTF-8 keep their bytes.
        aside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(
            ["file", "number", "digit", name, "runner_up", f"runner_up_{name}", "uncertain", "error"]
        )
        for row in rows:
            if row.number is None:
                writer.writerow([row.reading.file, "", "", "", "", "", "", row.reading.error])
                continue
            first, second = f"{row.score:.6f}", f"{row.runner_up_score:.6f}"
            uncertain = str(row.uncertain).lower()
            writer.writerow(
                [row.reading.file, row.number, row.digit, first, row.runner_up, second, uncertain, ""]
            )


def page(rows: Sequence[Row], classes: Sequence[str], are_probabilities: bool) -> Figure:
    """Draw a panel for each row: the image, what the network saw of it, and the network's outputs.

    A frame and a word mark what is uncertain or was not read. classes: K names.
    """
    columns = min(COLUMNS, max(len(rows), 1))
    lines = max(math.ceil(len(rows) / columns), 1)
    longest = max(len(_shortened(name)) for name in classes)
    below = 0.2 if longest <= 2 else 0.1 + 0.07 * longest  # longer names are written upwards
    height = ABOVE + SIDE + below
    figure, axes = figures.whole_figure(WIDTH * columns, height * lines)
    for index, row in enumerate(rows):
        x, y = 0.1 + WIDTH * (index % columns), height * (index // columns) + ABOVE
        reading = row.reading
        name = f"{reading.file.name}, {row.number}" if len(reading.images) > 1 else reading.file.name
        _draw_image(axes, x, y, reading.original, _shortened(name), row.uncertain or row.number is None)
        x += SIDE + 0.15
        if row.number is None:
            error = textwrap.fill(reading.error or "", 34)
            axes.text(x, y + SIDE / 2, error, va="center", fontsize=8, color=VERMILION, parse_math=False)
            continue
        image = reading.images[row.number - 1].transpose(1, 2, 0)  # (H, W, 1 or 3), as imshow takes it
        _draw_image(axes, x, y, image, "input", row.uncertain)
        x += SIDE + 0.15 + 0.25
        _draw_scores(axes, x, y, reading.scores[row.number - 1], classes, are_probabilities, row.uncertain)
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
    are_probabilities: bool,
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
    score_name = "probability" if are_probabilities else "output"
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
    title = f"{_shortened(classes[best])}: {score(scores[best], are_probabilities)}{mark}"
    axes.text(x + BARS / 2 - 0.1, y - 0.06, title, ha="center", va="bottom", fontsize=8, parse_math=False)


def _shortened(name: str) -> str:
    name = printable(name)
    return name if len(name) <= 20 else f"{name[:8]}…{name[-11:]}"
