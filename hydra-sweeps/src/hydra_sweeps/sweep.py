"""A sweep from start to end: which jobs to run, running them, how each ended, the report.

Hydra's own sweepers show only the first failure, cannot be resumed, and write no summary. Here the result of
a job is read from its folder, so that it does not matter which process on which machine has run it.
"""

import gc
import logging
import os
import re
import secrets
import signal
import sys
from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from hydra_sweeps import definition
from hydra_sweeps.commands import AppCommand
from hydra_sweeps.contract import FAILED, METRICS, OVERRIDES, RESOLVED, CurrentJob, Job, SweepError, explained
from hydra_sweeps.definition import OF_THE_START, is_ignored, left_out
from hydra_sweeps.files import printable, read_or_none, write_yaml
from hydra_sweeps.goal import Goal, check_objective, goal_of
from hydra_sweeps.grammar import as_override, folder_name, key_of, last_of_each, parse, quote, with_chosen
from hydra_sweeps.launchers.base import Command, CommandLauncher
from hydra_sweeps.outcome import Outcome, describe_exit, error_of, read_outcome, record_failure, remove_result
from hydra_sweeps.report import writing
from hydra_sweeps.runs import number

# Settings of Hydra for the sweep, not for the run of a job.
_OF_THE_SWEEP = re.compile(r"hydra([./](sweep|launcher)|\.mode|\.run\.)")

# A name of a job's folder that is its number alone.
_NUMBER = re.compile(r"\$\{hydra[.:]job\.(num|id)\}")

# What Hydra raises where settings cannot be combined.
_REFUSALS = (HydraException, OmegaConfBaseException)

log = logging.getLogger(__name__)


