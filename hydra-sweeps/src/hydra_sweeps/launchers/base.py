"""What a sweep asks of a launcher that runs each job as a command, whose result is in the run's folder."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_sweeps.contract import RESOLVED, SweepError


@dataclass(frozen=True)
class Command:
    """A job that can be started, and its command.

    `fresh` starts the run in `folder`; `resume`, if the app can do that, continues it. `environment` is added
    to that of the launcher; `overrides` are those of the app.
    """

    number: int
    folder: Path
    fresh: Sequence[str]
    resume: Sequence[str] | None
    environment: Mapping[str, str]
    overrides: Sequence[str] = ()

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
