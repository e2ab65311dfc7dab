"""One job of a command: its folder, its settings, and how it ends.

A run of train.py is a folder. It holds its settings (`.hydra/resolved.yaml`), from which it is resumed, and
`metrics.json` or `failed.json`. What became of a run is read from its folder alone.
"""

import contextlib
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, ListConfig, OmegaConf

from hydra_sweeps import FAILED, HISTORY, METRICS, RESOLVED, in_sweep, quote
from mnist_cnn.app.overrides import PATHS
from mnist_cnn.app.paths import CONF, find_checkpoint
from mnist_cnn.app.resumed import changes_of, read_settings
from mnist_cnn.app.settings import has_validation
from mnist_cnn.errors import UserError, one_line
from mnist_cnn.files import ROOT, atomic_write, write_json
from mnist_cnn.training.ranks import is_first_rank, is_rank_of_a_job, is_restarted, processes_started

log = logging.getLogger(__name__)

# Settings that are not shown as what was swept.
_NO_HPARAMS = ("data.dir", "seed", "resume", "trainer.accelerator", "trainer.rank_timeout", "trust")


class Job:
    """A job of evaluate.py, predict.py or export.py.

    `folder` is that of its output. `settings` are read-only, with nothing left to interpolate; paths in them
    are relative to the folder in which the command was typed, or absolute.
    """

    result = "evaluation.json"  # the file, and the value in it, that the job returns

    def __init__(self, name: str, config: DictConfig) -> None:
        self.name = name
        self.folder = Path(HydraConfig.get().runtime.output_dir)
        self.settings = OmegaConf.create(self._compose(config))
        OmegaConf.set_readonly(self.settings, True)

    def _compose(self, config: DictConfig) -> dict[str, Any]:
        """Return the settings as plain dicts, lists and values."""
        settings = OmegaConf.create(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
        if HydraConfig.get().job.chdir:
            _make_paths_absolute(settings)
        return _plain(settings)

    @property
    def plain(self) -> dict[str, Any]:
        """The settings as plain dicts, lists and values, for what does not know OmegaConf."""
        return _plain(self.settings)

    @property
    def objective(self) -> str:
        """The name of the value that the job returns."""
        return "test/acc"

    def rank_command(self) -> list[str]:
        """Return the script and the arguments with which a process takes part in this job as a rank."""
        overrides = list(HydraConfig.get().overrides.task)
        place = [f"hydra.run.dir={quote(str(self.folder))}", "hydra.output_subdir=null"]
        return [str(ROOT / f"{self.name}.py"), *overrides, *place]

    def value(self) -> float | None:
        """Return the result of the job from its folder, None if it was not measured."""
        results: dict[str, Any] = json.loads((self.folder / self.result).read_text())
        return results.get(self.objective)

    def find_files(self) -> None:
        """Find the files that the settings name; raises `UserError` that lists others if one is missing."""
        ckpt = self.plain["ckpt"]
        self.checkpoints = [find_checkpoint(path) for path in (ckpt if isinstance(ckpt, list) else [ckpt])]

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Hold what the job needs while it runs."""
        yield

    def record_failure(self, message: str) -> bool:
        """Write why the job failed into its folder, if it is a run that has begun; return whether it is."""
        return False

    def recorded_failure(self) -> str | None:
        """Return why a rank of the job failed, if it has recorded that."""
        return None

    def interrupted(self) -> None:
        """Say how the job can go on."""


class Run(Job):
    """A run of train.py.

    With `resume` its settings are those in its folder, and the command line can change only those that do not
    change what it learns. Nothing is written into the folder of a resumed run until it trains.
    """

    result = METRICS

    def __init__(self, name: str, config: DictConfig) -> None:
        self.resumes = config.resume is not None
        self._changes: dict[str, Any] = {}
        self._has_begun = False
        super().__init__(name, config)

    def _compose(self, config: DictConfig) -> dict[str, Any]:
        multirun = HydraConfig.get().mode is RunMode.MULTIRUN
        if multirun and processes_started() is not None:
            raise UserError(
                "torchrun and srun start the processes of one run; start a sweep with python train.py -m."
            )
        if not self.resumes and is_restarted() and self._has_checkpoint():
            self.resumes = True  # after a failure of torchrun, or a requeue of Slurm
        composed = super()._compose(config)
        overrides = list(HydraConfig.get().overrides.task)
        if not self.resumes:
            return composed | {"hparams": composed["hparams"] | _swept(composed, overrides)}
        # The process that has started a rank has written the settings, or checked them.
        saved = read_settings(self.folder / RESOLVED, None if is_rank_of_a_job() else composed["trust"])
        self._changes = changes_of(saved, composed, overrides)
        self._refuse_fewer_epochs()
        has_finished = (self.folder / METRICS).is_file() and not (self.folder / FAILED).is_file()
        if has_finished and not any(key.startswith("trainer.") for key in self._changes):
            self._stop_as_finished()
        settings = OmegaConf.create(saved)
        for key, value in self._changes.items():
            OmegaConf.update(settings, key, value)
        for logger in settings.logger.values():
            if logger and "save_dir" in logger:
                logger.save_dir = str(self.folder)  # which may have been moved
        where = {"resume": None, "trust": composed["trust"]}  # not what the folder says
        return _plain(settings) | where

    def _refuse_fewer_epochs(self) -> None:
        file, wanted = self.folder / HISTORY, self._changes.get("trainer.max_epochs")
        done = len(json.loads(file.read_text())) if file.is_file() else 0
        if isinstance(wanted, int) and wanted < done:
            raise UserError(f"trainer.max_epochs={wanted}: the run has trained {done} epochs already.")

    def _stop_as_finished(self) -> None:
        if is_first_rank():
            sys.stdout.write(
                f"{self.folder} has finished; its results are in {self.folder / METRICS}.\n"
                "To train longer, raise trainer.max_epochs; to measure it again, run evaluate.py.\n"
            )
        sys.exit()

    def _has_checkpoint(self) -> bool:
        return any((self.folder / "checkpoints").glob("*.ckpt"))

    def find_files(self) -> None:
        self.init_from = None  # the checkpoint from whose weights a new run starts
        if self.settings.init_from is not None and not self.resumes:
            self.init_from = find_checkpoint(self.settings.init_from, "init_from")

    @property
    def objective(self) -> str:
        return str(self.settings.objective.metric)

    @property
    def selects_by(self) -> tuple[str, Literal["min", "max"]] | None:
        """The metric and the mode by which the best epoch is chosen; None if the last one is the result."""
        objective = self.settings.objective
        if has_validation(self.settings) or objective.metric.startswith("train/"):
            return objective.metric, objective.mode
        return None

    @property
    def lr_source(self) -> str | None:
        """The file in conf/loss_optim/ that set the learning rate, None if no such file did."""
        hparams = self.settings.hparams
        path = CONF / "loss_optim" / f"{hparams.loss}_{hparams.optim}.yaml"
        if not path.is_file() or OmegaConf.load(path).lr != self.settings.optim.lr:
            return None
        return str(path.relative_to(ROOT))

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Keep other processes out of the folder, and write the settings of a new run."""
        if is_rank_of_a_job():  # the process that has started it keeps them out
            self._has_begun = not self._has_checkpoint()  # of a new run, the folder may say why it failed
            yield
            return
        if not is_first_rank():
            self._wait_for_first_rank()
            yield
            return
        lock = FileLock(self.folder / ".lock")  # which the system releases when the process is killed
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{self.folder} is the folder of a run that is still running; stop it first."
            ) from None
        with held:
            if not self.resumes:
                if self._has_checkpoint():
                    raise UserError(
                        f"{self.folder} already holds a run. Resume it with resume={self.folder}, or choose "
                        "another folder with hydra.run.dir."
                    )
                self.begin()
            yield

    def _wait_for_first_rank(self, seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while not (self.folder / RESOLVED).is_file():
            if time.monotonic() > end:
                raise UserError(
                    f"The first process of this run has not written {self.folder / RESOLVED}. All must see "
                    "the same files."
                )
            time.sleep(0.05)

    def begin(self) -> None:
        """Write the settings: of a new run when it starts, of a resumed one when it trains."""
        self._has_begun = True
        if not is_first_rank():
            return
        path = self.folder / RESOLVED
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as aside:
            OmegaConf.save(self.settings, aside)
        (self.folder / FAILED).unlink(missing_ok=True)

    def rank_command(self) -> list[str]:
        changes = [f"{key}={quote_value(value)}" for key, value in self._changes.items()]
        trust = f"trust=[{','.join(map(quote, self.settings.trust))}]"
        return [str(ROOT / "train.py"), f"resume={quote(str(self.folder))}", trust, *changes]

    def record_failure(self, message: str) -> bool:
        is_first = not is_rank_of_a_job() or not (self.folder / FAILED).exists()
        if self._has_begun and is_first:  # else the folder is left as it was
            with contextlib.suppress(OSError):  # a full disk may be what failed
                write_json(self.folder / FAILED, {"error": one_line(message)})
        return self._has_begun

    def recorded_failure(self) -> str | None:
        if not self._has_begun or not (self.folder / FAILED).is_file():
            return None
        return str(json.loads((self.folder / FAILED).read_text())["error"])

    def interrupted(self) -> None:
        if in_sweep() or is_rank_of_a_job() or not is_first_rank() or not self._has_begun:
            return
        resume = shlex.quote(f"resume={os.path.relpath(self.folder)}")
        if self.settings.trust:
            resume += " " + shlex.quote(f"trust=[{','.join(self.settings.trust)}]")
        log.info(f"interrupted; resume with: python train.py {resume}")


def quote_value(value: Any) -> str:
    """Return a plain value in the form that Hydra's command line takes."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{quote_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(quote_value, value)) + "]"
    return quote(value) if isinstance(value, str) else str(value)


def _swept(settings: Mapping[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return the settings of the command line that `hparams` does not show."""
    source = _plain(OmegaConf.load(CONF / "train.yaml"))["hparams"]
    shown = {str(value).strip("${}") for value in source.values()}
    found: dict[str, Any] = {}
    for override in overrides:
        key, _, text = override.partition("=")
        key = key.lstrip("+~")
        is_group = (CONF / key).is_dir()  # whose choice may be a list, which Hydra does not keep
        value = text if is_group else OmegaConf.select(OmegaConf.create(dict(settings)), key)
        known = key in shown or key in source or key in _NO_HPARAMS or key.startswith("sweep.")
        if not known and value is not None:
            found[key] = value if isinstance(value, int | float) else str(value)
    return found


def _plain(config: Any) -> dict[str, Any]:
    settings = OmegaConf.to_container(config, resolve=False)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


def _make_paths_absolute(settings: DictConfig | ListConfig) -> None:
    """Keep paths relative to the folder in which the command was typed."""
    for key in PATHS:
        path = OmegaConf.select(settings, key)
        if isinstance(path, ListConfig):
            OmegaConf.update(settings, key, [to_absolute_path(one) for one in path])
        elif path is not None:
            OmegaConf.update(settings, key, to_absolute_path(path))
