"""What an app and its sweep agree on.

**A run is a folder**, the one that Hydra gives the job, with these files:

- `.hydra/overrides.yaml` (`OVERRIDES`): written by Hydra.
- `.hydra/resolved.yaml` (`RESOLVED`): the settings without interpolations, written when the job starts.
- `metrics.json` (`METRICS`): a flat dict, written at the end of a run. `"status": "pruned"` marks a run that
  its search has stopped. `"epochs"` is the number of epochs trained.
- `failed.json` (`FAILED`): `{"error": message, "traceback": text}`, written if the run fails; by the sweep
  for a job that could not write it.
- `history.json` (`HISTORY`), optional: a list with one dict per epoch, `{"epoch": 1, "val/acc": 0.9}`,
  rewritten after each epoch. Metrics with a slash in their name are known after each epoch, others only at
  the end.

The callback `hydra/callbacks=run_files` writes them for an app that returns its result.

**The app's config** may have these keys:

- `objective: {metric: val/acc, mode: max}`: how runs are compared. `mode` is max or min. Without it the
  number that the app returns is the metric `result`, and less is better.
- `sweep`: see `conf/sweep/default.yaml`.
- `hparams`: what identifies a run in tables and figures, in addition to what was set. With `max_epochs` the
  report tells what pruning has saved.
- `seed`: runs that differ in nothing else are one row of the table.
- `resume`, with `sweep.resume_jobs: true`: the folder of a run. A job that has begun before gets its folder
  here, and of the overrides those of `sweep.ignore` alone; it takes its settings from `RESOLVED` in it, and
  continues there. Otherwise an interrupted job starts again.
- `trust`: packages of which a run may name classes; never taken from the folder of a sweep.

An exception that is no `Exception` interrupts a sweep whose jobs run in its own process, and may have an
attribute `exit_code`; elsewhere it is a failed job.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode

METRICS = "metrics.json"
FAILED = "failed.json"
HISTORY = "history.json"
RESOLVED = Path(".hydra") / "resolved.yaml"
OVERRIDES = Path(".hydra") / "overrides.yaml"

RESULT = "result"  # the metric of an app that returns a number, without an objective in its config

# Packages that are needed for some choices only, and the extra of this distribution that has them.
EXTRAS = {
    **{"optuna": "optuna", "cmaes": "optuna", "scipy": "optuna", "psycopg": "postgresql"},
    **{"matplotlib": "matplotlib", "submitit": "submitit", "ray": "ray"},
}

_VARIABLE = "HYDRA_SWEEPS_JOB"  # in the environment of each job: a `CurrentJob` as JSON


class SweepError(CompactHydraException):
    """An error that the user can fix; its message is meant to be shown without a traceback."""


def integer(name: str, value: object, least: int = 1) -> int:
    """Return `value`; raises `SweepError` unless it is an integer and not less than `least`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise SweepError(f"{name}={value}: it must be an integer greater than or equal to {least}.")


@dataclass(frozen=True)
class Job:
    """One job of a sweep: the overrides `chosen` for it, and in a search the number of its trial."""

    number: int
    chosen: Sequence[str]
    trial: int | None = None


@dataclass(frozen=True)
class CurrentJob:
    """The job that a process runs, and in a search that prunes the sweep, the trial, and what to report."""

    folder: str
    sweep: str | None = None
    trial: int | None = None
    metric: str | None = None

    def environment(self) -> dict[str, str]:
        """Return the variables with which `current_job` finds this job."""
        return {_VARIABLE: json.dumps(asdict(self))}


def current_job() -> CurrentJob | None:
    """Return the job of a sweep that this process runs; None outside of a sweep."""
    text = os.environ.get(_VARIABLE)
    if text is None or not HydraConfig.initialized():
        return None
    job = CurrentJob(**json.loads(text))
    # A process that a job has started, or that a launcher reuses for several jobs, inherits the variable.
    here = HydraConfig.get().runtime.output_dir
    return job if os.path.realpath(job.folder) == os.path.realpath(here) else None


def in_sweep() -> bool:
    """Return whether this process runs a job of a sweep, whose errors the sweep reports."""
    is_sweep = HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN
    return is_sweep or current_job() is not None


def explained(error: BaseException) -> SweepError | None:
    """Return what a user can do about a missing package or a database; None about any other error."""
    cause: BaseException | None = None if isinstance(error, CompactHydraException) else error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError):
            package = str(cause.name).partition(".")[0]
            extra = f"'hydra-sweeps[{EXTRAS[package]}]', or {package} alone" if package in EXTRAS else package
            return SweepError(f"{package} is not installed: pip install {extra}.")
        if type(cause).__module__.startswith("sqlalchemy."):
            said = str(getattr(cause, "orig", None) or cause).strip().split("\n")[0]
            return SweepError(
                f"hydra.sweeper.storage cannot be used: {said}. It is a URL such as sqlite:///study.db or "
                "postgresql://user:password@host/database; null keeps a file in the sweep's folder."
            )
        cause = cause.__cause__
    return None
