"""Launchers that hand the jobs to Slurm, through submitit, or to Ray."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hydra_sweeps import launchers
from hydra_sweeps.interface import SweepError
from hydra_sweeps.launchers import (
    Command,
    CommandLauncher,
    Commands,
    Ended,
    RunningCommand,
    describe_exit,
    positive,
)
from hydra_sweeps.slurm import ENDED, cancel_jobs, read_queue

# Of the 90 seconds between submitit's warning and the time limit, those in which a job may save its state.
SECONDS_TO_SAVE = 60.0

# So often Ray runs a job again whose node or worker process is lost; a job that fails is not run again.
RETRIES = 3


class SubmittedCommand:
    """A command, called in a process of the cluster that sees the same files; returns why it has failed."""

    def __init__(self, command: Command, threads: int | None) -> None:
        self.command = command
        self.environment = dict(command.environment)
        if threads is not None:
            self.environment["OMP_NUM_THREADS"] = str(threads)
        self.cwd = os.getcwd()
        self.running: RunningCommand | None = None

    def __call__(self) -> str | None:
        return describe_exit(self.run())

    def run(self) -> int:
        """Run the command, and return its exit code."""
        self.running = RunningCommand(self.command.arguments, self.environment, self.cwd)
        return self.running.wait()


class SubmititCommand(SubmittedCommand):
    """A command that submitit calls; it resumes its run when the job is started again.

    Submitit asks a job that is preempted or out of time for its `checkpoint`, and lets Slurm requeue it.
    """

    def __call__(self) -> str | None:
        try:
            code = self.run()
        except Exception as error:  # submitit's, which cannot requeue the job
            return str(error)
        if code in (128 + signal.SIGTERM, -signal.SIGTERM):
            # Slurm stops the job, perhaps to start it again: with a result it would be taken for finished.
            raise SystemExit(code)
        return describe_exit(code)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        if self.running is not None:
            self.running.interrupt(SECONDS_TO_SAVE)
            self.running = None  # which cannot be pickled
        return DelayedSubmission(self)


class SubmititLauncher(CommandLauncher):
    """Submits each job to Slurm, or runs it as a local process; see conf/hydra/launcher/submitit_*.yaml.

    `parameters` are those of submitit's `update_parameters`; those that are None are left out.
    """

    def __init__(self, cluster: str, n_jobs: int, parameters: Mapping[str, Any], poll: float) -> None:
        self.cluster = cluster
        self.n_jobs = positive("n_jobs", n_jobs)
        self.parameters = {name: value for name, value in parameters.items() if value is not None}
        self.poll = poll
        self.gone: set[int] = set()  # jobs that have left Slurm's queue, but whose result has not been seen

    def run(self, commands: Commands) -> Ended:
        executor = self._executor()
        if self.cluster == "slurm":  # a sweep that was killed has left its jobs in the queue
            cancel_jobs(executor.folder, launchers.SECONDS_TO_STOP)
        waiting, running = iter(commands), dict[int, Any]()
        try:
            while True:
                if following := list(islice(waiting, self.n_jobs - len(running))):
                    running |= self._submit(executor, following)
                if not running:
                    return
                ended = self._ended(running, executor.folder)
                for number, failure in ended.items():
                    logs = f"See {executor.folder}/{running.pop(number).job_id}_*"
                    yield number, failure and f"{failure} {logs}"
                if not ended:
                    time.sleep(self.poll)
        except BaseException:
            self._cancel(running.values(), executor.folder)
            raise

    def _executor(self) -> Any:
        try:
            import submitit
        except ModuleNotFoundError:
            raise SweepError("hydra/launcher=submitit_* needs submitit: pip install submitit") from None
        try:
            executor = submitit.AutoExecutor(self.sweep_folder / "submitit", cluster=self.cluster)
        except RuntimeError:
            raise SweepError(
                "hydra/launcher=submitit_slurm: this machine has no Slurm (there is no command srun). "
                "hydra/launcher=submitit_local runs the jobs without it."
            ) from None
        try:
            executor.update_parameters(**self.parameters)
        except (TypeError, NameError, ValueError) as error:
            raise SweepError(f"hydra.launcher.parameters: submitit refuses them: {error}") from error
        return executor

    def _submit(self, executor: Any, commands: Sequence[Command]) -> dict[int, Any]:
        """Submit one job, or one job array of Slurm."""
        from submitit.core.utils import FailedJobError

        threads = self.parameters.get("cpus_per_task")
        try:
            jobs = executor.submit_array([SubmititCommand(command, threads) for command in commands])
        except FailedJobError as error:
            reason = " ".join(str(error).split())
            raise SweepError(f"hydra.launcher.parameters: Slurm refuses the jobs: {reason}") from None
        return {command.number: job for command, job in zip(commands, jobs, strict=True)}

    def _ended(self, running: Mapping[int, Any], folder: Path) -> dict[int, str | None]:
        """Return the jobs that have ended, with an error if they were not successful."""
        if self.cluster != "slurm":
            return {number: _failure(job) for number, job in running.items() if job.done()}
        queue = read_queue(folder)  # before the results: a job writes its result before it ends
        ended, gone = dict[int, str | None](), set()
        for number, job in running.items():
            tasks = [job.task(task) for task in range(job.num_tasks)]
            if all(task.paths.result_pickle.exists() for task in tasks):
                ended[number] = _failure(job)
            elif queue is not None and (state := queue.get(job.job_id, "unknown")) in (*ENDED, "unknown"):
                gone.add(number)
                if number in self.gone:  # a shared file system may show a result late
                    ended[number] = f"Slurm has ended the job; its state is {state}."
        self.gone = gone - set(ended)
        return ended

    def _cancel(self, jobs: Any, folder: Path) -> None:
        if self.cluster == "slurm":  # also those whose submission was interrupted
            cancel_jobs(folder, launchers.SECONDS_TO_STOP)
            return
        for job in jobs:
            job.cancel(check=False)
        deadline = time.monotonic() + launchers.SECONDS_TO_STOP
        while any(not job.done() for job in jobs) and time.monotonic() < deadline:
            time.sleep(0.1)


def _failure(job: Any) -> str | None:
    """Return why a job of submitit that has ended has failed."""
    try:
        return next(filter(None, job.results()), None)
    except Exception as error:  # of the process, or of the cluster
        return str(error)


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
        # A job whose node is lost runs again on another, where it resumes its run.
        run = ray.remote(max_retries=RETRIES, num_cpus=self.num_cpus, num_gpus=self.num_gpus)(_call)
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
                        failure = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        failure = str(error)
                    yield number, failure
        finally:
            for reference in running:
                ray.cancel(reference)  # raises KeyboardInterrupt in the task
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=launchers.SECONDS_TO_STOP)
            ray.shutdown()


def _call(command: SubmittedCommand) -> str | None:
    return command()
