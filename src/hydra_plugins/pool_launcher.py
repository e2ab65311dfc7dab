"""`hydra/launcher=pool`: several jobs of a sweep at a time on one machine."""

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mnist_cnn.sweeps.launching import Jobs, Results, StreamingLauncher


class PoolLauncher(StreamingLauncher):
    """Hydra's side of `mnist_cnn.sweeps.pool`."""

    def __init__(self, n_jobs: int | str = "auto", threads: int | str = "auto") -> None:
        self.n_jobs = n_jobs
        self.threads = threads

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from mnist_cnn.sweeps.pool import Pool, Size

        self.pool = Pool(hydra_context, task_function, config, Size.given(self.n_jobs, self.threads))

    def stream(self, jobs: Jobs) -> Results:
        return self.pool.run(jobs)
