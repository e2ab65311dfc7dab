"""The metrics of a run as a CSV file."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from mnist_cnn.files import atomic_write


class CSVLogger(Logger):
    """Writes `metrics.csv` in `save_dir`, one row per epoch.

    A row holds the metrics that are logged with an "epoch" beside them; others, such as the learning rate by
    step, are left out. Lightning's `CSVLogger` starts a new file when a run is resumed, and writes a row per
    split.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self.rows: dict[int, dict[str, Any]] = {}  # by epoch

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def begin(self, step: int) -> None:
        """Keep the rows of an earlier process of this run up to global step `step`."""
        if step and self.path.exists():
            with self.path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
            self.rows = {int(row["epoch"]): row for row in kept}

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Do nothing: the run folder holds the settings in `.hydra/`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if "epoch" in metrics:
            epoch = int(metrics["epoch"])
            self.rows.setdefault(epoch, {}).update(metrics, epoch=epoch, step=step)

    @rank_zero_only
    def save(self) -> None:
        """Write the file, atomically."""
        if not self.rows:
            return
        rows = [self.rows[epoch] for epoch in sorted(self.rows)]
        columns = dict.fromkeys(["epoch", "step"])
        for row in rows:
            columns.update(dict.fromkeys(row))
        with atomic_write(self.path) as aside, aside.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(rows)
