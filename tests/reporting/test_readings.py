"""The table, the CSV file and the figures of predict.py."""

import csv
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_cnn.errors import UserError
from mnist_cnn.inference.predictor import Predictor, Reading
from mnist_cnn.reporting import figures, readings
from mnist_cnn.reporting.readings import page
from tests.inference.checkpoint import write_checkpoint


def reading(name: str, *scores: list[float]) -> Reading:
    original = np.full((40, 60, 3), 200, np.uint8)
    return Reading(Path(name), original, np.zeros((len(scores), 1, 28, 28), np.uint8), np.array(scores))


SURE = [0.01, 0.02, 0.9, 0.07]
UNSURE = [0.1, 0.45, 0.05, 0.4]


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor.load(write_checkpoint(tmp_path / "a.ckpt"))


def test_report_writes_all_rows_and_figures_and_then_fails(
    predictor: Predictor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readings, "PANELS", 2)
    ten = [0.0] * 6
    found = [reading("a, b.png", SURE + ten, UNSURE + ten), Reading(Path("c.png"), error="no digit found")]
    with caplog.at_level(logging.INFO), pytest.raises(UserError, match="1 of 2 files"):
        readings.report(tmp_path, predictor, found, min_confidence=0.8, draw_all=True)

    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["a, b.png", "a, b.png", "c.png"]
    assert [row["digit"] for row in rows] == ["2", "1", ""]
    assert [row["number"] for row in rows] == ["1", "2", ""]
    assert [row["uncertain"] for row in rows] == ["false", "true", ""]
    assert [row["runner_up"] for row in rows] == ["3", "3", ""]
    assert float(rows[1]["probability"]) == pytest.approx(0.45)
    assert rows[2]["error"] == "no digit found"
    assert {path.name for path in tmp_path.glob("*.png")} == {"predictions.png", "predictions_2.png"}

    lines = caplog.messages
    assert lines[0].split() == ["file", "number", "digit", "probability", "runner-up"]
    assert lines[1].split() == ["a,", "b.png", "1", "2", "90.00%", "3", "7.00%"]
    assert lines[2].split()[-3:] == ["3", "40.00%", "uncertain"]
    assert lines[3].endswith("no digit found")


def test_columns_are_aligned_and_digits_that_were_not_read_are_mentioned(
    predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = [reading("手写.png", SURE + [0.0] * 6), reading("a", UNSURE + [0.0] * 6)]
    found[0].others, found[1].others = 1, 2
    with caplog.at_level(logging.INFO):
        readings.report(tmp_path, predictor, found, min_confidence=0.8, draw_all=True)
    assert caplog.messages[1:3] == [
        "手写.png  2      90.00%       3  7.00%   perhaps 1 more digit; split=true reads them",
        "a         1      45.00%       3  40.00%  uncertain, perhaps 2 more digits; split=true reads them",
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"scan_\xe9.png", "scan_?.png"), (b"\x1b[2J.png", "?[2J.png"), ("扫描.png".encode(), "扫描.png")],
)
def test_any_file_name_is_reported_and_does_not_control_the_terminal(
    name: bytes, shown: str, predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        readings.report(tmp_path, predictor, [reading(os.fsdecode(name), SURE + [0.0] * 6)], 0.8)
    assert caplog.messages[1].split()[0] == shown
    assert name in (tmp_path / "predictions.csv").read_bytes()
    assert (tmp_path / "predictions.png").is_file()


def test_figure_shows_original_input_and_highest_scores_of_each_digit(tmp_path: Path) -> None:
    found = [reading("sure.png", SURE), reading("un $x.png", UNSURE), reading("two.png", SURE, UNSURE)]
    found.append(Reading(Path("none.png"), error="no digit found"))
    figure = page(readings.table(found, list("0123"), 0.8), True)
    (axes,) = figure.axes
    names = ["sure.png", "un $x.png", "two.png, 1", "two.png, 2"]
    results = ["2: 90.00%\n3: 7.00%", "1: 45.00% – uncertain\n3: 40.00%"] * 2
    pairs = zip(names, results, strict=True)
    texts = [text.get_text() for text in axes.texts]
    assert texts == [*(text for pair in pairs for text in pair), "none.png", "no digit found"]
    assert len(axes.images) == 2 * 4 + 1
    assert len(axes.patches) == 2 * 2 + 1  # frames
    assert not any(text.get_parse_math() for text in axes.texts if "$" in text.get_text())
    figures.save(figure, tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        assert image.width > image.height


def test_long_names_and_outputs_that_are_not_probabilities_fit_the_page(tmp_path: Path) -> None:
    classes = ["a long name of a class, 1", "b" * 50, "c"]
    figure = page(readings.table([reading("d" * 100, [-0.5, 0.25, 1.5])], classes, 0.8), False)
    figures.save(figure, tmp_path / "page.png")
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)
    assert "c: 1.500\n" in figure.axes[0].texts[1].get_text()


def test_figures_of_many_files_show_the_first_and_what_is_uncertain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.load(write_checkpoint(tmp_path / "a.ckpt"))
    scores = np.full((5, 10), 0.01, np.float32)
    scores[:, 3] = [0.9, 0.9, 0.9, 0.5, 0.9]
    images = np.zeros((1, 1, 28, 28), np.uint8)
    found = [Reading(Path(f"{i}.png"), images=images, scores=scores[i : i + 1]) for i in range(5)]
    drawn: list[str] = []
    monkeypatch.setattr(readings, "PANELS", 2)
    monkeypatch.setattr(readings, "page", lambda rows, *_: drawn.extend(str(r.reading.file) for r in rows))
    monkeypatch.setattr(readings.figures, "save", lambda *_: None)
    readings.report(tmp_path, predictor, found, min_confidence=0.8, draw_all=False)
    assert drawn == ["0.png", "1.png", "3.png"]
