"""What a run writes to its loggers, which may be any of Lightning's: settings and figures."""

from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure

from mnist_cnn.errors import UserError, one_line
from mnist_cnn.reporting import figures


@rank_zero_only
def begin(loggers: Iterable[Logger], hparams: Mapping[str, Any], config: str, step: int) -> None:
    """Begin the logs of a run, or continue those of a run that is resumed at global step `step`.

    A logger with a method `begin(step)` drops what was logged after `step`. `hparams` go to every logger,
    `config` (YAML) to those with a method `log_config`. Raises `UserError` if a logger cannot be started,
    for example because its server does not answer.
    """
    try:
        for logger in loggers:
            if hasattr(logger, "begin"):
                logger.begin(step)
            logger.log_hyperparams(dict(hparams))
            if hasattr(logger, "log_config"):
                logger.log_config(config)
    except Exception as error:
        cause = error.__cause__ or error  # Lightning hides what SummaryWriter raises
        message = f"could not be started: {type(cause).__name__}: {one_line(cause)}"
        raise UserError(f"{type(logger).__name__} {message}") from error


def takes_figures(logger: Logger) -> bool:
    """Return whether `log_figure` can write to this logger."""
    return isinstance(logger, TensorBoardLogger | MLFlowLogger) or hasattr(logger, "log_image")


def log_figure(loggers: Iterable[Logger], tag: str, figure: Figure, step: int) -> None:
    """Write a figure to every logger that takes figures or images, under `tag` and the global step.

    Call it on the first rank only.
    """
    for logger in loggers:
        if isinstance(logger, MLFlowLogger):
            assert logger.run_id is not None
            logger.experiment.log_figure(logger.run_id, figure, f"{tag}/step_{step:06}.png")
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, figures.to_image(figure), step, dataformats="HWC")
        elif hasattr(logger, "log_image"):  # as WandbLogger has it
            logger.log_image(key=tag, images=[figures.to_image(figure)], step=step)


def close(loggers: Iterable[Logger]) -> None:
    """End the logs of a run that has succeeded."""
    for logger in loggers:
        logger.finalize("success")  # as Lightning does after each fit and test
        if hasattr(logger, "close"):
            logger.close()
