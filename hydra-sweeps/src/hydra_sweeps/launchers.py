"""Launchers that run each job of a sweep as a command of its own, whose result is in the run's folder."""

import os
import signal
import subprocess
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_sweeps.interface import RESOLVED, SweepError

# An interrupted job may use this time to report how to resume and to end the processes it has started.
SECONDS_TO_STOP = 10.0

# Slurm sends the warning before a time limit to all processes; it is for submitit alone. The standard input
# ends with the process that has started the command: then a shell in the background kills the command.
_SHIELDED = (
    'trap "" USR1 USR2; exec 3<&0; (trap "" INT TERM; read _ <&3; kill -9 -$$) & exec "$@" 3<&- </dev/null'
)


@dataclass(frozen=True)
class Command:
    """The command of one job.

    `fresh` starts the run in `folder`; `resume`, if the app can do that, continues it. `environment` is added
    to that of the launcher, and `options` are the launcher's settings as this job has them.
    """

    number: int
    folder: Path
    fresh: Sequence[str]
    resume: Sequence[str] | None
    environment: Mapping[str, str]
    options: Mapping[str, Any]

    @property
    def arguments(self) -> list[str]:
        """What to run now, depending on whether the run has been started before."""
        started = (self.folder / RESOLVED).is_file()
        return list(self.resume if self.resume is not None and started else self.fresh)


Commands = Iterable[Command]
Ended = Iterator[tuple[int, str | None]]


class CommandLauncher(Launcher):
    """Base of the launchers of this package, for the sweepers of this package."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.sweep_folder = Path(config.hydra.sweep.dir).absolute()

    @abstractmethod
    def run(self, commands: Commands) -> Ended:
        """Run `commands`, and yield the number of each job that ends, with an error if it was not successful.

        The next command is taken when it can be started, so that it can be chosen then. If the iterator is
        closed, the running jobs are interrupted.
        """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        raise SweepError("This launcher needs hydra/sweeper=grid or hydra/sweeper=optuna.")


def positive(name: str, value: object) -> int:
    """Return `value`; raises `SweepError` unless it is a positive integer."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise SweepError(f"hydra.launcher.{name}={value}: it must be an integer greater than or equal to 1.")


def describe_exit(code: int | None) -> str | None:
    """Return why a process with this exit code has failed; None if it has not."""
    if code == 0:
        return None
    if code is None or code > 0:
        return f"the job's process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"the job's process was killed by {name}{hint}"


class RunningCommand:
    """A command that runs in a session of its own, and that does not outlive this process."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], cwd: str) -> None:
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a job must not inherit SIG_IGN
        self._process = subprocess.Popen(
            ["sh", "-c", _SHIELDED, "sh", *arguments],
            stdin=subprocess.PIPE,
            env=os.environ | environment,
            cwd=cwd,
            start_new_session=True,
        )

    def wait(self) -> int:
        """Return its exit code.

        If an exception ends the wait, the command is interrupted, and then killed with all its processes.
        """
        try:
            while self._process.poll() is None:  # wait() would not notice that Ray cancels the task
                time.sleep(0.1)
        except BaseException:
            self.interrupt(SECONDS_TO_STOP)
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
        return self._process.returncode

    def interrupt(self, seconds: float) -> None:
        """Interrupt the command, and give it some time to end."""
        self._process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
