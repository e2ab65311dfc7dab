"""The interface between `hydra_sweeps` and an app: all that an app may import of this package.

**A run is a folder**, the one that Hydra gives the job, with these files:

- `.hydra/overrides.yaml`: written by Hydra.
- `.hydra/resolved.yaml` (`RESOLVED`): the settings without interpolations, written when the job starts.
- `metrics.json` (`METRICS`): a flat dict, written at the end of a run. `"status": "pruned"` marks a run that
  its search has stopped. `"epochs"` is the number of epochs trained.
- `failed.json` (`FAILED`): `{"error": message}`, written if the run fails; by the sweep for a job that could
  not write it.
- `history.json` (`HISTORY`): a list with one dict per epoch, `{"epoch": 1, "val/acc": 0.9}`, rewritten after
  each epoch. Metrics with a slash in their name are known after each epoch, others only at the end.
- `checkpoints/best.ckpt`, `checkpoints/last.ckpt`: optional.

**The app's config** has these keys:

- `objective: {metric: val/acc, mode: max}`: how runs are compared. `mode` is max or min.
- `sweep: {resume: null, fail_fast: false, metrics: [...], ignore: [...]}`: `metrics` are the columns of the
  report in addition to the objective; `ignore` lists the settings that say where a run happens, not what it
  learns. They count where they are swept.
- `hparams`: what identifies a run in tables and figures. With `max_epochs` the report tells what pruning has
  saved.
- `seed`: runs that differ in nothing else are one row of the table.
- `trust` (optional): packages of which a run may name classes; never taken from the folder of a sweep.
- `resume` (optional): a run's folder. The app then takes its settings from `RESOLVED` in that folder, and
  continues there. Without this key an interrupted job starts again.

**The app's entry point** passes its command line through `resume_arguments`, and shows a `SweepError` to the
user without a traceback.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

METRICS = "metrics.json"
FAILED = "failed.json"
HISTORY = "history.json"
RESOLVED = Path(".hydra") / "resolved.yaml"

# In the environment of each job: JSON with "folder" (of the run), and in a search that prunes "sweep" (its
# folder), "trial" (number in the study) and "metric".
JOB_VARIABLE = "HYDRA_SWEEPS_JOB"


class SweepError(Exception):
    """An error that the user can fix; its message is meant to be shown without a traceback."""


class Trial:
    """The trial of the current job in its search.

    `metric` is the one to report after each epoch. Under several processes per job only the first may
    report.
    """

    def __init__(self, sweep: Path, number: int, metric: str) -> None:
        self.metric = metric
        self._sweep = sweep
        self._number = number
        self._trial: optuna.Trial | None = None

    def report(self, value: float, epoch: int) -> bool:
        """Report `metric` after `epoch`, counted from 1; return whether the job should stop.

        Raises `SweepError` if the study cannot be reached.
        """
        from hydra_sweeps import search

        if self._trial is None:
            self._trial = search.attach(self._sweep, self._number)
        return search.report(self._trial, value, epoch)


def current_trial() -> Trial | None:
    """Return the trial of this job, or None if it is not a job of a search that prunes."""
    job = _current_job()
    return Trial(Path(job["sweep"]), job["trial"], job["metric"]) if "trial" in job else None


def in_sweep() -> bool:
    """Return whether this process runs a job of a sweep, whose errors the sweep reports."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.get().mode is RunMode.MULTIRUN or bool(_current_job())


def quote(value: object) -> str:
    """Quote a value for Hydra's command line, where commas and equal signs have a meaning."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(str(value), Quote.single).with_quotes()


def unquote(value: str) -> str:
    """Return a value of Hydra's command line without the quotes around it, if there are any."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if value.startswith(("'", '"')):
        with suppress(HydraException):  # only a part of it is quoted
            override = OverridesParser.create().parse_override(f"x={value}")
            return value if override.is_sweep_override() else str(override.value())
    return value


def resume_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the command line that resumes the sweep of `sweep.resume=FOLDER`; any other is unchanged.

    The folder is given as a shell completes it, with or without Hydra's quotes. Other arguments replace
    those that the sweep was started with. Raises `SweepError` if FOLDER is not a sweep.
    """
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "sweep.resume" and value not in ("", "null"):
            from hydra_sweeps import definition

            others = [one for one in arguments if one not in (argument, "-m", "--multirun")]
            return ["-m", *definition.arguments_to_resume(Path(unquote(value)), others)]
    return list(arguments)


def _current_job() -> dict[str, Any]:
    """Return the content of `JOB_VARIABLE` if it was set for the run of this process."""
    from hydra.core.hydra_config import HydraConfig

    job: dict[str, Any] = json.loads(os.environ.get(JOB_VARIABLE, "{}"))
    # A process that a job has started, or that a launcher reuses for several jobs, inherits the variable.
    return job if job and job["folder"] == HydraConfig.get().runtime.output_dir else {}
