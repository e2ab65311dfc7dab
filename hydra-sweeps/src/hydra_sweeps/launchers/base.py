"""What a sweep asks of a launcher that runs each job as a command, whose result is in the run's folder."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_sweeps.contract import RESOLVED, Job, SweepError


@dataclass(frozen=True)
class Command:
    """How a job is started: `program`, and overrides of the app.

    `fresh` starts the run in `folder`; `resume`, if the app can do that, continues it. `environment` is added
    to that of the launcher.
    """

    job: Job
    folder: Path
    program: Sequence[str]
    fresh: Sequence[str]
    resume: Sequence[str] | None
    environment: Mapping[str, str]

    @property
    def overrides(self) -> list[str]:
        """Those to run now, depending on whether the run has been started before."""
        started = (self.folder / RESOLVED).is_file()
        return list(self.resume if self.resume is not None and started else self.fresh)

    @property
    def arguments(self) -> list[str]:
        """The whole command."""
        return [*self.program, *self.overrides]


class CommandLauncher(Launcher):
    """Base of the launchers of this package, for the sweepers of this package.

    A subclass runs `n_jobs` at a time, and identifies them by objects of its own.
    """

    n_jobs: int

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.sweep_folder = Path(config.hydra.sweep.dir).absolute()

    def open(self) -> None:
        """Prepare what the jobs share, before the first one."""

    @abstractmethod
    def start(self, command: Command) -> Any:
        """Start a job, and return it."""

    @abstractmethod
    def ended(self, running: Sequence[Any]) -> Iterable[tuple[Any, str | None]]:
        """Wait, and return jobs that have ended, with an error for each that was not successful."""

    @abstractmethod
    def stop(self, running: Sequence[Any]) -> None:
        """Interrupt the jobs, and wait for their end, but not for long."""

    def run(self, commands: Iterable[Command]) -> Iterator[tuple[Command, str | None]]:
        """Run `commands`, and yield each when its job has ended, with an error if it was not successful.

        The next command is taken when it can be started, so that it can be chosen then. If the iterator is
        closed, the running jobs are interrupted.
        """
        waiting, running = iter(commands), dict[Any, Command]()
        self.open()
        try:
            while True:
                for command in islice(waiting, self.n_jobs - len(running)):
                    running[self.start(command)] = command
                if not running:
                    return
                for job, failure in self.ended(list(running)):
                    yield running.pop(job), failure
        except BaseException:  # Ctrl-C, and GeneratorExit if the sweep stops; it goes on
            self.stop(list(running))
            raise

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        raise SweepError("This launcher needs hydra/sweeper=grid or hydra/sweeper=optuna.")
