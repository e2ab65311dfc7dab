"""Launchers that hand the jobs to Slurm, through submitit, or to Ray."""

import os
import time
from collections.abc import Mapping
from itertools import islice
from typing import Any

from hydra_sweeps import launchers
from hydra_sweeps.interface import SweepError
from hydra_sweeps.launchers import (
    Command,
    CommandLauncher,
    Commands,
    Ended,
    describe_exit,
    positive,
    run_command,
)


class SubmittedCommand:
    """A command, called in a process of the cluster that sees the same files; returns the exit code.

    Submitit asks a job that is preempted or out of time for its `checkpoint`, and submits it again.
    """

    def __init__(self, command: Command, threads: int | None) -> None:
        self.command = command
        self.environment = dict(command.environment)
        if threads is not None:
            self.environment["OMP_NUM_THREADS"] = str(threads)
        self.cwd = os.getcwd()

    def __call__(self) -> int:
        return run_command(self.command.arguments, self.environment, self.cwd)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)  # which resumes the run: see `Command.arguments`


class SubmititLauncher(CommandLauncher):
    """Submits each job to Slurm, or runs it as a local process; see conf/hydra/launcher/submitit_*.yaml.

    `parameters` are those of submitit's `update_parameters`; those that are None are left out.
    """

    def __init__(self, cluster: str, n_jobs: int, parameters: Mapping[str, Any], poll: float) -> None:
        self.cluster = cluster
        self.n_jobs = positive("n_jobs", n_jobs)
        self.parameters = {name: value for name, value in parameters.items() if value is not None}
        self.poll = poll

    def run(self, commands: Commands) -> Ended:
        try:
            import submitit
        except ModuleNotFoundError:
            raise SweepError("hydra/launcher=submitit_* needs submitit: pip install submitit") from None
        folder = self.sweep_folder / "submitit"
        executor = submitit.AutoExecutor(folder, cluster=self.cluster)
        try:
            executor.update_parameters(**self.parameters)
        except (TypeError, NameError, ValueError) as error:
            raise SweepError(f"hydra.launcher.parameters: submitit refuses them: {error}") from error
        threads = self.parameters.get("cpus_per_task")
        waiting, running = iter(commands), dict[int, Any]()
        try:
            while True:
                if following := list(islice(waiting, self.n_jobs - len(running))):
                    with executor.batch():  # one job array of Slurm
                        for command in following:
                            running[command.number] = executor.submit(SubmittedCommand(command, threads))
                if not running:
                    return
                done = [number for number, job in running.items() if job.done()]
                for number in done:
                    job = running.pop(number)
                    logs = f"See {folder}/{job.job_id}_*"
                    try:
                        failure = describe_exit(job.result())
                    except Exception as error:  # of the process, or of the cluster
                        failure = str(error)
                    yield number, failure and f"{failure} {logs}"
                if not done:
                    time.sleep(self.poll)
        finally:
            for job in running.values():
                job.cancel(check=False)
            deadline = time.monotonic() + launchers.SECONDS_TO_STOP
            while any(not job.done() for job in running.values()) and time.monotonic() < deadline:
                time.sleep(0.1)


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
        try:
            import ray
        except ModuleNotFoundError:
            raise SweepError("hydra/launcher=ray needs Ray: pip install ray") from None
        # Otherwise Ray hides a worker's GPUs from a job that asks for none, and warns about it.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            ray.init(**self.init)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SweepError(f"hydra.launcher.init: Ray cannot be reached: {error}") from error
        run = ray.remote(max_retries=0, num_cpus=self.num_cpus, num_gpus=self.num_gpus)(_call)
        waiting, running = iter(commands), dict[Any, int]()
        try:
            while True:
                for command in islice(waiting, self.n_jobs - len(running)):
                    job = SubmittedCommand(command, max(1, int(self.num_cpus)))
                    running[run.options(name=f"job {command.number}").remote(job)] = command.number
                if not running:
                    return
                for reference in ray.wait(list(running), num_returns=1)[0]:
                    number = running.pop(reference)
                    try:
                        failure = describe_exit(ray.get(reference))
                    except ray.exceptions.RayError as error:
                        failure = str(error)
                    yield number, failure
        finally:
            for reference in running:
                ray.cancel(reference)  # raises KeyboardInterrupt in the task
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=launchers.SECONDS_TO_STOP)
            ray.shutdown()


def _call(command: SubmittedCommand) -> int:
    return command()
