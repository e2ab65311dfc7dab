"""metrics.csv, also after a resume."""

import csv
from pathlib import Path

import pytest

from mnist_cnn.reporting.csv import CSVLogger


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_of_epoch_form_one_row_and_others_none(tmp_path: Path) -> None:
    logger = CSVLogger(str(tmp_path))
    logger.log_metrics({"epoch": 1.0, "val/loss": 0.5}, step=20)
    logger.log_metrics({"lr-SGD": 0.1}, step=20)  # as Lightning's LearningRateMonitor does
    logger.log_metrics({"epoch": 1.0, "train/loss": 0.25}, step=20)
    logger.save()
    assert rows(tmp_path) == [{"epoch": "1", "step": "20", "val/loss": "0.5", "train/loss": "0.25"}]


@pytest.mark.parametrize(("resumed_at", "kept"), [(0, []), (25, ["1.0", "0.5"])])
def test_rows_after_the_step_of_a_resume_are_replaced(
    resumed_at: int, kept: list[str], tmp_path: Path
) -> None:
    logger = CSVLogger(str(tmp_path))
    for epoch in (1, 2, 3):
        logger.log_metrics({"epoch": epoch, "train/loss": 1 / epoch}, step=10 * epoch)
    logger.save()
    resumed = CSVLogger(str(tmp_path))
    resumed.begin(resumed_at)
    resumed.log_metrics({"epoch": 4, "train/loss": 9.0, "test/acc": 0.5}, step=40)
    resumed.save()
    assert [row["train/loss"] for row in rows(tmp_path)] == [*kept, "9.0"]
    assert rows(tmp_path)[-1] == {"epoch": "4", "step": "40", "train/loss": "9.0", "test/acc": "0.5"}
