"""Curves by step: the learning rate and the training loss within an epoch."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

from mnist_cnn.data.datamodule import Batch
from mnist_cnn.reporting.loggers import log_step_metrics, restore_step_metrics

# Reading a value stalls a GPU, so that the losses are read this many steps at a time.
WINDOW = 50


class Curves(L.Callback):
    """Logs `train/loss_step` and `lr` by global step, one point for each `WINDOW` steps of an epoch.

    `train/loss_step` is the mean over the window's batches and over all ranks, `lr` the learning rate of its
    last step. The last window of an epoch may be shorter. The points are part of the checkpoint, for loggers
    that drop by-step values when a run is resumed.
    """

    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []  # global step, metrics
        self._losses: list[Tensor] = []
        self._start = 0  # the global step before the window
        self._lr = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "points": [[step, dict(metrics)] for step, metrics in self.points],
        }

    def state(self) -> dict[str, Any]:
        """Return the window that has begun, on this rank."""
        return {"start": self._start, "losses": [loss.cpu() for loss in self._losses]}

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue the window that `state` returned."""
        self._start, self._losses = state["start"], [loss.to(device) for loss in state["losses"]]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = [(step, metrics) for step, metrics in state_dict["points"]]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        restore_step_metrics(trainer.loggers, self.points)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._losses.clear()
        self._start = trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]  # a schedule changes it before the batch's end

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._losses.append(outputs["loss"])
        if trainer.global_step - self._start >= WINDOW:
            self._log_window(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._losses:
            self._log_window(trainer)

    def _log_window(self, trainer: L.Trainer) -> None:
        # Lightning divides the loss of a batch by the number of batches whose gradients it accumulates
        mean = torch.stack(self._losses).mean() * trainer.accumulate_grad_batches
        loss = float(trainer.strategy.reduce(mean, reduce_op="mean"))
        self._losses.clear()
        self._start = trainer.global_step
        metrics = {"train/loss_step": loss, "lr": float(self._lr)}
        self.points.append((trainer.global_step, metrics))
        log_step_metrics(trainer.loggers, metrics, trainer.global_step)
