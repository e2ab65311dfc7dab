"""Curves by step: the learning rate and the training loss within an epoch."""

from typing import Any

import lightning as L

from mnist_cnn.data.datamodule import Batch

STEPS_PER_POINT = 50  # reading the loss from a GPU stalls it


class Curves(L.Callback):
    """Logs `train/loss_step` and `train/lr` every 50 global steps.

    `train/loss_step` is the loss of the step's last batch on the first rank, `train/lr` the learning rate of
    the step. Before a checkpoint is saved, the loggers write what they hold, so a run that is resumed from it
    has all points up to its step.
    """

    def __init__(self) -> None:
        self._lr = 0.0
        self._logged = 0  # global step; several batches belong to one step if gradients are accumulated

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._logged = trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]  # a schedule changes it before the batch ends

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % STEPS_PER_POINT or step == self._logged or not trainer.is_global_zero:
            return
        self._logged = step
        # Lightning divides the loss of a batch by the number of batches whose gradients it accumulates.
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
        for logger in trainer.loggers:
            logger.log_metrics({"train/loss_step": loss, "train/lr": float(self._lr)}, step)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for logger in trainer.loggers:
            logger.save()
