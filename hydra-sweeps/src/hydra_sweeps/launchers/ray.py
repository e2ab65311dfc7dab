"""Jobs handed to a Ray cluster."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra_sweeps.contract import SweepError, integer
from hydra_sweeps.launchers import process
from hydra_sweeps.launchers.base import Command, CommandLauncher
from hydra_sweeps.launchers.process import RemoteCommand


class RayLauncher(CommandLauncher):
    """Runs each job on a Ray cluster; see conf/hydra/launcher/ray.yaml.

    `init` are arguments of `ray.init`.
    """

    def __init__(self, n_jobs: int, num_cpus: float, num_gpus: float, init: Mapping[str, Any]) -> None:
        self.n_jobs = integer("hydra.launcher.n_jobs", n_jobs)
        # A job whose node or worker process is lost runs again on another, where it resumes its run.
        self.options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_retries": 3}
        self.threads = max(1, int(num_cpus))
        self.init = init

    def open(self) -> None:
        import ray

        # Otherwise Ray hides a worker's GPUs from a job that asks for none, and warns about it.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            ray.init(**self.init)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SweepError(f"hydra.launcher.init: Ray cannot be reached: {error}") from error
        self.task: Any = ray.remote(RemoteCommand.__call__)

    def start(self, command: Command) -> Any:
        task = self.task.options(name=f"job {command.job.number}", **self.options)
        return task.remote(RemoteCommand(command, self.threads))

    def ended(self, running: Sequence[Any]) -> Iterator[tuple[Any, str | None]]:
        import ray

        for reference in ray.wait(list(running), num_returns=1)[0]:
            try:
                failure = ray.get(reference)
            except ray.exceptions.RayError as error:
                failure = str(error)
            yield reference, failure

    def stop(self, running: Sequence[Any]) -> None:
        import ray

        for reference in running:
            ray.cancel(reference)  # raises KeyboardInterrupt in the task
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=process.SECONDS_TO_STOP)
