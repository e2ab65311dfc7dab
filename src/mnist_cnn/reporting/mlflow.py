"""MLflow with one local store for all runs: a resumed run continues its MLflow run."""

import os
from argparse import Namespace
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from mnist_cnn.errors import UserError, one_line

SQLITE = "sqlite:///"
SQLITE_OPTIONS = "?timeout=60"  # seconds to wait for another process that is writing
TAG = "mnist_cnn.run"  # by which a resumed run is found


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger for the run in the folder `save_dir`, safe in concurrent jobs.

    `tracking_uri` is a SQLite file (`sqlite:///PATH`), which is created on first use, or the address of a
    server. Figures and the settings go to `artifact_location`, a folder or URI; None leaves the choice to
    the server.
    """

    def __init__(
        self,
        save_dir: str,
        tracking_uri: str,
        experiment_name: str = "mnist-cnn",
        artifact_location: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        folder = Path(save_dir).absolute()
        identity = f"{folder.parent.name}/{folder.name}".replace("'", "-")  # for the search
        # MLflow would announce that it creates the tables of its store.
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        local = tracking_uri.startswith(SQLITE)
        with _lock(tracking_uri.removeprefix(SQLITE)) if local else nullcontext():
            tracking_uri += SQLITE_OPTIONS if local else ""
            run_id = _find_run(tracking_uri, experiment_name, artifact_location, identity)
            super().__init__(
                experiment_name,
                run_name=folder.name,
                tracking_uri=tracking_uri,
                tags={**(tags or {}), TAG: identity},
                artifact_location=artifact_location,
                run_id=run_id,
            )
        self.continues = run_id is not None

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


def _find_run(uri: str, experiment_name: str, artifact_location: str | None, identity: str) -> str | None:
    """Create the experiment if it is missing; return the id of the run `identity`, None if it is new."""
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError as error:
        raise UserError(
            "logger=mlflow needs the package mlflow. Install it with: pip install -e '.[mlflow]'"
        ) from error
    client = MlflowClient(uri)
    try:
        experiment = client.get_experiment_by_name(experiment_name)
        if experiment is None:
            client.create_experiment(experiment_name, artifact_location)
            return None
        found = client.search_runs([experiment.experiment_id], f"tags.`{TAG}` = '{identity}'")
    except MlflowException as error:
        raise UserError(f"logger=mlflow cannot use {uri}: {one_line(error)}") from error
    return str(found[0].info.run_id) if found else None


def _lock(database: str) -> AbstractContextManager[Any]:
    """Return a lock on a SQLite store: the jobs of a sweep start together, and one of them creates it."""
    path = Path(database)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")
