"""MLflow with one local store for all runs."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

SQLITE = "sqlite:///"
SQLITE_OPTIONS = "?timeout=60"  # seconds to wait for another process that is writing
TAG = "mnist_cnn.run"  # by which a resumed run is found


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger, safe in concurrent jobs, whose resumed run continues its MLflow run.

    `tracking_uri` is a SQLite file (`sqlite:///PATH`), which is created on first use, or the address of a
    server. Figures and the settings go to `artifact_location`, a folder or URI.
    """

    def __init__(
        self,
        run_dir: str | Path,
        tracking_uri: str,
        experiment_name: str = "mnist-cnn",
        artifact_location: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        folder = Path(run_dir)
        # mlflow would announce that it creates the tables of its store
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        options = SQLITE_OPTIONS if tracking_uri.startswith(SQLITE) else ""
        identity = f"{folder.absolute().parent.name}/{folder.name}".replace("'", "-")  # for the search
        with _locked(tracking_uri):
            super().__init__(
                experiment_name,
                run_name=folder.name,
                tracking_uri=tracking_uri + options,
                tags={**(tags or {}), TAG: identity},
                artifact_location=artifact_location,
            )

    @rank_zero_only
    def log_settings(self, hparams: Mapping[str, Any], config: str) -> None:
        """Start the MLflow run, or continue it if the run is resumed, and write its settings.

        `hparams` become MLflow's parameters, and `config` (YAML) the artifact `config.yaml`.
        """
        with _locked(self._tracking_uri.removesuffix(SQLITE_OPTIONS)):
            run_id = self._find_run()
        if run_id is None:
            self.log_hyperparams(dict(hparams))  # starts the run
        else:
            self._run_id = run_id  # the parameters of an MLflow run cannot be changed
            self.experiment.update_run(run_id, status="RUNNING")
        assert self.run_id is not None
        self.experiment.log_text(self.run_id, config, "config.yaml")

    def _find_run(self) -> str | None:
        """Create the experiment if it is missing; return the id of this run if it was started before."""
        client, name = self._mlflow_client, self._experiment_name
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            client.create_experiment(name, artifact_location=self._artifact_location)
            return None
        assert self.tags is not None
        found = client.search_runs([experiment.experiment_id], f"tags.`{TAG}` = '{self.tags[TAG]}'")
        return str(found[0].info.run_id) if found else None


def _locked(tracking_uri: str) -> AbstractContextManager[Any]:
    """Return a lock on a SQLite store: the jobs of a sweep start together, and one of them creates it."""
    if not tracking_uri.startswith(SQLITE):
        return nullcontext()
    path = Path(tracking_uri.removeprefix(SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")
