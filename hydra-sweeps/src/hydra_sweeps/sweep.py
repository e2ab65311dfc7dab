"""A sweep from start to end: which jobs to run, running them, how each ended, the report.

Hydra's own sweepers show only the first failure, cannot be resumed, and write no summary. Here the result of
a job is read from its folder, so that it does not matter which process on which machine has run it.
"""

import gc
import logging
import os
import re
import signal
import sys
from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from hydra_sweeps import definition
from hydra_sweeps.commands import AppCommand
from hydra_sweeps.contract import FAILED, RESOLVED, CurrentJob, SweepError, explained
from hydra_sweeps.definition import is_ignored
from hydra_sweeps.files import write_yaml
from hydra_sweeps.goal import Goal, goal_of
from hydra_sweeps.grammar import as_override, folder_name, key_of, parse, quote
from hydra_sweeps.launchers.base import Command, CommandLauncher
from hydra_sweeps.outcome import Outcome, describe_exit, error_of, read_outcome, record_failure
from hydra_sweeps.report import writing
from hydra_sweeps.report.tables import format_metric
from hydra_sweeps.trust import OF_THE_START, left_out

# Settings of Hydra for the sweep, not for the run of a job.
_OF_THE_SWEEP = re.compile(r"hydra([./](sweep|launcher)|\.mode|\.run\.)")

# What the name of a job's folder may be made of without its settings.
_OF_THE_JOB = {f"hydra{mark}job.{name}" for mark in ":." for name in ("num", "id", "override_dirname")}

# What Hydra raises where settings cannot be combined.
_REFUSALS = (HydraException, OmegaConfBaseException)

