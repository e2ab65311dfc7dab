"""metrics.csv and steps.csv, also after a resume."""

import csv
from pathlib import Path

from mnist_cnn.reporting.csv import CSVLogger


def rows(run_dir: Path, name: str = "metrics.csv") -> list[dict[str, str]]:
    with (run_dir / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_of_epoch_form_one_row(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"val/loss": 0.5}, step=1)
    logger.log_metrics({"train/loss": 0.25}, step=1)
    logger.save()
    assert rows(tmp_path) == [{"epoch": "1", "val/loss": "0.5", "train/loss": "0.25"}]


def test_resumed_run_keeps_earlier_epochs_only(tmp_path: Path) -> None:
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


def test_new_run_in_same_folder_starts_new_file(tmp_path: Path) -> None:
    for loss in (1.0, 2.0):
        logger = CSVLogger(tmp_path)
        logger.log_metrics({"train/loss": loss}, step=1)
        logger.save()
    assert [row["train/loss"] for row in rows(tmp_path)] == ["2.0"]


def test_step_metrics_have_their_own_file(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"train/loss": 0.5}, step=1)
    logger.save()
    assert not (tmp_path / "steps.csv").exists()
    logger.log_step_metrics({"lr": 0.1}, step=50)
    logger.save()
    assert rows(tmp_path, "steps.csv") == [{"step": "50", "lr": "0.1"}]
    assert rows(tmp_path) == [{"epoch": "1", "train/loss": "0.5"}]


def test_metric_of_no_split_belongs_to_a_step(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"lr-SGD": 0.1}, step=50)  # as Lightning's LearningRateMonitor does
    logger.save()
    assert rows(tmp_path, "steps.csv") == [{"step": "50", "lr-SGD": "0.1"}]
    assert rows(tmp_path) == []


def test_restored_step_metrics_replace_those_of_interrupted_run(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    for step in (50, 100, 150):
        logger.log_step_metrics({"lr": 0.1}, step)
    logger.save()
    resumed = CSVLogger(tmp_path, first_epoch=2)
    resumed.restore_step_metrics([(50, {"lr": 0.1}), (100, {"lr": 0.1})])
    resumed.log_step_metrics({"lr": 0.2}, 150)
    resumed.save()
    assert [(row["step"], row["lr"]) for row in rows(tmp_path, "steps.csv")] == [
        ("50", "0.1"),
        ("100", "0.1"),
        ("150", "0.2"),
    ]
