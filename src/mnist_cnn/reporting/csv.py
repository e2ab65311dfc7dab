"""The curves of a run as one CSV file."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from mnist_cnn.files import atomic_write


class CSVLogger(Logger):
    """Writes `metrics.csv` into the run's folder: a row an epoch, a column a metric.

    Lightning's own logger of this name begins a new file when a run is resumed, and writes a row a
    split. `first_epoch` is above 1 in a resumed run: rows from that epoch on are written anew.
    """

    def __init__(self, run_dir: str | Path, first_epoch: int = 1) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self.rows: dict[int, dict[str, Any]] = {}
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
        """Do nothing: the settings have their own file in the run's folder."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add `metrics` to the row of epoch `step`."""
        assert step is not None
        self.rows.setdefault(step, {"epoch": step}).update(metrics)

    @rank_zero_only
    def save(self) -> None:
        """Write the file aside and put it in place."""
        columns = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        with atomic_write(self.path) as aside, aside.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows[epoch] for epoch in sorted(self.rows))
