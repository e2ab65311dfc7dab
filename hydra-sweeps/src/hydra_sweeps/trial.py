"""The trial of a job in its search, to which the job reports."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hydra_sweeps.contract import current_job


@dataclass(eq=False)
class Trial:
    """The trial of the current job in its search.

    `metric` is the one to report after each epoch, and `value` the last that was reported. `pruned` tells
    whether the job should stop. Under several processes per job only the first may report.
    """

    sweep: str
    number: int
    metric: str
    value: float | None = None
    pruned: bool = False

    def report(self, value: float, epoch: int) -> bool:
        """Report `metric` after `epoch`, counted from 1; return whether the job should stop."""
        from hydra_sweeps import study  # takes a second

        trial = study.attach(Path(self.sweep), self.number)
        with study.quiet():
            trial.report(value, epoch)
        self.value, self.pruned = value, trial.should_prune()
        return self.pruned


def current_trial() -> Trial | None:
    """Return the trial of this job, or None if it is not a job of a search that prunes."""
    job = current_job()
    if job is None or job.sweep is None or job.trial is None or job.metric is None:
        return None
    return _trial(job.sweep, job.trial, job.metric)


_trial = lru_cache(maxsize=1)(Trial)  # the one of the job, so that others see what it was told
