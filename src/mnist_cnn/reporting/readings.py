"""What predict.py reports: a table, predictions.csv and pictures."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import east_asian_width

from mnist_cnn.errors import UserError, printable
from mnist_cnn.files import atomic_write, shown_path
from mnist_cnn.inference.predictor import Predictor, Reading
from mnist_cnn.reporting import figures
from mnist_cnn.reporting.reading_figures import page

log = logging.getLogger(__name__)

PANELS = 60  # digits in a picture; more are written to further pictures


@dataclass
class Row:
    """A digit of a file with its two highest scores, or a file in which none was read."""

    reading: Reading
    number: int | None = None  # of the digit in the file, from 1
    digit: str = ""
    score: float | None = None
    runner_up: str = ""
    runner_up_score: float | None = None
    uncertain: bool = False


def report(folder: Path, predictor: Predictor, readings: Sequence[Reading], min_confidence: float) -> None:
    """Print a table, and write predictions.csv and predictions.png to `folder`.

    Raises `UserError` at the end where nothing was read in one of the files.
    """
    rows = table(readings, predictor.classes, min_confidence)
    probability = "probability" if predictor.gives_probabilities else "output"
    for line in _lines(rows, probability):
        log.info("%s", line)
    _write_csv(folder / "predictions.csv", rows, probability)
    for start in range(0, len(rows), PANELS):
        number = start // PANELS + 1
        name = "predictions.png" if number == 1 else f"predictions_{number}.png"
        figures.save(page(rows[start : start + PANELS], predictor.classes, probability), folder / name)
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
            first, second = sorted(range(len(scores)), key=lambda k: -scores[k])[:2]
            rows.append(
                Row(
                    reading,
                    number,
                    classes[first],
                    scores[first],
                    classes[second],
                    scores[second],
                    uncertain=scores[first] < min_confidence,
                )
            )
    return rows


def _lines(rows: Sequence[Row], probability: str) -> list[str]:
    several = any(row.number is not None and row.number > 1 for row in rows)
    cells = [["file", *(["number"] if several else []), "digit", probability, "runner-up", ""]]
    for row in rows:
        others, error = row.reading.others, row.reading.error
        name = [printable(str(row.reading.file)), *([str(row.number or "")] if several else [])]
        if error:
            cells.append([*name, "–", "", "", error])
            continue
        marks = ["uncertain"] if row.uncertain else []
        if others:
            # A broken stroke can look like two digits.
            marks.append(f"perhaps {others} more digit{'s' * (others > 1)}; split=true reads them")
        second = f"{row.runner_up}  {_shown(row.runner_up_score, probability)}"
        cells.append([*name, row.digit, _shown(row.score, probability), second, ", ".join(marks)])
    widths = [max(_width(line[column]) for line in cells) for column in range(len(cells[0]) - 1)] + [0]
    return [
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in cells
    ]


def _width(text: str) -> int:
    """Return how many columns of a terminal `text` takes; a Chinese or Japanese character takes two."""
    return sum(1 + (east_asian_width(character) in "WF") for character in text)


def _shown(score: float | None, probability: str) -> str:
    if score is None:
        return ""
    return f"{score:.2%}" if probability == "probability" else f"{score:.3f}"


def _write_csv(path: Path, rows: Sequence[Row], probability: str) -> None:
    header = (
        *("file", "number", "digit", probability),
        *("runner_up", f"runner_up_{probability}", "uncertain", "error"),
    )
    with (
        atomic_write(path) as aside,
        # Names of files that are not UTF-8 keep their bytes.
        aside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            scores = ["" if s is None else f"{s:.6f}" for s in (row.score, row.runner_up_score)]
            uncertain = "" if row.number is None else str(row.uncertain).lower()
            writer.writerow(
                [
                    row.reading.file,
                    row.number or "",
                    row.digit,
                    scores[0],
                    row.runner_up,
                    scores[1],
                    uncertain,
                    row.reading.error or "",
                ]
            )
