"""metrics.csv: a row an epoch, also over a resume."""

import csv
from pathlib import Path

from mnist_cnn.reporting.csv import CSVLogger


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_metrics_of_an_epoch_are_one_row(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"val/loss": 0.5}, step=1)
    logger.log_metrics({"train/loss": 0.25}, step=1)
    logger.save()
    assert rows(tmp_path) == [{"epoch": "1", "val/loss": "0.5", "train/loss": "0.25"}]


def test_a_resumed_run_keeps_the_epochs_before_it_and_no_others(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    for epoch in (1, 2, 3):
        logger.log_metrics({"train/loss": 1 / epoch}, step=epoch)
    logger.save()
    resumed = CSVLogger(tmp_path, first_epoch=3)
    resumed.log_metrics({"train/loss": 9.0, "test/acc": 0.5}, step=3)
    resumed.save()
    assert [(row["epoch"], row["train/loss"], row["test/acc"]) for row in rows(tmp_path)] == [
        ("1", "1.0", ""),
        ("2", "0.5", ""),
        ("3", "9.0", "0.5"),
    ]


def test_a_new_run_in_an_old_folder_starts_a_new_file(tmp_path: Path) -> None:
    for loss in (1.0, 2.0):
        logger = CSVLogger(tmp_path)
        logger.log_metrics({"train/loss": loss}, step=1)
        logger.save()
    assert [row["train/loss"] for row in rows(tmp_path)] == ["2.0"]