_CALLBACKS = ("hydra/callbacks", "hydra.callbacks")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One job of a sweep: the overrides `chosen` for it, and in a search the number of its trial."""

    number: int
    chosen: Sequence[str]
    trial: int | None = None


class BaseSweep(Sweeper):
    """Base of the sweepers of this package; a subclass chooses the jobs.

    A job that fails does not end the sweep, unless `sweep.fail_fast=true`. With `sweep.resume=FOLDER`
    finished jobs are kept and the others continued. At the end there is a report, and a `SweepError` if a job
    failed.
    """

    prunes = False

    def __init__(self, params: Mapping[str, str]) -> None:
        self.params = dict(params)
        self.fixed: Sequence[str] = ()  # overrides that all jobs share
        self.total = 0  # number of jobs
        self.failed = False  # whether a job has failed
        self.folders: dict[Path, int] = {}  # numbers of the jobs by their folders

    @abstractmethod
    def begin(self, overrides: list[Override], resumed: bool) -> None:
        """Take the overrides of the sweep, and set `fixed` and `total`."""

    @abstractmethod
    def propose(self) -> Iterator[Job]:
        """Yield the jobs, each when it can be started; those that have finished before are skipped."""

    def on_job_end(self, number: int, outcome: Outcome) -> None:
        """Take note of how a job ended."""

    # --- the start ---------------------------------------------------------------------------------

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.settings: DictConfig = config
        self.context: dict[str, Any] = {"hydra_context": hydra_context, "task_function": task_function}
        self.loader = hydra_context.config_loader
        self.folder = Path(os.path.abspath(config.hydra.sweep.dir))
        self.ignored = tuple(OmegaConf.select(config, "sweep.ignore") or ())
        if OmegaConf.is_dict(config.get("objective")):
            # A report cannot resolve it later: only the app has its resolvers.
            with read_write(config):
                config.objective = OmegaConf.to_container(config.objective, resolve=True)
        self.goal: Goal = goal_of(OmegaConf.to_container(config, resolve=False))

    def sweep(self, arguments: list[str]) -> None:
        folder = OmegaConf.select(self.settings, "sweep.resume")
        try:
            if folder is None:
                self.start(arguments, resumed=False)
            else:
                former = self._of_folder(Path(str(folder)))
                former.start(list(former.settings.hydra.overrides.task), resumed=True)
        except Exception as error:
            if (for_user := explained(error)) is None:
                raise
            raise for_user from error

    def _of_folder(self, folder: Path) -> "BaseSweep":
        """Return the sweep in `folder`, with the overrides of this one in place of the former ones."""
        given = self.settings.hydra.overrides
        overrides = definition.overrides_to_resume(folder, [*given.hydra, *given.task])
        settings = self.loader.load_configuration(
            config_name=self.settings.hydra.job.config_name,
            overrides=[*overrides, as_override("hydra.sweep.dir", str(folder))],
            run_mode=RunMode.MULTIRUN,
        )
        if settings.hydra.callbacks != self.settings.hydra.callbacks:
            missing = [one for one in overrides if key_of(one).startswith(_CALLBACKS)]
            raise SweepError(
                f"sweep.resume={folder}: this sweep was started with other callbacks. Add to the command: "
                f"{' '.join(missing)}"
            )
        sweeper = Plugins.instance().instantiate_sweeper(config=settings, **self.context)
        if not isinstance(sweeper, BaseSweep):
            raise SweepError(f"sweep.resume={folder} is not a sweep of hydra/sweeper=grid or optuna.")
        return sweeper

    def start(self, arguments: list[str], resumed: bool) -> None:
        """Run the sweep with these overrides; `resumed` if its folder is that of an earlier start."""
        given = [f"{key}={value}" for key, value in self.params.items()] + arguments
        overrides = [one for one in parse(given, self.loader) if one.key_or_group not in OF_THE_START]
        # Where the app's YAML says so, and nobody has typed it, each command would start a sweep.
        typed = any(key_of(one) == "hydra.mode" for one in self.settings.hydra.overrides.hydra)
        single = ["hydra.mode=RUN"] if self.settings.hydra.mode is RunMode.MULTIRUN and not typed else []
        self.command = AppCommand.of_this_process(single)
        plugins = Plugins.instance()
        self.launcher: Launcher = plugins.instantiate_launcher(config=self.settings, **self.context)
        self.template = deepcopy(self.settings)
        # Where the names of folders are taken from the settings of the jobs, which takes time.
        sweep: Any = OmegaConf.to_container(self.settings.hydra.sweep, resolve=False)
        self.composes = not set(re.findall(r"\$\{([^${}]*)\}", str(sweep["subdir"]))) <= _OF_THE_JOB
        here = os.path.relpath(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                if resumed:
                    definition.refuse_changes(definition.read(self.folder), self.settings, self.folder)
                elif definition.is_sweep(self.folder):
                    raise SweepError(
                        f"{here} already holds a sweep. Resume it with: {self._resume_command()}, or choose "
                        "another folder with hydra.sweep.dir."
                    )
                self.begin(overrides, resumed)
                write_yaml(self.folder / definition.FILE, self.settings)
                self.command.write(self.folder)
                with _as_interrupts(isinstance(self.launcher, CommandLauncher)) as self.signals:
                    self._run()
        except Timeout:
            raise SweepError(
                f"Another process is running the sweep in {here}. Wait until it ends, or stop it with Ctrl-C "
                "or kill."
            ) from None

    # --- jobs --------------------------------------------------------------------------------------

    def compose(self, chosen: Sequence[str]) -> DictConfig:
        """Return the settings of a job; raises `SweepError` if they cannot be combined."""
        try:
            return self.loader.load_sweep_config(self.settings, [*self.fixed, *chosen])
        except _REFUSALS as error:
            raise SweepError(f"{' '.join(chosen)}: {_message(error)}") from error

    def ready(self, job: Job) -> Command:
        """Return the command of a job; raises `SweepError` if its folder is that of another job.

        In the folder's name are the overrides that differ from those of other jobs.
        """
        shared = [one for one in self.fixed if not is_ignored(key_of(one), (*self.ignored, "sweep"))]
        label = folder_name(",".join(job.chosen or shared))
        config, name = self.template, f"{job.number}_{label}"
        with suppress(SweepError):  # the job itself fails with this reason
            config = self.compose(job.chosen) if self.composes else config
            name = self._subdir(config, job.number, label)
        folder = self.folder / name
        if self.folders.setdefault(folder, job.number) != job.number:
            raise SweepError(
                f"Jobs {self.folders[folder]} and {job.number} would have the same folder, {name}: set "
                "hydra.sweep.subdir with ${hydra:job.num} in it."
            )
        overrides = [*self.fixed, *job.chosen]
        place = [
            f"hydra.run.dir={quote(folder)}",
            f"hydra.job.num={job.number}",
            f"hydra.job.id={job.number}",
        ]
        hydra = [one for one in self.settings.hydra.overrides.hydra if not _OF_THE_SWEEP.match(key_of(one))]
        start = [*self.command.arguments(), *hydra, *self.command.single, *place]
        resume = None
        if "resume" in self.settings:
            changeable = [one for one in overrides if is_ignored(key_of(one), self.ignored)]
            resume = [*start, *changeable, f"resume={quote(folder)}"]
        search = (str(self.folder), job.trial, self.goal.first) if self.prunes else ()
        environment = CurrentJob(str(folder), *search).environment()
        return Command(job.number, folder, [*start, *overrides], resume, environment, overrides)

    def _subdir(self, config: DictConfig, number: int, label: str) -> str:
        """Return the name of a job's folder, according to its settings."""
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
            config.hydra.job.override_dirname = label
        before = HydraConfig.instance().cfg
        try:
            HydraConfig.instance().cfg = config  # type: ignore[assignment]
            return str(config.hydra.sweep.subdir)
        finally:
            HydraConfig.instance().cfg = before

    def _commands(self) -> Iterator[Command]:
        """Yield the jobs that have no result yet, each when it can be started."""
        for job in self.propose():
            ready, label = self.ready(job), " ".join(job.chosen)
            if (before := read_outcome(ready.folder)).is_result:
                self.on_job_end(job.number, before)
                continue
            log.info(f"job {job.number}{': ' if label else ''}{label}   ({job.number + 1} of {self.total})")
            (ready.folder / FAILED).unlink(missing_ok=True)  # of an earlier start of the sweep
            yield ready

    def _run(self) -> None:
        exception: BaseException | None = None
        try:
            with closing(self._outcomes()) as outcomes:
                for number, outcome in outcomes:
                    self.on_job_end(number, outcome)
                    self.failed |= not outcome.is_result
                    if self._stops():
                        break
        except BaseException as error:
            exception = error
        try:
            text = writing.write(self.folder, self.goal)
            log.info(f"\n{text}\nsweep folder: {os.path.relpath(self.folder)}")
        except Exception as error:  # must not hide how the sweep ended
            if exception is None or not isinstance(error, SweepError):  # that no job has started
                log.error(f"The report could not be written: {error}")
        if isinstance(exception, Exception):
            log.error(f"The sweep has stopped. When this is fixed, resume with: {self._resume_command()}")
            raise exception
        if exception is not None:
            log.info(f"interrupted; resume with: {self._resume_command()}")
            code = 128 + (self.signals or [int(signal.SIGINT)])[-1]
            sys.exit(getattr(exception, "exit_code", code))
        if self.failed:
            rest = "the rest and " if self._stops() else ""
            raise SweepError(f"Some jobs failed. Run {rest}the failed jobs with: {self._resume_command()}")

    def _stops(self) -> bool:
        return self.failed and bool(OmegaConf.select(self.settings, "sweep.fail_fast"))

    def _outcomes(self) -> Generator[tuple[int, Outcome], None, None]:
        """Run the jobs, and yield how each has ended."""
        if not isinstance(self.launcher, CommandLauncher):  # one of Hydra's, whose jobs run in this process
            for ready in self._commands():
                yield ready.number, self._outcome(ready, self._launch(ready))
            return
        running: dict[int, Command] = {}

        def commands() -> Iterator[Command]:
            for ready in self._commands():
                running[ready.number] = ready
                yield ready

        with closing(self.launcher.run(commands())) as ended:  # type: ignore[type-var]
            for number, failure in ended:
                outcome = self._outcome(running.pop(number), failure)
                if outcome.is_result:
                    log.info(f"job {number} {outcome.status}: {_results(outcome, self.goal)}")
                yield number, outcome

    def _launch(self, ready: Command) -> str | None:
        """Run a job with one of Hydra's launchers; return why it has failed, if it has not recorded it."""
        subdir = ready.folder.relative_to(self.folder)
        overrides = [*ready.overrides, f"hydra.sweep.subdir={quote(subdir)}", "hydra.mode=MULTIRUN"]
        if "resume" in self.settings and (ready.folder / RESOLVED).is_file():
            overrides.append(f"resume={quote(ready.folder)}")
        environment = dict(os.environ)
        os.environ.update(ready.environment)
        try:
            (result,) = self.launcher.launch([overrides], ready.number)
        except SystemExit as stop:
            if self.signals:  # libraries may turn an interrupt into a SystemExit
                raise
            configure_log(self.settings.hydra.hydra_logging, self.settings.hydra.verbose)
            return describe_exit(stop.code)
        except _REFUSALS as error:
            return _message(error)
        else:
            failure = error_of(result)
            if failure is not None:
                # The traceback is written now: its frames hold the job's data.
                record_failure(ready.folder, failure)
            return None
        finally:  # the next job starts as this one has
            os.environ.clear()
            os.environ.update(environment)
            gc.collect()

    def _outcome(self, ready: Command, failure: str | None) -> Outcome:
        """Read how a job ended, and report a failure; `failure` is recorded if the job could not do it."""
        outcome = read_outcome(ready.folder)
        if failure is not None and outcome.status == "unfinished":
            record_failure(ready.folder, failure)
            outcome = read_outcome(ready.folder)
        if not outcome.is_result:
            log.error(f"job {ready.number} failed: {outcome.error or 'its folder has no result'}")
            file = ready.folder / f"{self.settings.hydra.job.name}.log"
            if file.is_file() and "Traceback" in file.read_text(errors="replace"):
                log.error(f"  traceback: {os.path.relpath(file)}")
            elif outcome.has_traceback:
                log.error(f"  traceback: {os.path.relpath(ready.folder / FAILED)}")
        return outcome

    # --- the command to resume -----------------------------------------------------------------------

    def _resume_command(self) -> str:
        overrides, choices = self.settings.hydra.overrides, self.settings.hydra.runtime.choices
        if "sweep" in choices:  # of the YAML of this package, which chooses the mode and a sweeper
            needed = [one for one in overrides.task if key_of(one) == "sweep"]
        else:
            needed = ["-m", f"hydra/sweeper={choices['hydra/sweeper']}"]
        needed += [one for one in overrides.hydra if key_of(one).startswith(_CALLBACKS)]
        key = "sweep.resume" if "sweep" in self.settings else "+sweep.resume"
        again = left_out((*overrides.hydra, *overrides.task))
        return self.command.text([*needed, as_override(key, os.path.relpath(self.folder)), *again])


def _message(error: Exception) -> str:
    """Return what Hydra says about settings that cannot be combined, without hints that do not help here."""
    message = str(error).split("\nConfig search path:")[0].split("\nTo append")[0]
    return f"{message} {str(error.__cause__).splitlines()[0]}" if error.__cause__ else message


def _results(outcome: Outcome, goal: Goal) -> str:
    """Return the objectives of a job as text."""
    values = {name: outcome.metrics.get(name) for name in goal.objectives}
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return ", ".join(f"{name} {format_metric(name, value)}" for name, value in numbers.items())


@contextmanager
def _as_interrupts(elsewhere: bool) -> Iterator[list[int]]:
    """Let SIGTERM end a sweep as Ctrl-C does; yield the list of the signals that have come.

    nohup and background shells leave SIGINT ignored. What the app does at a signal it still does if its jobs
    run in this process, not if they run `elsewhere`.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        is_default = handler in (signal.SIG_DFL, signal.default_int_handler)
        if is_default or (elsewhere and handler != signal.SIG_IGN):
            before[number] = signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for replaced, handler in before.items():
            signal.signal(replaced, handler)
