"""Jobs handed to Slurm, through submitit.

submitit asks `sacct`, which needs a database that not every cluster has, in intervals of up to ten minutes.
`squeue` works on every cluster.
"""

import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hydra_sweeps.contract import SweepError
from hydra_sweeps.launchers import process
from hydra_sweeps.launchers.base import Command, CommandLauncher, Commands, Ended, positive
from hydra_sweeps.launchers.cluster import SubmititCommand

# A job in any other state is waiting, running, or may run again, as after BOOT_FAIL, NODE_FAIL and PREEMPTED.
# If it does not, it leaves the queue some minutes later.
ENDED = ("CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT")


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
            cancel_jobs(executor.folder, process.SECONDS_TO_STOP)
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
        except BaseException:  # Ctrl-C, and GeneratorExit if the sweep stops; it goes on
            self._cancel(list(running.values()), executor.folder)
            raise

    def _executor(self) -> Any:
        import submitit

        try:
            executor = submitit.AutoExecutor(self.sweep_folder / "submitit", cluster=self.cluster)
            executor.update_parameters(**self.parameters)
        except (RuntimeError, TypeError, NameError, ValueError) as error:  # RuntimeError: there is no Slurm
            raise SweepError(f"hydra/launcher=submitit_{self.cluster} cannot be used: {error}") from error
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

    def _cancel(self, jobs: Iterable[Any], folder: Path) -> None:
        if self.cluster == "slurm":  # also those whose submission was interrupted
            cancel_jobs(folder, process.SECONDS_TO_STOP)
            return
        deadline = time.monotonic() + process.SECONDS_TO_STOP
        for job in jobs:
            job.cancel(check=False)
        for job in jobs:
            while not job.done() and time.monotonic() < deadline:
                time.sleep(0.1)


def _failure(job: Any) -> str | None:
    """Return why a job of submitit that has ended has failed."""
    try:
        return next(filter(None, job.results()), None)
    except Exception as error:  # of the process, or of the cluster
        return str(error)


def read_queue(folder: Path) -> dict[str, str] | None:
    """Return the states of the jobs that were submitted from `folder`, by their ids; None without an answer.

    A job is listed for some minutes after its end.
    """
    command = ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%o"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    if answer.returncode != 0:  # the controller is restarted, or cannot be reached
        return None
    jobs = (line.split("|", 2) for line in answer.stdout.splitlines())
    return {job: state for job, state, script in jobs if Path(script).is_relative_to(folder)}


def cancel_jobs(folder: Path, seconds: float) -> None:
    """Cancel the jobs that were submitted from `folder`, and wait until they have ended, but not longer."""
    deadline = time.monotonic() + seconds
    cancelled: set[str] = set()
    while True:
        queue = read_queue(folder)
        running = {job for job, state in (queue or {}).items() if state not in ENDED}
        if running - cancelled:
            subprocess.run(["scancel", *sorted(running - cancelled)], check=False)
            cancelled |= running
        if (queue is not None and not running) or time.monotonic() > deadline:
            return
        time.sleep(0.2)
