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
import threading
from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log, env_override
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hydra_sweeps import definition
from hydra_sweeps.commands import AppCommand
from hydra_sweeps.contract import FAILED, RESOLVED, CurrentJob, SweepError
from hydra_sweeps.definition import is_ignored
from hydra_sweeps.files import write_yaml
from hydra_sweeps.goal import Goal, goal_of
from hydra_sweeps.grammar import as_override, folder_name, key_of, parse, path_override, quote
from hydra_sweeps.launchers.base import Command, CommandLauncher
from hydra_sweeps.outcome import Outcome, describe_exit, error_of, read_outcome, record_failure
from hydra_sweeps.report import writing
from hydra_sweeps.report.tables import format_metric
from hydra_sweeps.trust import OF_THE_START, left_out

# Settings of Hydra for the sweep, not for the run of a job.
_SWEEP_SETTINGS = (
    "hydra.mode",
    "hydra.sweep",
    "hydra/sweep",
    "hydra.launcher",
    "hydra/launcher",
    "hydra.run.",
)

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


@dataclass(frozen=True)
class ReadyJob:
    """A job that can be started: all its overrides, the launcher's settings for it, the folder of its run."""

    job: Job
    overrides: Sequence[str]
    options: DictConfig
    folder: Path


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

    def on_job_end(self, job: Job, outcome: Outcome) -> None:
        """Take note of how `job` ended."""

    # --- the start ---------------------------------------------------------------------------------

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.settings: DictConfig = config
        self.parts: dict[str, Any] = {
            "hydra_context": hydra_context,
            "task_function": task_function,
        }  # of its plugins
        self.loader = hydra_context.config_loader
        self.folder = Path(os.path.abspath(config.hydra.sweep.dir))
        self.ignored = tuple(OmegaConf.select(config, "sweep.ignore") or ())
        self.goal: Goal = goal_of(OmegaConf.to_container(config, resolve=False))

    def sweep(self, arguments: list[str]) -> None:
        folder = OmegaConf.select(self.settings, "sweep.resume")
        if folder is None:
            self.start(arguments, resumed=False)
        else:
            former = self._of_folder(Path(str(folder)))
            former.start(list(former.settings.hydra.overrides.task), resumed=True)

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
        sweeper = Plugins.instance().instantiate_sweeper(config=settings, **self.parts)
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
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(config=self.settings, **self.parts)
        self.composes, self.template = self._must_compose(), deepcopy(self.settings)
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
                with _Signals() as self.signals:
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

    def _must_compose(self) -> bool:
        """Return whether the sweep must know the settings of a job to start it, which takes time.

        It need not where the name of the folder is made of the job's number and overrides alone, and the
        launcher's settings are not taken from those of the app.
        """
        plain: Any = OmegaConf.to_container(self.settings.hydra, resolve=False)
        names = re.findall(r"\$\{([^${}]*)\}", str(plain["sweep"]["subdir"]))
        launcher = plain["launcher"] if isinstance(self.launcher, CommandLauncher) else {}
        return not set(names) <= _OF_THE_JOB or "${" in str(launcher)

    def ready(self, job: Job) -> ReadyJob:
        """Return a job with its folder; raises `SweepError` if that is the folder of another job.

        In its name are the overrides that differ from those of other jobs.
        """
        config = self.compose(job.chosen) if self.composes else self.template
        shared = [one for one in self.fixed if not is_ignored(key_of(one), (*self.ignored, "sweep"))]
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = job.number
            config.hydra.job.override_dirname = folder_name(",".join(job.chosen or shared))
        before = HydraConfig.instance().cfg
        try:
            HydraConfig.instance().cfg = config  # type: ignore[assignment]
            name = str(config.hydra.sweep.subdir)
        finally:
            HydraConfig.instance().cfg = before
        folder = self.folder / name
        if self.folders.setdefault(folder, job.number) != job.number:
            raise SweepError(
                f"Jobs {self.folders[folder]} and {job.number} would have the same folder, {name}: set "
                "hydra.sweep.subdir with ${hydra:job.num} in it."
            )
        return ReadyJob(job, [*self.fixed, *job.chosen], config.hydra.launcher, folder)

    def _jobs_to_run(self) -> Iterator[ReadyJob]:
        for job in self.propose():
            label = " ".join(job.chosen)
            try:
                ready, refused = self.ready(job), None
            except SweepError as error:
                if not isinstance(error.__cause__, _REFUSALS):
                    raise
                folder = self.folder / f"{job.number}_{folder_name(label)}"
                ready, refused = ReadyJob(job, (), self.settings.hydra.launcher, folder), str(error)
            if (before := read_outcome(ready.folder)).is_result:
                self.on_job_end(job, before)
                continue
            log.info(f"job {job.number}{': ' if label else ''}{label}   ({job.number + 1} of {self.total})")
            (ready.folder / FAILED).unlink(missing_ok=True)  # of an earlier start of the sweep
            if refused is None:
                yield ready
                continue
            self._end(job, self._outcome(ready, refused))
            if self._stops():
                return

    def _run(self) -> None:
        exception: BaseException | None = None
        try:
            with closing(self._outcomes()) as outcomes:
                for job, outcome in outcomes:
                    self._end(job, outcome)
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
            number = self.signals.received or getattr(exception, "signal", None)
            sys.exit(128 + (number or signal.SIGINT))
        if self.failed:
            rest = "the rest and " if self._stops() else ""
            raise SweepError(f"Some jobs failed. Run {rest}the failed jobs with: {self._resume_command()}")

    def _end(self, job: Job, outcome: Outcome) -> None:
        self.on_job_end(job, outcome)
        self.failed |= not outcome.is_result

    def _stops(self) -> bool:
        return self.failed and bool(OmegaConf.select(self.settings, "sweep.fail_fast"))

    def _outcomes(self) -> Generator[tuple[Job, Outcome], None, None]:
        jobs = self._jobs_to_run()
        if not isinstance(self.launcher, CommandLauncher):  # one of Hydra's, whose jobs run in this process
            for ready in jobs:
                failure = self._launch(ready)
                yield ready.job, self._outcome(ready, failure)
            return
        running: dict[int, ReadyJob] = {}

        def commands() -> Iterator[Command]:
            for ready in jobs:
                running[ready.job.number] = ready
                yield self._command(ready)

        with closing(self.launcher.run(commands())) as ended:  # type: ignore[type-var]
            for number, failure in ended:
                ready = running.pop(number)
                outcome = self._outcome(ready, failure)
                if outcome.is_result:
                    log.info(f"job {number} {outcome.status}: {_results(outcome, self.goal)}")
                yield ready.job, outcome

    def _launch(self, ready: ReadyJob) -> str | None:
        """Run a job with one of Hydra's launchers; return why it has failed, if it has not recorded it."""
        subdir = ready.folder.relative_to(self.folder)
        overrides = [*ready.overrides, f"hydra.sweep.subdir={quote(subdir)}", "hydra.mode=MULTIRUN"]
        if "resume" in self.settings and (ready.folder / RESOLVED).is_file():
            overrides.append(f"resume={quote(ready.folder)}")
        with _same_start_for_the_next_job(), env_override(self._environment(ready)):
            try:
                (result,) = self.launcher.launch([overrides], ready.job.number)
            except SystemExit as stop:
                if self.signals.received:  # libraries may turn an interrupt into a SystemExit
                    raise
                configure_log(self.settings.hydra.hydra_logging, self.settings.hydra.verbose)
                return describe_exit(stop.code)
            except _REFUSALS as error:
                return _message(error)
            failure = error_of(result)
            if failure is not None:
                # The traceback is written now: its frames hold the job's tensors.
                record_failure(ready.folder, failure)
            return None

    def _command(self, ready: ReadyJob) -> Command:
        number, folder = ready.job.number, ready.folder
        place = [f"hydra.run.dir={quote(folder)}", f"hydra.job.num={number}", f"hydra.job.id={number}"]
        typed = self.settings.hydra.overrides.hydra
        hydra = [one for one in typed if not key_of(one).startswith(_SWEEP_SETTINGS)]
        start = [*self.command.arguments(), *hydra, *self.command.single, *place]
        resume = None
        if "resume" in self.settings:
            changeable = [one for one in ready.overrides if is_ignored(key_of(one), self.ignored)]
            resume = [*start, *changeable, f"resume={quote(folder)}"]
        options: Any = OmegaConf.to_container(ready.options, resolve=True)
        return Command(number, folder, [*start, *ready.overrides], resume, self._environment(ready), options)

    def _environment(self, ready: ReadyJob) -> dict[str, str]:
        folder = str(ready.folder)
        if not self.prunes:
            return CurrentJob(folder).environment()
        return CurrentJob(folder, str(self.folder), ready.job.trial, self.goal.first).environment()

    def _outcome(self, ready: ReadyJob, failure: str | None) -> Outcome:
        """Read how a job ended, and report a failure; `failure` is recorded if the job could not do it."""
        outcome = read_outcome(ready.folder)
        if failure is not None and outcome.status == "unfinished":
            record_failure(ready.folder, failure)
            outcome = read_outcome(ready.folder)
        if not outcome.is_result:
            log.error(f"job {ready.job.number} failed: {outcome.error or 'its folder has no result'}")
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
        return self.command.text([*needed, path_override(key, self.folder), *again])


