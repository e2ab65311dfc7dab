"""MLflow with one local store for all runs: a resumed run continues its MLflow run."""

import importlib
import os
from argparse import Namespace
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from mnist_cnn.errors import needs_extra

SQLITE = "sqlite:///"
SQLITE_OPTIONS = "?timeout=60"  # seconds to wait for another process that is writing


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger for the run in the folder `save_dir`, safe in concurrent jobs.

    `tracking_uri` is a SQLite file (`sqlite:///PATH`), which is created on first use, or the address of a
    server. Figures and the settings go to `artifact_location`, a folder or URI; None leaves the choice to
    the server. The id of the MLflow run is kept in the file `mlflow_run` of the folder.
    """

    def __init__(
        self,
        save_dir: str,
        tracking_uri: str,
        experiment_name: str = "mnist-cnn",
        artifact_location: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        self.id_file = Path(save_dir, "mlflow_run")
        self.continues = self.id_file.exists()
        self.database = tracking_uri.removeprefix(SQLITE) if tracking_uri.startswith(SQLITE) else None
        # MLflow would announce that it creates the tables of its store.
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        with needs_extra("mlflow", "logger=mlflow"):
            importlib.import_module("mlflow")
        with self._lock():
            super().__init__(
                experiment_name,
                run_name=Path(save_dir).name,
                tracking_uri=tracking_uri + (SQLITE_OPTIONS if self.database else ""),
                tags=dict(tags or {}),
                artifact_location=artifact_location,
                run_id=self.id_file.read_text() if self.continues else None,
            )

    def _lock(self) -> AbstractContextManager[Any]:
        """Lock a SQLite store: the jobs of a sweep start together, and one of them creates it."""
        if self.database is None:
            return nullcontext()
        Path(self.database).parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{self.database}.lock")

    @rank_zero_only
    def begin(self, step: int) -> None:
        """Create the MLflow run and its experiment, or continue the run."""
        with self._lock():
            assert self.run_id is not None
        self.id_file.write_text(self.run_id)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Write the settings as parameters of MLflow, which cannot be changed when a run continues."""
        if self.continues:
            assert self.run_id is not None
            self.experiment.update_run(self.run_id, status="RUNNING")
        else:
            super().log_hyperparams(params)

    @rank_zero_only
    def log_config(self, config: str) -> None:
        """Write the whole config as the artifact `config.yaml`."""
        assert self.run_id is not None
        self.experiment.log_text(self.run_id, config, "config.yaml")
