"""A sweep from start to end: which jobs to run, running them, how each ended, the report.

Hydra's own sweepers show only the first failure, cannot be resumed, and write no summary. Here the result of
a job is read from its folder, so that it does not matter which process on which machine has run it.
"""

import gc
import json
import logging
import os
import shlex
import signal
import sys
from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus, env_override
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hydra_sweeps import definition, report
from hydra_sweeps.definition import is_ignored, key_of
from hydra_sweeps.files import atomic_write, write_json
from hydra_sweeps.interface import FAILED, JOB_VARIABLE, SweepError, quote
from hydra_sweeps.launchers import Command, CommandLauncher
from hydra_sweeps.report import format_metric
from hydra_sweeps.runs import Goal, Outcome, goal_of, read_outcome

# Settings of Hydra for the sweep, not for the run of a job.
_SWEEP_SETTINGS = (
    "hydra.mode",
    "hydra.sweep",
    "hydra/sweep",
    "hydra.launcher",
    "hydra/launcher",
    "hydra.run.",
)

# Settings of the app for the sweep, not for its jobs.
_OF_THE_SWEEP = ("sweep.resume", "sweep.fail_fast")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One job of a sweep; `label` are the overrides that differ from other jobs."""

    number: int
    overrides: tuple[str, ...]
    label: str
    folder: Path
    config: DictConfig | None  # None if its settings cannot be combined
    trial: int | None = None  # in a search, its number in the study
    refused: SweepError | None = None  # why its settings cannot be combined


class BaseSweep(Sweeper):
    """Base of the sweepers of this package; a subclass chooses the jobs.

    A job that fails does not end the sweep, unless `sweep.fail_fast=true`. With `sweep.resume=FOLDER`
    finished jobs are kept and the others continued. At the end there is a report, and a `SweepError` if a job
    failed.
    """

    prunes = False

    def __init__(self, params: Mapping[str, str]) -> None:
        self.params = dict(params)
        self.total = 0  # number of jobs
        self.failed = False  # whether a job has failed
        self.folders: dict[Path, int] = {}  # numbers of the jobs by their folders

    @abstractmethod
    def begin(self, overrides: list[Override], resumed: bool) -> None:
        """Take the overrides of the sweep, and set `total`."""

    @abstractmethod
    def propose(self) -> Iterator[Job]:
        """Yield the jobs, each when it can be started; those that have finished before are skipped."""

    def on_job_end(self, job: Job, outcome: Outcome) -> None:
        """Take note of how `job` ended."""

    def draw(self, folder: Path) -> None:
        """Write figures into `folder`, in addition to those of every sweep."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.settings: DictConfig = config
        self.config_loader = hydra_context.config_loader
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.folder = Path(str(config.hydra.sweep.dir))
        plain = OmegaConf.to_container(config, resolve=False)
        assert isinstance(plain, dict)
        self.goal: Goal = goal_of(plain)

    def sweep(self, arguments: list[str]) -> None:
        given = [f"{key}={value}" for key, value in self.params.items()] + arguments
        parsed = OverridesParser.create(self.config_loader).parse_overrides(given)
        overrides = [one for one in parsed if one.key_or_group not in _OF_THE_SWEEP]
        for one in overrides:
            if getattr(one.value(), "shuffle", False):
                raise SweepError(
                    f"{one.input_line}: resuming the sweep would give another order. Leave out shuffle()."
                )
        resumed = OmegaConf.select(self.settings, "sweep.resume") is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                file = self.folder / definition.FILE
                if resumed:
                    definition.refuse_changes(definition.read(self.folder), self.settings, self.folder)
                elif file.exists():
                    raise SweepError(
                        f"{self.folder} already holds a sweep. Resume it with: {self._resume_command()}, "
                        "or choose another folder with hydra.sweep.dir."
                    )
                self.begin(overrides, resumed)
                with atomic_write(file) as temporary:
                    OmegaConf.save(self.settings, temporary)
                with _terminated_like_interrupted():
                    self._run()
        except Timeout:
            raise SweepError(
                f"Another process is running the sweep in {self.folder}. Wait until it ends, or stop it with "
                "Ctrl-C or kill."
            ) from None

    def compose(self, overrides: Sequence[str], label: str) -> DictConfig:
        """Return the settings of a job; raises `SweepError`, with its `label`, if they cannot be combined."""
        try:
            return self.config_loader.load_sweep_config(self.settings, list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            message = str(error).split("\nConfig search path:")[0].split("\nTo append")[0]
            cause = f" {str(error.__cause__).splitlines()[0]}" if error.__cause__ else ""
            raise SweepError(f"{label}: {message}{cause}") from error

    def job(self, number: int, fixed: Sequence[str], chosen: Sequence[str], trial: int | None = None) -> Job:
        """Compose the settings of a job and name its folder.

        The name is made of the overrides `chosen` for this job, not of those that all jobs share. Raises
        `SweepError` if the folder is that of another job.
        """
        overrides, label = (*fixed, *chosen), " ".join(chosen)
        try:
            config = self.compose(overrides, label)
        except SweepError as refused:
            folder = self.folder / _file_name(f"{number}_{label}")
            return Job(number, overrides, label, folder, None, trial, refused)
        named = chosen or [
            one for one in fixed if not self._is_ignored(one) and not key_of(one).startswith("sweep.")
        ]
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
            config.hydra.job.override_dirname = _file_name(",".join(named))
        before = HydraConfig.instance().cfg
        try:
            HydraConfig.instance().set_config(config)
            folder = self.folder / str(config.hydra.sweep.subdir)
        finally:
            HydraConfig.instance().cfg = before
        if self.folders.setdefault(folder, number) != number:
            raise SweepError(
                f"Jobs {self.folders[folder]} and {number} would have the same folder, {folder}: set "
                "hydra.sweep.subdir with ${hydra:job.num} in it."
            )
        return Job(number, overrides, label, folder, config, trial)

    def _run(self) -> None:
        exception: BaseException | None = None
        try:
            with closing(self._outcomes()) as outcomes:
                for job, outcome in outcomes:
                    self._end(job, outcome)
                    if self._stops():
                        break
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            exception = error
        try:
            self._report()
        except Exception as error:  # must not hide how the sweep ended
            if exception is None or not isinstance(error, SweepError):  # that no job has started
                log.error(f"The report could not be written: {error}")
        if isinstance(exception, Exception):
            log.error(f"The sweep has stopped. When this is fixed, resume with: {self._resume_command()}")
            raise exception
        if exception is not None:  # libraries may turn an interrupt into a SystemExit
            log.info(f"interrupted; resume with: {self._resume_command()}")
            sys.exit(130)
        if self.failed:
            rest = "the rest and " if self._stops() else ""
            raise SweepError(f"Some jobs failed. Run {rest}the failed jobs with: {self._resume_command()}")

    def _end(self, job: Job, outcome: Outcome) -> None:
        self.on_job_end(job, outcome)
        self.failed |= outcome.status in ("failed", "unfinished")

    def _stops(self) -> bool:
        return self.failed and bool(OmegaConf.select(self.settings, "sweep.fail_fast"))

    def _resume_command(self) -> str:
        folder = os.path.relpath(self.folder)
        overrides = self.settings.hydra.overrides
        again = definition.left_out((*overrides.hydra, *overrides.task))
        typed = get_args_parser().parse_known_args(sys.argv[1:])[0]
        options = [
            f"--{name}={value}"
            for name in ("config-path", "config-dir", "config-name")
            if (value := getattr(typed, name.replace("-", "_")))
        ]
        return shlex.join(["python", Path(sys.argv[0]).name, *options, f"sweep.resume={folder}", *again])

    def _report(self) -> None:
        self.draw(self.folder / "figures")
        text = report.write(self.folder, self.goal)
        log.info(f"\n{text}\nsweep folder: {os.path.relpath(self.folder)}")

    def _outcomes(self) -> Generator[tuple[Job, Outcome], None, None]:
        jobs = self._jobs_to_run()
        if isinstance(self.launcher, CommandLauncher):
            running: dict[int, Job] = {}

            def commands() -> Iterator[Command]:
                for job in jobs:
                    running[job.number] = job
                    yield self._command(job)

            with closing(self.launcher.run(commands())) as ended:  # type: ignore[type-var]
                for number, error in ended:
                    job = running.pop(number)
                    outcome = self._outcome(job, error)
                    if outcome.status in ("finished", "pruned"):
                        values = [
                            f"{name} {format_metric(name, value)}"
                            for name in self.goal.objectives
                            if isinstance(value := outcome.metrics.get(name), int | float)
                        ]
                        log.info(f"job {number} {outcome.status}: {', '.join(values)}")
                    yield job, outcome
        else:  # one of Hydra's launchers, whose jobs run in this process
            for job in jobs:
                yield job, self._outcome(job, self._launch(job))

    def _jobs_to_run(self) -> Iterator[Job]:
        for job in self.propose():
            before = read_outcome(job.folder)
            if before.status in ("finished", "pruned"):
                self.on_job_end(job, before)
                continue
            label = f": {job.label}" if job.label else ""
            log.info(f"job {job.number}{label}   ({job.number + 1} of {self.total})")
            if job.refused is not None:
                self._end(job, self._outcome(job, str(job.refused)))
                if self._stops():
                    return
                continue
            (job.folder / FAILED).unlink(missing_ok=True)  # from an earlier start of the sweep
            yield job

    def _launch(self, job: Job) -> str | None:
        """Run a job with one of Hydra's launchers; return its error."""
        overrides = [*job.overrides, f"hydra.sweep.subdir={quote(job.folder.relative_to(self.folder))}"]
        if "resume" in self.settings and job.folder.exists():
            overrides.append(f"resume={quote(job.folder)}")
        with _same_start_for_the_next_job(), env_override(self._environment(job)):
            try:
                (result,) = self.launcher.launch([overrides], job.number)
            except Exception as error:
                return f"{type(error).__name__}: {error}"
            # Only the text is kept: the frames of a traceback hold the job's tensors.
            raised = result._return_value
            return f"{type(raised).__name__}: {raised}" if result.status is JobStatus.FAILED else None

    def _command(self, job: Job) -> Command:
        assert job.config is not None
        folder = job.folder.absolute()
        numbers = [f"hydra.job.{name}={job.number}" for name in ("num", "id")]
        place = [f"hydra.run.dir={quote(folder)}", *numbers]
        hydra = [
            one for one in self.settings.hydra.overrides.hydra if not key_of(one).startswith(_SWEEP_SETTINGS)
        ]
        fresh = [*_program(), *_options(self.settings), *hydra, *job.overrides, *place]
        resume = None
        if "resume" in self.settings:
            changeable = [one for one in job.overrides if self._is_ignored(one)]
            resume = [*_program(), *changeable, f"resume={quote(folder)}", *place]
        options: Any = OmegaConf.to_container(job.config.hydra.launcher, resolve=True)
        return Command(job.number, folder, fresh, resume, self._environment(job), options)

    def _is_ignored(self, override: str) -> bool:
        return is_ignored(key_of(override), OmegaConf.select(self.settings, "sweep.ignore", default=[]))

    def _environment(self, job: Job) -> dict[str, str]:
        content: dict[str, Any] = {"folder": str(job.folder.absolute())}
        if self.prunes:
            metric = next(iter(self.goal.objectives))
            content |= {"sweep": str(self.folder.absolute()), "trial": job.trial, "metric": metric}
        return {JOB_VARIABLE: json.dumps(content)}

    def _outcome(self, job: Job, error: str | None) -> Outcome:
        """Read how a job ended, and report a failure; `error` is recorded if the job could not do it."""
        outcome = read_outcome(job.folder)
        if error is not None and outcome.status == "unfinished":
            job.folder.mkdir(parents=True, exist_ok=True)
            write_json(job.folder / FAILED, {"error": " ".join(error.split())})
            outcome = read_outcome(job.folder)
        if outcome.status in ("failed", "unfinished"):
            log.error(f"job {job.number} failed: {outcome.error or 'its folder has no result'}")
            file = job.folder / f"{self.settings.hydra.job.name}.log"
            if file.is_file() and "Traceback" in file.read_text(errors="replace"):
                log.error(f"  traceback: {os.path.relpath(file)}")
        return outcome


def _file_name(text: str) -> str:
    """Return `text` as the name of one folder, which may have 255 bytes."""
    return text.replace("/", "-").encode()[:200].decode(errors="ignore")


def _program() -> list[str]:
    """Return the command that runs this app: a script, or a module that was run with `python -m`."""
    spec = sys.modules["__main__"].__spec__
    if spec is not None:
        return [sys.executable, "-m", spec.name.removesuffix(".__main__")]
    return [sys.executable, os.path.abspath(sys.argv[0])]


def _options(config: DictConfig) -> list[str]:
    """Return the options with which Hydra finds the same config again."""
    options = [f"--config-name={config.hydra.job.config_name}"]
    for source in config.hydra.runtime.config_sources:
        name = {"main": "config-path", "command-line": "config-dir"}.get(source.provider)
        if name is not None and source.path:
            scheme = "" if source.schema == "file" else f"{source.schema}://"
            options.append(f"--{name}={scheme}{source.path}")
    return options


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end a sweep as Ctrl-C does: nohup and background shells leave SIGINT ignored.

    Where the app handles SIGTERM itself, it stays so.
    """
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


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
        gc.collect()
        if torch := sys.modules.get("torch"):
            torch.use_deterministic_algorithms(deterministic)
            torch.backends.cudnn.benchmark = benchmark
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