class BaseSweep(Sweeper):
    """Base of the sweepers of this package; a subclass chooses the jobs.

    A job that fails does not end the sweep, unless `sweep.fail_fast=true`. With `sweep.resume=FOLDER`
    finished jobs are kept and the others continued. At the end there is a report, and a `SweepError` if a job
    failed.
    """

    prunes = False

    def __init__(self, params: Mapping[str, str]) -> None:
        self.params = dict(params)
        self.overrides: list[Override] = []
        self.total = 0  # number of jobs
        self.running: dict[int, Command] = {}  # jobs that have started and not ended
        self.failed = False  # whether a job has failed

    @abstractmethod
    def begin(self, swept: list[Override], resumed: bool) -> None:
        """Take the overrides that are swept, and set `total`."""

    @abstractmethod
    def propose(self) -> Iterator[Job]:
        """Yield the jobs, each when it can be started; those that have finished before are skipped."""

    def on_job_end(self, job: Job, outcome: Outcome) -> None:
        """Take note of how a job ended."""

    # --- the start ---------------------------------------------------------------------------------

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.settings: DictConfig = config
        self.context: dict[str, Any] = {"hydra_context": hydra_context, "task_function": task_function}
        self.loader = hydra_context.config_loader
        self.folder = Path(os.path.abspath(config.hydra.sweep.dir))
        self.ignored = tuple(OmegaConf.select(config, "sweep.ignore") or ())
        plain: Any = OmegaConf.to_container(config.hydra, resolve=False)  # ${…} is text
        self.given: list[str] = plain["overrides"]["hydra"]
        self.arguments: list[str] = plain["overrides"]["task"]
        self.subdir = str(plain["sweep"]["subdir"])
        if OmegaConf.is_dict(config.get("objective")):
            # A report cannot resolve it later: only the app has its resolvers.
            with read_write(config):
                config.objective = OmegaConf.to_container(config.objective, resolve=True)
        settings = OmegaConf.to_container(config, resolve=False)
        check_objective(settings)
        self.goal: Goal = goal_of(settings)

    def sweep(self, arguments: list[str]) -> None:
        folder = OmegaConf.select(self.settings, "sweep.resume")
        try:
            if folder is None:
                self.start(arguments, resumed=False)
            else:
                former = self._of_folder(Path(str(folder)))
                former.start(former.arguments, resumed=True)
        except Exception as error:
            if (for_user := explained(error)) is None:
                raise
            raise for_user from error

    def _of_folder(self, folder: Path) -> "BaseSweep":
        """Return the sweep in `folder`, with the overrides of this one in place of the former ones."""
        overrides = definition.overrides_to_resume(folder, [*self.given, *self.arguments])
        settings = self.loader.load_configuration(
            config_name=self.settings.hydra.job.config_name,
            overrides=[*overrides, as_override("hydra.sweep.dir", str(folder))],
            run_mode=RunMode.MULTIRUN,
        )
        if settings.hydra.callbacks != self.settings.hydra.callbacks:
            raise SweepError(
                f"sweep.resume={folder}: this sweep was started with other callbacks. Add to the command: "
                f"{' '.join(_callbacks(settings, overrides))}"
            )
        sweeper = Plugins.instance().instantiate_sweeper(config=settings, **self.context)
        if not isinstance(sweeper, BaseSweep):
            raise SweepError(f"sweep.resume={folder} is not a sweep of hydra/sweeper=grid or optuna.")
        return sweeper

    def start(self, arguments: list[str], resumed: bool) -> None:
        """Run the sweep with these overrides; `resumed` if its folder is that of an earlier start."""
        given = [f"{key}={value}" for key, value in self.params.items()] + arguments
        parsed = last_of_each(parse(given, self.loader))
        self.overrides = [one for one in parsed if one.key_or_group not in OF_THE_START]
        swept = [one for one in self.overrides if one.is_sweep_override()]
        hydra = [one for one in self.given if not _OF_THE_SWEEP.match(key_of(one))]
        # Where the app's YAML says so, and nobody has typed it, each command would start a sweep.
        typed = any(key_of(one) == "hydra.mode" for one in self.given)
        if self.settings.hydra.mode is RunMode.MULTIRUN and not typed:
            hydra.append("hydra.mode=RUN")
        former = AppCommand.read(self.folder) if resumed else None
        name = f"{self.folder.name}-{secrets.token_hex(3)}" if former is None else former.sweep
        self.command = AppCommand.of_this_process(hydra, name)
        if OmegaConf.select(self.settings, "sweep.resume_jobs") and "resume" not in self.settings:
            raise SweepError(
                "sweep.resume_jobs=true: the app has no setting resume, for the folder of a run."
            )
        plugins = Plugins.instance()
        self.launcher: Launcher = plugins.instantiate_launcher(config=self.settings, **self.context)
        here = os.path.relpath(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SweepError(f"hydra.sweep.dir={here} cannot be created: {error.strerror}.") from error
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                if resumed:
                    definition.refuse_changes(definition.read(self.folder), self.settings, self.folder)
                elif definition.is_sweep(self.folder):
                    raise SweepError(
                        f"{here} already holds a sweep. Resume it with: {self._resume_command()}, or choose "
                        "another folder with hydra.sweep.dir."
                    )
                self.begin(swept, resumed)
                write_yaml(self.folder / definition.FILE, self.settings)
                self.command.write(self.folder)
                with _as_interrupts(isinstance(self.launcher, CommandLauncher)) as self.signals:
                    self._run()
        except Timeout:
            message = f"Another process is running the sweep in {here}. Wait until it ends, or stop it."
            raise SweepError(message) from None

    # --- jobs --------------------------------------------------------------------------------------

    def compose(self, chosen: Sequence[str]) -> DictConfig:
        """Return the settings of a job; raises `SweepError` if they cannot be combined."""
        try:
            return self.loader.load_sweep_config(self.settings, with_chosen(self.overrides, chosen))
        except _REFUSALS as error:
            raise SweepError(f"{' '.join(chosen)}: {_message(error)}") from error

    def ready(self, job: Job) -> Command:
        """Return the command of a job.

        Its folder is named by its number if `hydra.sweep.subdir` says so, else by its number and overrides;
        other names might be those of several jobs.
        """
        fixed = [str(one.input_line) for one in self.overrides if not one.is_sweep_override()]
        shared = [one for one in fixed if not is_ignored(key_of(one), (*self.ignored, "sweep"))]
        label = folder_name(",".join(job.chosen or shared))
        folder = self.folder / (
            str(job.number) if _NUMBER.fullmatch(self.subdir) else f"{job.number}_{label}"
        )
        overrides = with_chosen(self.overrides, job.chosen)
        place = [f"hydra.run.dir={quote(folder)}", *(f"hydra.job.{id}={job.number}" for id in ("num", "id"))]
        resume = None
        if OmegaConf.select(self.settings, "sweep.resume_jobs"):
            changeable = [one for one in overrides if is_ignored(key_of(one), self.ignored)]
            # Hydra would replace the overrides of the run by these.
            resume = [*changeable, f"resume={quote(folder)}", "hydra.output_subdir=null"]
        search = (str(self.folder), job.trial, self.goal.first) if self.prunes else ()
        environment = CurrentJob(str(folder), *search).environment()
        program = [*self.command.arguments(), *self.command.hydra, *place]
        return Command(job, folder, program, overrides, resume, environment)

    def _commands(self) -> Iterator[Command]:
        """Yield the jobs that have no result yet, each when it can be started."""
        for job in self.propose():
            ready, label = self.ready(job), " ".join(job.chosen)
            self._refuse_other_run(ready)
            if (before := read_outcome(ready.folder)).is_result:
                self.on_job_end(job, before)
                continue
            log.info(f"job {job.number}{': ' if label else ''}{label}   ({job.number + 1} of {self.total})")
            remove_result(ready.folder)
            self.running[job.number] = ready
            yield ready

    def _refuse_other_run(self, ready: Command) -> None:
        """Raise `SweepError` if the folder of a job holds a run with other overrides."""
        found = read_or_none(ready.folder / OVERRIDES)
        has_begun = any((ready.folder / name).is_file() for name in (RESOLVED, METRICS))
        if not isinstance(found, list) or not has_begun:
            return
        swept = {one.get_key_element().lstrip("+") for one in self.overrides if one.is_sweep_override()}
        ignored = (*self.ignored, "sweep", "hydra")
        before, now = (
            sorted(
                text
                for text in map(str, overrides)
                if key_of(text) in swept or not is_ignored(key_of(text), ignored)
            )
            for overrides in (found, ready.fresh)
        )
        if before != now:
            raise SweepError(
                f"{os.path.relpath(ready.folder)} holds a run with {printable(' '.join(before))}, where job "
                f"{ready.job.number} would have {' '.join(now)}. Start a new sweep."
            )

    def _ended(self) -> Generator[tuple[Command, str | None], None, None]:
        """Run the jobs, and yield each that has ended, with an error if it was not successful."""
        if isinstance(self.launcher, CommandLauncher):
            yield from self.launcher.run(self._commands())
        else:  # one of Hydra's, whose jobs run in this process
            gc.freeze()  # so that the collector looks only at what the jobs leave
            for ready in self._commands():
                yield ready, self._launch(ready)

    def _run(self) -> None:
        exception: BaseException | None = None
        stops = bool(OmegaConf.select(self.settings, "sweep.fail_fast"))
        try:
            with closing(self._ended()) as ended:
                for ready, failure in ended:
                    if self.signals:  # the job has caught the interrupt
                        raise KeyboardInterrupt
                    outcome = self._outcome(ready, failure)
                    del self.running[ready.job.number]
                    self.on_job_end(ready.job, outcome)
                    self.failed |= not outcome.is_result
                    if self.failed and stops:
                        break
        except BaseException as error:
            exception = error
        for interrupted in self.running.values():  # an app may return what it has, which is not the result
            remove_result(interrupted.folder)
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
            rest = "the rest and " if stops else ""
            raise SweepError(f"Some jobs failed. Run {rest}the failed jobs with: {self._resume_command()}")

    def _launch(self, ready: Command) -> str | None:
        """Run a job with one of Hydra's launchers; return why it has failed, if it has not recorded it."""
        subdir = ready.folder.relative_to(self.folder)
        overrides = [*ready.overrides, f"hydra.sweep.subdir={quote(subdir)}", "hydra.mode=MULTIRUN"]
        environment, cwd = dict(os.environ), os.getcwd()
        os.environ.update(ready.environment)
        try:
            (result,) = self.launcher.launch([overrides], ready.job.number)
        except SystemExit as stop:
            if self.signals:  # libraries may turn an interrupt into a SystemExit
                raise
            configure_log(self.settings.hydra.hydra_logging, self.settings.hydra.verbose)
            return describe_exit(stop.code)
        except _REFUSALS as error:
            return _message(error)
        else:
            if (failure := error_of(result)) is not None:
                record_failure(ready.folder, failure)  # now: the frames of its traceback hold the job's data
            return None
        finally:  # the next job starts as this one has
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(cwd)
            gc.collect()

    def _outcome(self, ready: Command, failure: str | None) -> Outcome:
        """Read how a job ended, and report it; a failure is recorded if the job could not do it."""
        outcome = read_outcome(ready.folder)
        if failure is not None or outcome.status == "unfinished":
            record_failure(ready.folder, failure or "it has left no result in its folder")
            outcome = read_outcome(ready.folder)
        if outcome.is_result and isinstance(self.launcher, CommandLauncher):
            known = {name: number(outcome.metrics.get(name)) for name in self.goal.objectives}
            results = [f"{k} {writing.format_metric(k, v)}" for k, v in known.items() if v is not None]
            log.info(f"job {ready.job.number} {outcome.status}: {', '.join(results)}")
        if not outcome.is_result:
            log.error(f"job {ready.job.number} failed: {outcome.error}")
            file = ready.folder / f"{self.settings.hydra.job.name}.log"
            if file.is_file() and "Traceback" in file.read_text(errors="replace"):
                log.error(f"  traceback: {os.path.relpath(file)}")
            elif outcome.has_traceback:
                log.error(f"  traceback: {os.path.relpath(ready.folder / FAILED)}")
        return outcome

    # --- the command to resume -----------------------------------------------------------------------

    def _resume_command(self) -> str:
        choices = self.settings.hydra.runtime.choices
        if "sweep" in choices:  # of the YAML of this package, which chooses the mode and a sweeper
            key, needed = "sweep.resume", [one for one in self.arguments if key_of(one) == "sweep"]
        else:
            key, needed = "++sweep.resume", ["-m", f"hydra/sweeper={choices['hydra/sweeper']}"]
        without = self.loader.load_configuration(self.settings.hydra.job.config_name, [], RunMode.MULTIRUN)
        if without.hydra.callbacks != self.settings.hydra.callbacks:
            needed += _callbacks(self.settings, self.given)
        again = left_out([*self.given, *self.arguments])
        return self.command.text([*needed, as_override(key, os.path.relpath(self.folder)), *again])


def _callbacks(settings: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Return the overrides with which a sweep with these settings gets its callbacks."""
    typed = [one for one in overrides if key_of(one).startswith(("hydra/callbacks", "hydra.callbacks"))]
    return typed or [f"hydra/callbacks={settings.hydra.runtime.choices['hydra/callbacks']}"]


def _message(error: Exception) -> str:
    """Return what Hydra says about settings that cannot be combined, without hints that do not help here."""
    message = str(error).split("\nConfig search path:")[0].split("\nTo append")[0]
    return f"{message} {str(error.__cause__).splitlines()[0]}" if error.__cause__ else message


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

    for which in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(which)
        is_default = handler in (signal.SIG_DFL, signal.default_int_handler)
        if is_default or (elsewhere and handler != signal.SIG_IGN):
            before[which] = signal.signal(which, interrupt)
    try:
        yield received
    finally:
        for replaced, handler in before.items():
            signal.signal(replaced, handler)
