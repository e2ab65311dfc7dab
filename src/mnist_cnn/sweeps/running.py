"""A sweep from start to end: which jobs are to do, running them, what became of each, the report.

Hydra's own sweepers stop telling after the first failure, cannot go on after a kill, and write nothing
about the whole. What became of a job is read from its folder, so that it does not matter which process, on
which machine, has run it.
"""

import gc
import json
import logging
import os
import shlex
import sys
from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from mnist_cnn.errors import UserError
from mnist_cnn.files import write_json, written_aside
from mnist_cnn.sweeps import definition
from mnist_cnn.sweeps.definition import quoted

log = logging.getLogger(__name__)

Status = Literal["finished", "pruned", "failed", "unfinished"]


@dataclass(frozen=True)
class Job:
    """One job of a sweep: its number, its overrides of the settings, what is swept of them, its folder."""

    number: int
    overrides: tuple[str, ...]
    told: str
    folder: Path
    trial: int | None = None  # of a search, by Optuna's count


@dataclass(frozen=True)
class Outcome:
    """What became of a job, as its folder tells: `metrics` of one that ended well, else its `error`."""

    status: Status
    metrics: Mapping[str, Any]
    error: str | None = None


def outcome(folder: Path) -> Outcome:
    """Read what became of the job in `folder`; what cannot be read counts as unfinished."""
    try:
        if (folder / "metrics.json").is_file():
            metrics = json.loads((folder / "metrics.json").read_text())
            return Outcome(metrics.get("status", "finished"), metrics)
        if (folder / "failed.json").is_file():
            return Outcome("failed", {}, json.loads((folder / "failed.json").read_text())["error"])
    except (OSError, ValueError, KeyError):
        pass
    return Outcome("unfinished", {})


class RunningSweep(Sweeper):
    """What all sweeps of this project have in common; a kind of sweep says which jobs there are.

    A failing job does not end the sweep, unless `sweep.fail_fast=true`. With `sweep.resume=FOLDER` the jobs
    that have ended are kept and the others gone on with. At the end there is a report, and a `UserError`
    if a job failed.
    """

    objectives: Mapping[str, str] = {"val/acc": "maximize"}

    def __init__(self, params: Mapping[str, str]) -> None:
        self.params = dict(params)
        self.total = 0  # jobs, as far as is known
        self.n_jobs: int | None = None  # at a time, with launchers that wait for a whole batch

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
                with written_aside(file) as aside:
                    OmegaConf.save(self.settings, aside)
                self._run()
        except Timeout:
            raise UserError(f"Another process is running the sweep in {self.folder}.") from None

    def job(self, number: int, fixed: Sequence[str], chosen: Sequence[str], trial: int | None = None) -> Job:
        """Compose a job's settings, which raises what is wrong with them, and name its folder.

        It is named after what is `chosen` for it, not after what is the same for all.
        """
        config = self.config_loader.load_sweep_config(self.settings, [*fixed, *chosen])
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
            config.hydra.job.override_dirname = ",".join(chosen or fixed)
        before = HydraConfig.instance().cfg
        try:
            HydraConfig.instance().set_config(config)
            name = str(config.hydra.sweep.subdir)
        finally:
            HydraConfig.instance().cfg = before
        return Job(number, (*fixed, *chosen), " ".join(chosen), self.folder / name, trial)

    def _run(self) -> None:
        failed = stopped = False
        interruption: BaseException | None = None
        try:
            with closing(self._results()) as results:
                for job, became in results:
                    self.ended(job, became)
                    if became.status in ("failed", "unfinished"):
                        failed = True
                        if self.settings.sweep.fail_fast:
                            stopped = True
                            break
        except (KeyboardInterrupt, SystemExit) as error:
            # Lightning ends the process with SystemExit when it is interrupted.
            interruption = error
        again = f"python {Path(sys.argv[0]).name} " + shlex.quote(f"sweep.resume={_shown(self.folder)}")
        log.info(self._report())
        if interruption is not None:
            log.info(f"interrupted; go on with: {again}")
            sys.exit(130)
        if failed:
            rest = " the rest and" if stopped else ""
            raise UserError(f"Not every job has ended well. Run{rest} those that failed by: {again}")

    def _report(self) -> str:
        from mnist_cnn.sweeps import report

        if not any(self.folder.glob("*/")):
            return "no job has begun"
        self.draw(self.folder / "pictures")
        said = report.write(self.folder, self.objectives)
        return f"\n{said}\nsweep folder: {_shown(self.folder)}"

    def _results(self) -> Generator[tuple[Job, Outcome], None, None]:
        jobs = self._to_do()
        stream = getattr(self.launcher, "stream", None)
        if stream is not None:  # runs several, and takes the next when one ends
            running: dict[int, Job] = {}

            def feed() -> Iterator[tuple[int, Sequence[str]]]:
                for job in jobs:
                    running[job.number] = job
                    yield job.number, self._launched_as(job)

            with closing(stream(feed())) as ended:
                for number, result in ended:
                    job = running.pop(number)
                    yield job, self._became(job, result)
        elif isinstance(self.launcher, BasicLauncher):
            for job in jobs:
                with _nothing_left_behind():
                    became = self._became(job, *self.launcher.launch([self._launched_as(job)], job.number))
                yield job, became
        else:
            while batch := _take(jobs, self.n_jobs):
                results: Sequence[JobReturn | BaseException]
                try:
                    results = self.launcher.launch([self._launched_as(job) for job in batch], batch[0].number)
                except Exception as error:
                    # The launcher gave up on one job; the others' folders tell what became of them.
                    results = [error] * len(batch)
                for job, result in zip(batch, results, strict=True):
                    yield job, self._became(job, result)

    def _to_do(self) -> Iterator[Job]:
        for job in self.propose():
            before = outcome(job.folder)
            if before.status in ("finished", "pruned"):
                self.ended(job, before)
                continue
            log.info(f"job {job.number}: {job.told}   ({job.number + 1} of {self.total})")
            yield job

    def _launched_as(self, job: Job) -> list[str]:
        launched = [*job.overrides, f"hydra.sweep.subdir={quoted(job.folder.name)}"]
        if job.folder.exists():
            launched.append(f"resume={quoted(str(job.folder))}")
        if job.trial is not None:
            launched.append(f"+hydra.sweeper.trial={job.trial}")
        return launched

    def _became(self, job: Job, result: JobReturn | BaseException) -> Outcome:
        """Read what became of a job; where it could not say it itself, say it for it."""
        became = outcome(job.folder)
        error = None
        if isinstance(result, BaseException):
            error = result
        elif result.status is JobStatus.FAILED:
            error = result._return_value
        if became.status == "unfinished" and error is not None:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            job.folder.mkdir(parents=True, exist_ok=True)
            write_json(job.folder / "failed.json", {"error": said})
            became = outcome(job.folder)
        if became.status in ("failed", "unfinished"):
            log.error(f"job {job.number} failed: {became.error or 'its folder has no result'}")
        elif not isinstance(self.launcher, BasicLauncher):  # where a job in this process has said all
            metrics = ", ".join(f"{name} {became.metrics.get(name)}" for name in self.objectives)
            log.info(f"job {job.number} {became.status}: {metrics}")
        return became


def _take(jobs: Iterator[Job], count: int | None) -> list[Job]:
    taken = []
    for job in jobs:
        taken.append(job)
        if len(taken) == count:
            break
    return taken


@contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """Give the next job in this process the same start as this one had."""
    environment = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        gc.collect()  # a failed job's tensors hang on the frames of its traceback
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _shown(path: Path) -> str:
    return os.path.relpath(path)
