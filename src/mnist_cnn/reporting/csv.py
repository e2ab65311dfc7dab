"""The curves of a run as two CSV files."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from mnist_cnn.files import atomic_write

SPLITS = ("train/", "val/", "test/")


class CSVLogger(Logger):
    """Writes `metrics.csv`, one row per epoch, and `steps.csv`, one row per window of steps.

    Lightning's `CSVLogger` starts a new file when a run is resumed and writes one row per split.
    `first_epoch` is above 1 in a resumed run: the rows from that epoch on are replaced.
    """

    def __init__(self, run_dir: str | Path, first_epoch: int = 1) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self.steps_path = Path(run_dir) / "steps.csv"
        self.rows: dict[int, dict[str, Any]] = {}
        self.step_rows: dict[int, dict[str, Any]] = {}
        if first_epoch > 1 and self.path.exists():
            with self.path.open(newline="") as file:
                rows = {int(row["epoch"]): row for row in csv.DictReader(file)}
            self.rows = {epoch: row for epoch, row in rows.items() if epoch < first_epoch}

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Do nothing: the run folder holds the settings in `.hydra/`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add `metrics` to the row of epoch `step`.

        Metrics of no split, as of Lightning's LearningRateMonitor, are of the global step `step`.
        """
        assert step is not None
        by_epoch = {name: value for name, value in metrics.items() if name.startswith(SPLITS)}
        if by_epoch:
            self.rows.setdefault(step, {"epoch": step}).update(by_epoch)
        if len(by_epoch) < len(metrics):
            others = {name: value for name, value in metrics.items() if name not in by_epoch}
            self.log_step_metrics(others, step)

    @rank_zero_only
    def log_step_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Add `metrics` to the row of global step `step`."""
        self.step_rows.setdefault(step, {"step": step}).update(metrics)

    @rank_zero_only
    def restore_step_metrics(self, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Take over the points (global step, metrics) that were logged before the run was resumed."""
        for step, metrics in points:
            self.log_step_metrics(metrics, step)

    @rank_zero_only
    def save(self) -> None:
        """Write both files, each atomically."""
        _write(self.path, [self.rows[epoch] for epoch in sorted(self.rows)])
        if self.step_rows:
            _write(self.steps_path, self.step_rows.values())


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as aside, aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
