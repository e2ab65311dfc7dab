"""Curves by step: the learning rate and the training loss within an epoch."""

from typing import Any

import lightning as L

from mnist_cnn.data.datamodule import Batch
from mnist_cnn.reporting.loggers import log_step_metrics

EVERY_N_STEPS = 50  # reading a value stalls a GPU


class Curves(L.Callback):
    """Logs `train/loss_step`, the loss of a batch, and `lr` every `EVERY_N_STEPS` steps."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.global_step % EVERY_N_STEPS:
            return
        # Lightning divides the loss of a batch by the number of batches whose gradients it accumulates.
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
        lr = float(trainer.optimizers[0].param_groups[0]["lr"])
        log_step_metrics(trainer.loggers, {"train/loss_step": loss, "lr": lr}, trainer.global_step)
