"""What predict.py reports: a table, predictions.csv and figures."""

import csv
import logging
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import east_asian_width

from matplotlib.figure import Figure

from mnist_cnn.errors import UserError, printable
from mnist_cnn.files import atomic_write, shown_path
from mnist_cnn.inference.predictor import Predictor, Reading
from mnist_cnn.reporting import figures
from mnist_cnn.reporting.figures import VERMILION
from mnist_cnn.reporting.scores import score

log = logging.getLogger(__name__)

PANELS = 60  # digits in a figure; more are written to further figures
COLUMNS = 4  # panels side by side

# In inches, as all lengths and coordinates of the page.
SIDE = 1.3  # of the two images of a panel
ABOVE = 0.3  # for the name of the file
BELOW = 0.35  # for the digit that was read
WIDTH = 2 * SIDE + 0.1 + 0.3  # of a panel


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
        figure = page(drawn[start : start + PANELS], predictor.gives_probabilities)
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
        for number, scores in enumerate(reading.scores, start=1):
            first, second = (-scores).argsort(kind="stable")[:2]
            row = Row(reading, number, classes[first], float(scores[first]))
            row.runner_up, row.runner_up_score = classes[second], float(scores[second])
            row.uncertain = row.score < min_confidence
            rows.append(row)
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


def page(rows: Sequence[Row], are_probabilities: bool) -> Figure:
    """Draw a panel for each row: the image, what the network saw of it, and the two highest scores.

    A frame and a word mark what is uncertain or was not read.
    """
    columns = min(COLUMNS, max(len(rows), 1))
    height = ABOVE + SIDE + BELOW
    width, whole_height = WIDTH * columns, height * max(math.ceil(len(rows) / columns), 1)
    figure, axes = figures.whole_figure(width, whole_height)
    for index, row in enumerate(rows):
        x, y = 0.15 + WIDTH * (index % columns), height * (index // columns) + ABOVE
        reading = row.reading
        name = _shortened(reading.file.name)
        name = f"{name}, {row.number}" if len(reading.images) > 1 else name
        middle = x + SIDE + 0.05
        axes.text(middle, y - 0.06, name, ha="center", va="bottom", fontsize=8, parse_math=False)
        frame = VERMILION if row.uncertain or row.number is None else None
        figures.place_image(axes, reading.original, (x, y), SIDE, frame, limits=(0, 255))
        x += SIDE + 0.1
        if row.number is None:
            error = textwrap.fill(reading.error or "", 20)
            axes.text(x, y + SIDE / 2, error, va="center", fontsize=8, color=VERMILION, parse_math=False)
            continue
        seen = reading.images[row.number - 1].transpose(1, 2, 0)  # (H, W, 1 or 3), as imshow takes it
        figures.place_image(axes, seen, (x, y), SIDE, frame, limits=(0, 255))
        text = f"{_shortened(row.digit)}: {score(row.score, are_probabilities)}"
        text += " – uncertain" if row.uncertain else ""
        text += f"\n{_shortened(row.runner_up)}: {score(row.runner_up_score, are_probabilities)}"
        axes.text(middle, y + SIDE + 0.05, text, ha="center", va="top", fontsize=8, parse_math=False)
    axes.set(xlim=(0, width), ylim=(whole_height, 0), aspect="auto")
    axes.set_axis_off()
    return figure


def _shortened(name: str) -> str:
    name = printable(name)
    return name if len(name) <= 20 else f"{name[:8]}…{name[-11:]}"
