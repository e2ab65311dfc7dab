"""Any number of Lightning loggers, built from their settings, and what is written to all of them."""

import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure

from mnist_cnn.errors import UserError
from mnist_cnn.reporting import figures

EXTRAS = ("wandb", "mlflow")  # optional dependencies of this project that a logger needs

Points = Sequence[tuple[int, Mapping[str, float]]]  # (global step, metrics)


def build(settings: Mapping[str, Any], run_dir: Path, first_epoch: int) -> list[Logger]:
    """Build the loggers named in `settings`, a mapping of names to `_target_` and arguments.

    Where a logger takes `save_dir`, `run_dir` or `first_epoch` and the settings leave it out, it is filled
    in. Raises `UserError` for an unknown class, a wrong argument or a missing package.
    """
    if "_target_" in settings:
        raise UserError(
            "A file in conf/logger needs a key of its own above _target_, so that several loggers can be "
            f"combined:\nmy_logger:\n  _target_: {settings['_target_']}"
        )
    return [_build(name, node, run_dir, first_epoch) for name, node in settings.items() if node is not None]


def _build(name: str, node: Any, run_dir: Path, first_epoch: int) -> Logger:
    key = f"logger.{name}"
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise UserError(f"{key}={node}: it needs a _target_, the class of a Lightning logger.")
    target = node["_target_"]
    try:
        kind = resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}._target_={target}: {_first_line(error)}") from error
    if not (isinstance(kind, type) and issubclass(kind, Logger)):
        raise UserError(f"{key}._target_={target} is not a Lightning logger.")

    filled: dict[str, Any] = {"save_dir": str(run_dir), "run_dir": str(run_dir), "first_epoch": first_epoch}
    if issubclass(kind, WandbLogger):
        # with a fixed id, a resumed run continues its W&B run
        filled |= {"name": run_dir.name, "id": _wandb_id(run_dir)}
        _finish_wandb()
    parameters = inspect.signature(kind).parameters
    filled = {k: v for k, v in filled.items() if k in parameters and k not in node}
    try:
        logger = instantiate(dict(node), **filled)
    except (HydraException, MisconfigurationException) as error:
        cause = error.__cause__ or error
        if isinstance(cause, ModuleNotFoundError):
            raise UserError(f"{key}: {_missing_package(target, cause)}") from error
        raise UserError(f"{key}: {target} refuses its settings: {_first_line(cause)}") from error
    assert isinstance(logger, Logger)
    return logger


def _missing_package(target: str, error: ModuleNotFoundError) -> str:
    for extra in EXTRAS:
        if extra in target.lower():
            return f"the package {extra} is not installed. Install it with: pip install -e '.[{extra}]'"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@rank_zero_only
def log_settings(loggers: Iterable[Logger], hparams: Mapping[str, Any], config_yaml: str) -> None:
    """Write `hparams` to every logger, and the whole config as text where a logger takes text.

    Raises `UserError` where a logger cannot be started, e.g. because its server does not answer.
    """
    for logger in loggers:
        try:
            if hasattr(logger, "log_settings"):
                logger.log_settings(hparams, config_yaml)
                continue
            logger.log_hyperparams(dict(hparams))
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("config", "    " + config_yaml.replace("\n", "\n    "))
            elif isinstance(logger, WandbLogger):
                logger.log_text("config", columns=["config"], data=[[config_yaml]])
        except Exception as error:
            cause = error.__cause__ or error  # Lightning hides what SummaryWriter raises
            message = f"could not be started: {type(cause).__name__}: {_first_line(cause)}"
            raise UserError(f"{type(logger).__name__} {message}") from error


@rank_zero_only
def log_metrics(loggers: Iterable[Logger], metrics: Mapping[str, float], epoch: int) -> None:
    """Write metrics by epoch, as those of Lightning's `self.log` are."""
    for logger in loggers:
        if metrics:
            logger.log_metrics(dict(metrics), epoch)


@rank_zero_only
def write(loggers: Iterable[Logger]) -> None:
    """Let the loggers write what they hold in memory, as Lightning does after each fit and test."""
    for logger in loggers:
        logger.save()
        logger.finalize("success")


def log_step_metrics(loggers: Iterable[Logger], metrics: Mapping[str, float], step: int) -> None:
    """Write metrics by global step; the metrics of Lightning's `self.log` are by epoch."""
    for logger in loggers:
        write: Callable[..., None] = getattr(logger, "log_step_metrics", logger.log_metrics)
        write(dict(metrics), step)


def restore_step_metrics(loggers: Iterable[Logger], points: Points) -> None:
    """Log the points of the epochs before a resume again, to the loggers that start new files then."""
    for logger in loggers:
        if hasattr(logger, "restore_step_metrics"):
            logger.restore_step_metrics(points)


def takes_figures(logger: Logger) -> bool:
    """Return whether `log_figure` has a way to write to this logger."""
    return isinstance(logger, TensorBoardLogger | MLFlowLogger) or hasattr(logger, "log_image")


@rank_zero_only
def log_figure(loggers: Iterable[Logger], tag: str, figure: Figure, epoch: int) -> None:
    """Write a figure to every logger that takes figures or images, under `tag` with `epoch` as its step."""
    for logger in filter(takes_figures, loggers):
        if isinstance(logger, MLFlowLogger):
            assert logger.run_id is not None
            logger.experiment.log_figure(logger.run_id, figure, f"{tag}/epoch_{epoch:04}.png")
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, figures.to_image(figure), epoch, dataformats="HWC")
        else:  # as WandbLogger has it
            logger.log_image(key=tag, images=[figures.to_image(figure)], step=epoch)  # type: ignore[attr-defined]


@rank_zero_only
def close(loggers: Iterable[Logger]) -> None:
    """End the loggers of a run that has succeeded."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
        elif hasattr(logger, "close"):
            logger.close()


def _wandb_id(run_dir: Path) -> str:
    folder = run_dir.absolute()
    name = re.sub(r"[/\\#?%:]", "-", f"{folder.parent.name}-{folder.name}")
    if len(name) > 100:  # W&B takes 128 characters
        name = f"{name[:90]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


def _finish_wandb() -> None:
    """End the W&B run of an earlier job of this process that failed; a new logger would write to it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=1)
