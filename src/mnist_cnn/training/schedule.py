"""Learning rate schedules: any scheduler of torch by its name, and when it steps."""

import inspect
from pkgutil import resolve_name
from typing import Any, Literal

import lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mnist_cnn.errors import UserError


class Schedule:
    """A learning rate scheduler before its optimizer exists, and when it steps.

    `scheduler` is the dotted name of a scheduler class, and `arguments` are the arguments of that class
    but the optimizer. `total_steps="auto"` is replaced by the number of steps of the run. A scheduler that
    watches a metric (`ReduceLROnPlateau`) has its name in `monitor`.
    Raises `UserError` for an unknown class and for arguments that the class does not take.
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
        try:
            inspect.signature(self.scheduler).bind_partial(None, **arguments)  # unknown names first
            inspect.signature(self.scheduler).bind(None, **arguments)
        except TypeError as error:
            raise UserError(f"scheduler: {scheduler} refuses these settings: {error}.") from error

    @property
    def name(self) -> str:
        """The name of the scheduler's class."""
        return str(self.scheduler.__name__)

    def build(self, optimizer: Optimizer, trainer: L.Trainer) -> LRScheduler | ReduceLROnPlateau:
        """Return the scheduler for `optimizer`; raises `UserError` for values that its class refuses."""
        arguments = dict(self.arguments)
        if arguments.get("total_steps") == "auto":
            arguments["total_steps"] = int(trainer.estimated_stepping_batches)
        try:
            scheduler: LRScheduler | ReduceLROnPlateau = self.scheduler(optimizer, **arguments)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            if isinstance(error, ZeroDivisionError) and "total_steps" in arguments:  # a phase of one step
                steps = arguments["total_steps"]
                raise UserError(
                    f"scheduler: {steps} steps are too few for {self.name}; train longer."
                ) from error
            raise UserError(f"scheduler: {self.name} refuses these settings: {error}.") from error
        return scheduler
