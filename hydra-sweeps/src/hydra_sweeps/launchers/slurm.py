"""Jobs handed to Slurm, through submitit.

submitit asks `sacct`, which needs a database that not every cluster has, in intervals of up to ten minutes.
`squeue` works on every cluster.
"""

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hydra_sweeps.contract import SweepError, integer
from hydra_sweeps.launchers import process
from hydra_sweeps.launchers.base import Command, CommandLauncher
from hydra_sweeps.launchers.process import RemoteCommand, end

# Of the 90 seconds between submitit's warning and the time limit, those in which a job may save its state.
SECONDS_TO_SAVE = 60.0

# A job in any other state is waiting, running, or may run again, as after BOOT_FAIL, NODE_FAIL and PREEMPTED.
# If it does not, it leaves the queue some minutes later.
ENDED = ("CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT")


class SubmititLauncher(CommandLauncher):
    """Submits each job to Slurm, or runs it as a local process; see conf/hydra/launcher/submitit_*.yaml.

    `parameters` are those of submitit's `update_parameters`; those that are None are left out.
    """

    def __init__(self, cluster: str, n_jobs: int, parameters: Mapping[str, Any], poll: float) -> None:
        self.cluster = cluster
        self.n_jobs = integer("hydra.launcher.n_jobs", n_jobs)
        self.parameters = {name: value for name, value in parameters.items() if value is not None}
        self.poll = poll
        self.gone: set[Any] = set()  # jobs that have left Slurm's queue, but whose result has not been seen

    def open(self) -> None:
        import submitit

        try:
            self.executor = submitit.AutoExecutor(self.sweep_folder / "submitit", cluster=self.cluster)
            self.executor.update_parameters(**self.parameters)
        except (RuntimeError, TypeError, NameError, ValueError) as error:  # RuntimeError: there is no Slurm
            raise SweepError(f"hydra/launcher=submitit_{self.cluster} cannot be used: {error}") from error
        if self.cluster == "slurm":  # a sweep that was killed has left its jobs in the queue
            cancel_jobs(self.executor.folder, process.SECONDS_TO_STOP)

    def start(self, command: Command) -> Any:
        from submitit.core.utils import FailedJobError

        try:
            return self.executor.submit(SubmititCommand(command, self.parameters.get("cpus_per_task")))
        except FailedJobError as error:
            reason = " ".join(str(error).split())
            raise SweepError(f"hydra.launcher.parameters: Slurm refuses the jobs: {reason}") from None

    def ended(self, running: Sequence[Any]) -> list[tuple[Any, str | None]]:
        # Slurm is asked before the results are looked for: a job writes its result before it ends.
        states = read_queue(self.executor.folder) if self.cluster == "slurm" else None
        found, gone = [], set()
        for job in running:
            state = "RUNNING" if states is None else states.get(job.job_id, "unknown")
            if self._has_result(job):
                found.append((job, _failure(job)))
            elif state in (*ENDED, "unknown"):
                gone.add(job)
                if job in self.gone:  # a shared file system may show a result late
                    found.append((job, f"Slurm has ended the job; its state is {state}."))
        self.gone = gone
        if not found:
            time.sleep(self.poll)
        return [(job, why and f"{why} See {self.executor.folder}/{job.job_id}_*") for job, why in found]

    def _has_result(self, job: Any) -> bool:
        if self.cluster != "slurm":
            return bool(job.done())
        return all(job.task(task).paths.result_pickle.exists() for task in range(job.num_tasks))

    def stop(self, running: Sequence[Any]) -> None:
        if self.cluster == "slurm":  # also those whose submission was interrupted
            cancel_jobs(self.executor.folder, process.SECONDS_TO_STOP)
            return
        deadline = time.monotonic() + process.SECONDS_TO_STOP
        for job in running:
            job.cancel(check=False)
        while not all(job.done() for job in running) and time.monotonic() < deadline:
            time.sleep(0.1)


class SubmititCommand(RemoteCommand):
    """A command that submitit calls; it resumes its run when the job is started again.

    Submitit asks a job that is preempted or out of time for its `checkpoint`, and lets Slurm requeue it.
    """

    stopped = False

    def __call__(self) -> str | None:
        signal.signal(signal.SIGTERM, self._stop)  # submitit's own handler ignores it
        try:
            failure = super().__call__()
        except Exception as error:  # submitit's, which cannot requeue the job
            return str(error)
        if self.stopped:
            # Slurm may start the job again: with a result, of whatever kind, it would be taken for finished.
            raise SystemExit(128 + signal.SIGTERM)
        return failure

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        if self.running is not None:
            end([self.running], SECONDS_TO_SAVE)
            self.running = None  # which cannot be pickled
        return DelayedSubmission(self)


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
