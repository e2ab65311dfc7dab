"""The files of a run, for an app that only returns its result."""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_sweeps.contract import METRICS, OVERRIDES, RESOLVED, RESULT
from hydra_sweeps.files import write_json, write_yaml
from hydra_sweeps.outcome import error_of, record_failure, remove_result
from hydra_sweeps.trial import current_trial

log = logging.getLogger(__name__)


class RunFiles(Callback):
    """Writes the settings and overrides, and `metrics.json` or `failed.json`, into the folder of each job.

    The app returns a number, or a dict of numbers; anything else is no result. A `metrics.json` that it has
    written itself is kept.
    """

    def on_job_start(self, config: DictConfig, *, task_function: TaskFunction, **kwargs: Any) -> None:
        self.began = time.monotonic()
        folder = Path(config.hydra.runtime.output_dir)
        remove_result(folder)  # of an earlier start
        resume = config.get("resume")
        goes_on = isinstance(resume, str) and os.path.realpath(resume) == os.path.realpath(folder)
        if goes_on and (folder / RESOLVED).is_file():
            return  # it has its settings
        settings = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        (folder / RESOLVED).parent.mkdir(exist_ok=True)
        write_yaml(folder / OVERRIDES, config.hydra.overrides.task)
        try:
            write_yaml(folder / RESOLVED, settings, resolve=True)
        except OmegaConfBaseException as error:
            log.warning(f"The settings are written with interpolations: {error}")
            write_yaml(folder / RESOLVED, settings)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        folder = Path(config.hydra.runtime.output_dir)
        error = error_of(job_return)
        if error is not None:
            record_failure(folder, error)
        elif not (folder / METRICS).exists():
            write_json(folder / METRICS, self._metrics(config, job_return.return_value))

    def _metrics(self, config: DictConfig, returned: object) -> dict[str, Any]:
        """Return the content of metrics.json."""
        objective = config.get("objective")
        name = objective.get("metric", RESULT) if OmegaConf.is_dict(objective) else RESULT
        found = returned if isinstance(returned, Mapping) else {name: returned}
        metrics: dict[str, Any] = {str(k): n for k, v in found.items() if (n := _number(v)) is not None}
        if (trial := current_trial()) is not None:
            if trial.value is not None:
                metrics.setdefault(trial.metric, trial.value)
            if trial.pruned:
                metrics["status"] = "pruned"
        return metrics | {"seconds": round(time.monotonic() - self.began, 3)}


def _number(value: Any) -> int | float | None:
    """Return a number, also of NumPy or a tensor, and None for anything else."""
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return None
