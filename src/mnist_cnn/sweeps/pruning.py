"""Stop a training that a search has given up."""

import warnings
from typing import TYPE_CHECKING, Any

import lightning as L

if TYPE_CHECKING:
    from optuna import Trial


class Pruning(L.Callback):
    """Reports `metric` after every epoch that was validated, and stops the training once it is hopeless.

    `trial` decides, on the first rank; it is None on all others, which stop with that one. The epochs are
    counted from 1. After the training `pruned` says whether it was stopped, and `epoch` after which one;
    `epoch` is 0 until the first report.
    """

    def __init__(self, trial: "Trial | None", metric: str = "val/acc") -> None:
        self.pruned = False
        self.epoch = 0
        self._trial = trial
        self._metric = metric
        self._validated = False

    def state_dict(self) -> dict[str, Any]:
        return {"pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pruned = state_dict["pruned"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # A run that was killed after it had been given up stays so. One that is resumed on its own, outside
        # of its search, goes on.
        self.pruned = trainer.strategy.broadcast(self.pruned and self._trial is not None)
        if self.pruned:
            trainer.should_stop = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Without a validation in this epoch the metric is still that of an earlier one.
        if not self._validated or self.pruned:
            return
        self._validated = False
        self.epoch = trainer.current_epoch + 1
        hopeless = False
        if self._trial is not None:
            with warnings.catch_warnings():
                # By a run that was interrupted after its report and before its checkpoint.
                warnings.filterwarnings("ignore", message=".* is already reported")
                self._trial.report(float(trainer.callback_metrics[self._metric]), self.epoch)
            # The last epoch is behind it: there is nothing to be saved any more.
            hopeless = self.epoch != trainer.max_epochs and bool(self._trial.should_prune())
        self.pruned = trainer.strategy.broadcast(hopeless)
        if self.pruned:
            trainer.should_stop = True
