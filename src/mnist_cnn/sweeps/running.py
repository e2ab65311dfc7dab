"""A sweep from start to end: which jobs are to do, running them, what became of each, the report.

Hydra's own sweepers stop telling after the first failure, cannot go on after a kill, and write nothing
about the whole. What became of a job is read from its folder, so that it does not matter which process, on
which machine, has run it.
"""

import gc
import logging
import os
import shlex
import sys
from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mnist_cnn.errors import UserError
from mnist_cnn.files import atomic_write, write_json
from mnist_cnn.sweeps import definition
from mnist_cnn.sweeps.compare import FAILED, Outcome, outcome
from mnist_cnn.sweeps.definition import quoted
from mnist_cnn.sweeps.launching import composed, failed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One job of a sweep: its number, its overrides of the settings, what is swept of them, its folder."""

    number: int
    overrides: tuple[str, ...]
    told: str
    folder: Path
    trial: int | None = None  # of a search, by Optuna's count
    refused: str | None = None  # why its settings do not go together


class RunningSweep(Sweeper):
    """What all sweeps of this project have in common; a kind of sweep says which jobs there are.

    A failing job does not end the sweep, unless `sweep.fail_fast=true`. With `sweep.resume=FOLDER` the jobs
    that have ended are kept and the others gone on with. At the end there is a report, and a `UserError`
    if a job failed.
    """

    objectives: Mapping[str, str] = {"val/acc": "maximize"}

    def __init__(self, params: Mapping[str, str]) -> None:
        self.params = dict(params)
        self.total = 0  # jobs
        self.failed = False  # whether one of them has
        self.folders: dict[Path, int] = {}  # of the jobs so far, with their numbers

    @abstractmethod
    def begin(self, overrides: list[Override], resumed: bool) -> None:
        """Take the overrides of the sweep, those that are swept among them."""

    @abstractmethod
    def propose(self) -> Iterator[Job]:
        """Give the jobs to do, one when it is asked for; those that have ended already are passed over."""

    @abstractmethod
    def ended(self, job: Job, outcome: Outcome) -> None:
        """Take note of what became of `job`."""

    def draw(self, folder: Path) -> None:
        """Write pictures into `folder`, beside those that every sweep has."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.settings: DictConfig = config
        self.config_loader = hydra_context.config_loader
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.folder = Path(str(config.hydra.sweep.dir))

    def sweep(self, arguments: list[str]) -> None:
        given = [f"{key}={value}" for key, value in self.params.items()] + arguments
        overrides = [
            override
            for override in OverridesParser.create(self.config_loader).parse_overrides(given)
            if not override.get_key_element().lstrip("+~").startswith("sweep.")
        ]
        resumed = self.settings.sweep.resume is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                file = self.folder / definition.FILE
                if resumed:
                    definition.refuse_changes(OmegaConf.load(file), self.settings, self.folder)
                elif file.exists():
                    raise UserError(
                        f"{self.folder} holds a sweep already. Go on with it by sweep.resume={self.folder}, "
                        "or choose another folder with hydra.sweep.dir."
                    )
                self.begin(overrides, resumed)
                with atomic_write(file) as aside:
                    OmegaConf.save(self.settings, aside)
                self._run()
        except Timeout:
            raise UserError(f"Another process is running the sweep in {self.folder}.") from None

    def job(self, number: int, fixed: Sequence[str], chosen: Sequence[str], trial: int | None = None) -> Job:
        """Compose a job's settings and name its folder.

        It is named after what is `chosen` for it, not after what is the same for all. Raises `UserError` for
        settings that do not go together, and where another job has that folder.
        """
        try:
            config = composed(self.config_loader, self.settings, number, [*fixed, *chosen])
        except (HydraException, OmegaConfBaseException) as error:
            said = str(error).split("\nConfig search path:")[0].split("\nTo append")[0]
            cause = f" {str(error.__cause__).splitlines()[0]}" if error.__cause__ else ""
            raise UserError(f"{' '.join(chosen)}: {said}{cause}") from error
        named = [one for one in chosen or fixed if chosen or not one.startswith("data.dir=")]
        with open_dict(config):
            config.hydra.job.override_dirname = ",".join(named)
        before = HydraConfig.instance().cfg
        try:
            HydraConfig.instance().set_config(config)
            name = str(config.hydra.sweep.subdir)
        finally:
            HydraConfig.instance().cfg = before
        folder = self.folder / name
        if self.folders.setdefault(folder, number) != number:
            raise UserError(
                f"The jobs {self.folders[folder]} and {number} would have the same folder, {folder}: give "
                "hydra.sweep.subdir with ${hydra:job.num} in it."
            )
        return Job(number, (*fixed, *chosen), " ".join(chosen), folder, trial)

    def _run(self) -> None:
        stopped = False
        broken: BaseException | None = None
        try:
            with closing(self._results()) as results:
                for job, became in results:
                    self.ended(job, became)
                    self.failed |= became.status in ("failed", "unfinished")
                    if self.failed and self.settings.sweep.fail_fast:
                        stopped = True
                        break
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            broken = error
        try:
            self._report()
        except Exception as error:  # which must not hide how the sweep itself ended
            log.error(f"There is no report: {error}")
        again = f"python {Path(sys.argv[0]).name} " + shlex.quote(f"sweep.resume={_shown(self.folder)}")
        if isinstance(broken, Exception):
            log.error(f"The sweep has stopped; when that is mended go on with: {again}")
            raise broken
        if broken is not None:
            # Lightning ends the process with SystemExit when it is interrupted.
            log.info(f"interrupted; go on with: {again}")
            sys.exit(130)
        if self.failed:
            rest = " the rest and" if stopped else ""
            raise UserError(f"Not every job has ended well. Run{rest} those that failed by: {again}")

    def _report(self) -> None:
        from mnist_cnn.sweeps import report

        self.draw(self.folder / "pictures")
        said = report.write(self.folder, self.objectives)
        log.info(f"\n{said}\nsweep folder: {_shown(self.folder)}")

    def _results(self) -> Generator[tuple[Job, Outcome], None, None]:
        jobs = self._to_do()
        if hasattr(self.launcher, "stream"):  # runs several, and takes the next when one ends
            running: dict[int, Job] = {}

            def feed() -> Iterator[tuple[int, Sequence[str]]]:
                for job in jobs:
                    running[job.number] = job
                    yield job.number, self._launched_as(job)

            with closing(self.launcher.stream(feed())) as ended:
                for number, result in ended:
                    job = running.pop(number)
                    yield job, self._became(job, result)
        else:  # Hydra's own, whose jobs run in this process
            for job in jobs:
                with _nothing_left_behind():
                    try:
                        (became,) = self.launcher.launch([self._launched_as(job)], job.number)
                    except Exception as error:
                        became = failed(error)
                    ended_as = self._became(job, became)
                    del became  # a failed job's tensors hang on the frames of its traceback
                yield job, ended_as

    def _to_do(self) -> Iterator[Job]:
        for job in self.propose():
            before = outcome(job.folder)
            if before.status in ("finished", "pruned"):
                self.ended(job, before)
                continue
            told = f": {job.told}" if job.told else ""
            log.info(f"job {job.number}{told}   ({job.number + 1} of {self.total})")
            if job.refused is not None:
                self._write_failure(job, job.refused)
                self.ended(job, self._told(job))
                self.failed = True
                if self.settings.sweep.fail_fast:
                    return
                continue
            (job.folder / FAILED).unlink(missing_ok=True)  # of an earlier try
            yield job

    def _launched_as(self, job: Job) -> list[str]:
        subdir = str(job.folder.relative_to(self.folder))
        launched = [*job.overrides, f"hydra.sweep.subdir={quoted(subdir)}"]
        if job.folder.exists():
            launched.append(f"resume={quoted(str(job.folder))}")
        if job.trial is not None:
            launched.append(f"+hydra.sweeper.trial={job.trial}")
        return launched

    def _became(self, job: Job, result: JobReturn) -> Outcome:
        """Read what became of a job; where it could not say it itself, say it for it."""
        if result.status is JobStatus.FAILED and outcome(job.folder).status == "unfinished":
            error = result._return_value
            self._write_failure(job, f"{type(error).__name__}: {error}")
        return self._told(job)

    def _write_failure(self, job: Job, said: str) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        write_json(job.folder / FAILED, {"error": " ".join(said.split())})

    def _told(self, job: Job) -> Outcome:
        """Read what became of a job, and say it, unless the job has said it itself."""
        became = outcome(job.folder)
        if became.status in ("failed", "unfinished"):
            log.error(f"job {job.number} failed: {became.error or 'its folder has no result'}")
            if (job.folder / "train.log").is_file():
                log.error(f"  traceback: {_shown(job.folder / 'train.log')}")
        elif hasattr(self.launcher, "stream"):  # elsewhere a job in this process has said all
            told = [_shown_metric(metric, became.metrics.get(metric)) for metric in self.objectives]
            log.info(f"job {job.number} {became.status}: {', '.join(told)}")
        return became


@contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """Give the next job in this process the same start as this one had."""
    environment = dict(os.environ)
    import torch

    deterministic = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _shown_metric(metric: str, value: float | None) -> str:
    return f"{metric} {value:.2%}" if value is not None and metric.endswith("/acc") else f"{metric} {value}"


def _shown(path: Path) -> str:
    return os.path.relpath(path)
