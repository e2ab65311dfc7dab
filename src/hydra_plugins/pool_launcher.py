"""`hydra/launcher=pool`: several jobs of a sweep at a time on one machine."""

from collections.abc import Iterable, Iterator, Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PoolLauncher(Launcher):
    """Hydra's side of `mnist_cnn.sweeps.pool`."""

    def __init__(self, n_jobs: int | str = "auto", threads: int | str = "auto") -> None:
        self.n_jobs = n_jobs
        self.threads = threads

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from mnist_cnn.sweeps.pool import Pool, Size

        self.pool = Pool(hydra_context, task_function, config, Size.given(self.n_jobs, self.threads))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run all jobs, and return what they gave in the order in which they were given."""
        results = dict(self.stream(enumerate(job_overrides, start=initial_job_idx)))
        return [results[number] for number in sorted(results)]

    def stream(self, jobs: Iterable[tuple[int, Sequence[str]]]) -> Iterator[tuple[int, JobReturn]]:
        """Run jobs (number, overrides), and yield each when it ends.

        The next is taken from `jobs` when there is a place for it, so that it can be decided then.
        """
        return self.pool.run(jobs)
