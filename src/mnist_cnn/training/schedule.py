"""Learning rate schedules: any scheduler of torch by its name, and when it steps."""

import math
from pkgutil import resolve_name
from typing import Any, Literal

import lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mnist_cnn.errors import UserError
from mnist_cnn.training.resume import StopAfterSteps


class Schedule:
    """A learning rate scheduler before its optimizer exists, and when it steps.

    `scheduler` is the dotted name of a scheduler class, and `arguments` are the arguments of that class
    but the optimizer. `"auto"` as `total_steps`, `total_iters` or `T_max` is replaced by the length of the
    run, in steps or epochs as `interval` says. `ReduceLROnPlateau`, and no other, needs the name of a metric
    in `monitor`, and steps once an epoch.
    Raises `UserError` for an unknown class.
    """

    def __init__(
        self,
        scheduler: str,
        interval: Literal["epoch", "step"] = "epoch",
        monitor: str | None = None,
        **arguments: Any,
    ) -> None:
        self.interval = interval
        self.monitor = monitor
        self.arguments = arguments
        if interval not in ("epoch", "step"):
            raise UserError(f"scheduler.interval={interval}: choose epoch or step.")
        try:
            self.scheduler: Any = resolve_name(scheduler)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(f"scheduler.scheduler={scheduler} cannot be imported: {error}") from error
        if not (isinstance(self.scheduler, type) and issubclass(self.scheduler, LRScheduler)):
            raise UserError(f"scheduler.scheduler={scheduler} is not a learning rate scheduler of torch.")
        watches = issubclass(self.scheduler, ReduceLROnPlateau)
        if watches != (monitor is not None):
            raise UserError(
                f"scheduler: {self.name} needs scheduler.monitor, such as val/loss."
                if watches
                else f"scheduler.monitor={monitor}: {self.name} does not use a metric. Leave it out."
            )
        if watches and interval == "step":
            raise UserError(f"scheduler.interval=step: {self.name} steps once an epoch, interval=epoch.")

    @property
    def name(self) -> str:
        """The name of the scheduler's class."""
        return str(self.scheduler.__name__)

    def build(self, optimizer: Optimizer, trainer: L.Trainer) -> LRScheduler | ReduceLROnPlateau:
        """Return the scheduler for `optimizer`; raises `UserError` for arguments that its class refuses."""
        arguments = dict(self.arguments)
        for name in ("total_steps", "total_iters", "T_max"):
            if arguments.get(name) == "auto":
                arguments[name] = _length(trainer, self.interval)
        try:
            scheduler: LRScheduler | ReduceLROnPlateau = self.scheduler(optimizer, **arguments)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            if isinstance(error, ZeroDivisionError) and "total_steps" in arguments:  # a phase of one step
                steps = arguments["total_steps"]
                raise UserError(
                    f"scheduler: {self.name} needs more than {steps} steps: raise trainer.max_epochs or "
                    "trainer.limit_train_batches."
                ) from error
            raise UserError(f"scheduler: {self.name} refuses these settings: {error}.") from error
        return scheduler


def _length(trainer: L.Trainer, interval: Literal["epoch", "step"]) -> int:
    """Return the number of optimizer steps of the run, or of epochs; the last one may be incomplete."""
    limits = [one.max_steps for one in trainer.callbacks if isinstance(one, StopAfterSteps)]  # type: ignore[attr-defined]
    steps = trainer.estimated_stepping_batches
    limited = min([steps, *limits])
    assert trainer.max_epochs is not None
    return int(limited) if interval == "step" else math.ceil(limited * trainer.max_epochs / steps)
