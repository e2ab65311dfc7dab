"""What all launchers of this project have in common."""

from collections.abc import Iterable, Iterator, Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict

Jobs = Iterable[tuple[int, Sequence[str]]]
Results = Iterator[tuple[int, JobReturn]]


class StreamingLauncher(Launcher):
    """A launcher that need not know all jobs of a sweep when it begins."""

    def stream(self, jobs: Jobs) -> Results:
        """Run jobs (number, overrides), and yield each when it ends.

        The next is taken from `jobs` when there is a place for it, so that it can be decided then.
        """
        raise NotImplementedError

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs, and return what they gave in the order in which they were given."""
        results = dict(self.stream(enumerate(job_overrides, initial_job_idx)))
        return [results[number] for number in sorted(results)]


def composed(loader: ConfigLoader, sweep: DictConfig, number: int, overrides: Sequence[str]) -> DictConfig:
    """Return the settings of the job `number` of a sweep."""
    config = loader.load_sweep_config(sweep, list(overrides))
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    return config


def failed(error: Exception, overrides: Sequence[str] = ()) -> JobReturn:
    """Return how Hydra has it that a job failed."""
    result = JobReturn(overrides=list(overrides), status=JobStatus.FAILED)
    result.return_value = error
    return result
