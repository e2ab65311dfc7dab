"""Stop a run that the pruner of its search stops."""

from typing import Any

import lightning as L

from hydra_sweeps import Trial
from mnist_cnn.errors import UserError


class Pruning(L.Callback):
    """Reports to `trial` after each epoch with a validation, and stops the run if the search prunes it.

    Only rank 0 reports; all ranks stop together. Without a trial it does nothing. After training,
    `pruned` tells whether the run was stopped, and `epoch` the last epoch reported (0: none).
    """

    def __init__(self, trial: Trial | None) -> None:
        self.pruned = False
        self.epoch = 0
        self._trial = trial
        self._validated = False

    def state_dict(self) -> dict[str, Any]:
        return {"pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pruned = state_dict["pruned"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # A run that was killed after it had been pruned remains so, unless it is resumed outside its search.
        self.pruned = self.pruned and self._trial is not None
        if self.pruned:
            trainer.should_stop = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Without a validation in this epoch the metric is that of an earlier one.
        if self._trial is None or self.pruned or not self._validated:
            return
        self._validated = False
        self.epoch = trainer.current_epoch + 1
        metric = self._trial.metric
        if metric not in trainer.callback_metrics:
            known = ", ".join(sorted(set(trainer.callback_metrics) - {"step"}))
            raise UserError(
                f"The search compares jobs by {metric} after each epoch, but there are only {known}. Add "
                "hydra/sweeper/pruner=none, or choose another objective."
            )
        should_prune = False
        if trainer.is_global_zero:
            should_prune = self._trial.report(float(trainer.callback_metrics[metric]), self.epoch)
        # After the last epoch there is nothing left to save.
        self.pruned = trainer.strategy.broadcast(should_prune) and self.epoch != trainer.max_epochs
        if self.pruned:
            trainer.should_stop = True
