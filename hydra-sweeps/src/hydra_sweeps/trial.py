"""The trial of a job in its search, to which the job reports."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hydra_sweeps.contract import CurrentJob, current_job

if TYPE_CHECKING:
    import optuna


class Trial:
    """The trial of the current job in its search.

    `metric` is the one to report after each epoch, and `value` the last that was reported. `pruned` tells
    whether the job should stop. Under several processes per job only the first may report.
    """

    def __init__(self, job: CurrentJob) -> None:
        self.metric = str(job.metric)
        self.value: float | None = None
        self.pruned = False
        self._job = job
        self._trial: optuna.Trial | None = None

    def report(self, value: float, epoch: int) -> bool:
        """Report `metric` after `epoch`, counted from 1; return whether the job should stop."""
        from hydra_sweeps import study  # takes a second

        if self._trial is None:
            self._trial = study.attach(Path(str(self._job.sweep)), int(self._job.trial or 0))
        self.value = value
        self.pruned = study.report(self._trial, value, epoch)
        return self.pruned


def current_trial() -> Trial | None:
    """Return the trial of this job, or None if it is not a job of a search that prunes."""
    job = current_job()
    return None if job is None or job.trial is None else _trial(job)


@cache
def _trial(job: CurrentJob) -> Trial:
    """Return the one trial of a job, so that others see what it was told."""
    return Trial(job)
