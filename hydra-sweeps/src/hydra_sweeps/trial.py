"""The trial of a job in its search, to which the job reports."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hydra_sweeps.contract import current_job

if TYPE_CHECKING:
    import optuna


class Trial:
    """The trial of the current job in its search.

    `metric` is the one to report after each epoch, and `value` the last that was reported. `pruned` tells
    whether the job should stop. Under several processes per job only the first may report.
    """

    def __init__(self, sweep: Path, number: int, metric: str) -> None:
        self.metric = metric
        self.value: float | None = None
        self.pruned = False
        self._sweep = sweep
        self._number = number
        self._trial: optuna.Trial | None = None

    def report(self, value: float, epoch: int) -> bool:
        """Report `metric` after `epoch`, counted from 1; return whether the job should stop.

        Raises `SweepError` if the study cannot be reached.
        """
        from hydra_sweeps import study  # takes a second

        if self._trial is None:
            self._trial = study.attach(self._sweep, self._number)
        self.value = value
        self.pruned = study.report(self._trial, value, epoch)
        return self.pruned


def current_trial() -> Trial | None:
    """Return the trial of this job, or None if it is not a job of a search that prunes."""
    job = current_job()
    if job is None or job.sweep is None or job.trial is None or job.metric is None:
        return None
    return _trial(job.folder, job.sweep, job.trial, job.metric)


@cache
def _trial(folder: str, sweep: str, number: int, metric: str) -> Trial:
    """Return the one trial of a job, so that others see what it was told."""
    return Trial(Path(sweep), number, metric)