def _message(error: Exception) -> str:
    """Return what Hydra says about settings that cannot be combined, without hints that do not help here."""
    message = str(error).split("\nConfig search path:")[0].split("\nTo append")[0]
    return f"{message} {str(error.__cause__).splitlines()[0]}" if error.__cause__ else message


def _results(outcome: Outcome, goal: Goal) -> str:
    """Return the objectives of a job as text."""
    values = {name: outcome.metrics.get(name) for name in goal.objectives}
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return ", ".join(f"{name} {format_metric(name, value)}" for name, value in numbers.items())


class _Signals:
    """Lets SIGTERM end a sweep as Ctrl-C does, and tells which of them has come.

    nohup and background shells leave SIGINT ignored. Where the app handles a signal itself, it stays so.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        raise KeyboardInterrupt


@contextmanager
def _same_start_for_the_next_job() -> Iterator[None]:
    """Undo what a job leaves behind in this process: environment, flags of torch, memory."""
    environment, torch = dict(os.environ), sys.modules.get("torch")
    deterministic = torch is not None and torch.are_deterministic_algorithms_enabled()
    benchmark = torch is not None and torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        if torch := sys.modules.get("torch"):
            gc.collect()
            torch.use_deterministic_algorithms(deterministic)
            torch.backends.cudnn.benchmark = benchmark
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
