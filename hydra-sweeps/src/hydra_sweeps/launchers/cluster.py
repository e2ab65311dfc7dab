"""A job's command on another machine, which sees the same files."""

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Any

from hydra_sweeps.launchers import process
from hydra_sweeps.launchers.base import Command
from hydra_sweeps.launchers.process import JobProcess, process_context

# Of the 90 seconds between submitit's warning and the time limit, those in which a job may save its state.
SECONDS_TO_SAVE = 60.0


class RemoteCommand:
    """A command that a cluster calls in a process of its own; returns why it has failed.

    If an exception ends the wait, the command is interrupted, and then killed with all its processes.
    """

    def __init__(self, command: Command, threads: int | None) -> None:
        self.command = command
        self.environment = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        self.cwd = os.getcwd()
        self.running: JobProcess | None = None

    def __call__(self) -> str | None:
        os.chdir(self.cwd)
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup leaves it ignored
        job = self.running = JobProcess(process_context(), self.command, self.environment)
        try:
            while not job.join(0.1):  # an endless wait would not notice that Ray cancels the task
                pass
        except BaseException:  # Ctrl-C, and what Ray and submitit raise to end the wait; it goes on
            job.interrupt()
            job.join(process.SECONDS_TO_STOP)
            raise
        finally:
            job.kill()
        return job.failure()


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
            self.running.interrupt()
            self.running.join(SECONDS_TO_SAVE)
            self.running = None  # which cannot be pickled
        return DelayedSubmission(self)
