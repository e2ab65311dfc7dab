"""Jobs handed to a Ray cluster."""

import os
from collections.abc import Mapping
from itertools import islice
from typing import Any

from hydra_sweeps.contract import SweepError
from hydra_sweeps.launchers import process
from hydra_sweeps.launchers.base import CommandLauncher, Commands, Ended, positive
from hydra_sweeps.launchers.cluster import RemoteCommand

# So often Ray runs a job again whose node or worker process is lost; a job that fails is not run again.
RETRIES = 3


class RayLauncher(CommandLauncher):
    """Runs each job on a Ray cluster; see conf/hydra/launcher/ray.yaml.

    `init` are arguments of `ray.init`.
    """

    def __init__(self, n_jobs: int, num_cpus: float, num_gpus: float, init: Mapping[str, Any]) -> None:
        self.n_jobs = positive("n_jobs", n_jobs)
        self.num_cpus = num_cpus
        self.num_gpus = num_gpus
        self.init = init

    def run(self, commands: Commands) -> Ended:
        import ray

        # Otherwise Ray hides a worker's GPUs from a job that asks for none, and warns about it.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            ray.init(**self.init)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SweepError(f"hydra.launcher.init: Ray cannot be reached: {error}") from error
        # A job whose node is lost runs again on another, where it resumes its run.
        run = ray.remote(max_retries=RETRIES, num_cpus=self.num_cpus, num_gpus=self.num_gpus)(_call)
        waiting, running = iter(commands), dict[Any, int]()
        try:
            while True:
                for command in islice(waiting, self.n_jobs - len(running)):
                    job = RemoteCommand(command, max(1, int(self.num_cpus)))
                    running[run.options(name=f"job {command.number}").remote(job)] = command.number
                if not running:
                    return
                for reference in ray.wait(list(running), num_returns=1)[0]:
                    number, failure = running.pop(reference), None
                    try:
                        failure = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        failure = str(error)
                    yield number, failure
        finally:
            for reference in running:
                ray.cancel(reference)  # raises KeyboardInterrupt in the task
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=process.SECONDS_TO_STOP)
            ray.shutdown()


def _call(command: RemoteCommand) -> str | None:
    return command()
