"""The files of a run, for an app that only returns its result."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_sweeps.contract import FAILED, METRICS, RESOLVED, RESULT
from hydra_sweeps.files import write_json, write_yaml
from hydra_sweeps.outcome import error_of, record_failure
from hydra_sweeps.trial import current_trial


class RunFiles(Callback):
    """Writes `resolved.yaml`, and `metrics.json` or `failed.json`, into the folder of each job.

    The app returns a number, or a dict of numbers, or None. Files that it has written itself are kept.
    """

    def on_job_start(self, config: DictConfig, *, task_function: TaskFunction, **kwargs: Any) -> None:
        self.began = time.monotonic()
        folder = Path(config.hydra.runtime.output_dir)
        (folder / FAILED).unlink(missing_ok=True)
        if config.get("resume") and (folder / RESOLVED).is_file():
            return  # a job that goes on has its settings
        settings = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        (folder / RESOLVED).parent.mkdir(exist_ok=True)
        write_yaml(folder / RESOLVED, OmegaConf.to_container(settings, resolve=True, enum_to_str=True))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        folder = Path(config.hydra.runtime.output_dir)
        error = error_of(job_return)
        if error is not None:
            record_failure(folder, error)
        elif not (folder / METRICS).exists():
            write_json(folder / METRICS, self._metrics(config, job_return.return_value))

    def _metrics(self, config: DictConfig, returned: object) -> dict[str, Any]:
        """Return the content of metrics.json."""
        name = OmegaConf.select(config, "objective.metric", default=RESULT)
        found = returned if isinstance(returned, Mapping) else {name: returned}
        metrics = {str(key): value for key, value in found.items() if value is not None}
        if (trial := current_trial()) is not None:
            if trial.value is not None:
                metrics.setdefault(trial.metric, trial.value)
            if trial.pruned:
                metrics["status"] = "pruned"
        return metrics | {"seconds": round(time.monotonic() - self.began, 3)}
