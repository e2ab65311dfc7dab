"""The one LightningModule: any network, loss, optimizer and scheduler."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mnist_cnn.data.datamodule import Batch
from mnist_cnn.errors import UserError
from mnist_cnn.training.metrics import EpochMetrics

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]


@dataclass(frozen=True)
class Schedule:
    """A learning rate scheduler without its optimizer, and when it steps.

    One that is laid over the `whole_run` is created with its `total_steps`; one that watches a metric
    (`ReduceLROnPlateau`) names it in `monitor`.
    """

    scheduler: Callable[..., LRScheduler]
    interval: Literal["epoch", "step"] = "epoch"
    monitor: str | None = None
    whole_run: bool = False


class Classifier(L.LightningModule):
    """Trains and evaluates a network that turns images (B, C, H, W) into logits (B, num_classes).

    Logs `split/loss` and `split/acc` once an epoch, with the number of the epoch as the step, from 1.
    `config` is the run's plain settings; it goes into every checkpoint, and with it the network can be
    built again from the file alone (see `training.checkpoints`).
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # The memory format that convolutions are fastest in, on CPUs and GPUs alike.
        self.network = network.to(memory_format=torch.channels_last)
        self.loss = loss
        self.optimizer = optimizer
        self.schedule = schedule
        self.config = config or {}
        self.train_metrics = EpochMetrics(num_classes)
        self.val_metrics = EpochMetrics(num_classes)
        self.test_metrics = EpochMetrics(num_classes)
        self.history: list[dict[str, float]] = []  # of each epoch: "epoch", "train/loss", "val/acc", …

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, num_classes) in float32, whatever the precision of the network."""
        logits: Tensor = self.network(images)
        return logits.float()

    @property
    def gives_probabilities(self) -> bool:
        """Whether the softmax of the logits is what was trained; the outputs of a regression are not."""
        return isinstance(self.loss, nn.CrossEntropyLoss)

    def scores(self, logits: Tensor) -> Tensor:
        """Return what may be shown as confidence (B, num_classes): probabilities, or the raw outputs."""
        return logits.softmax(1) if self.gives_probabilities else logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, self.global_step + 1, self.train_metrics)[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, self.global_step, self.val_metrics)[1]

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, self.global_step, self.test_metrics)[1]

    def _step(self, batch: Batch, step: int, metrics: EpochMetrics) -> tuple[Tensor, Tensor]:
        images, targets = batch
        logits = self(images)
        loss: Tensor = self.loss(logits, targets)
        metrics.add(step, loss, logits, targets)
        return loss, logits

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train", self.train_metrics, self.current_epoch + 1)
        if self.schedule is not None and self.schedule.monitor is not None:
            # Lightning would do this after the epoch's checkpoint, and never for one that is resumed.
            scheduler = self.lr_schedulers()
            assert isinstance(scheduler, ReduceLROnPlateau)
            scheduler.step(self._monitored(self.schedule.monitor))

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any | None) -> None:
        if metric is None:  # a scheduler that watches one has had its step in on_train_epoch_end
            scheduler.step()

    def _monitored(self, name: str) -> Tensor:
        metrics = self.trainer.callback_metrics
        if name not in metrics:
            known = ", ".join(sorted(set(metrics) - {"step"}))
            raise UserError(f"scheduler.monitor={name}: this run has no such metric, it has {known}.")
        return metrics[name]

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val", self.val_metrics, self.current_epoch + 1)

    def on_test_epoch_end(self) -> None:
        # after the fit, current_epoch is the number of epochs trained
        self._log_epoch("test", self.test_metrics, self.current_epoch)

    def _log_epoch(self, split: str, metrics: EpochMetrics, epoch: int) -> None:
        values = {f"{split}/{name}": value for name, value in metrics.compute().items()}
        # already over all ranks; sync_dist tells Lightning so
        self.log_dict(values | {"step": float(epoch)}, sync_dist=True)
        if not self.history or self.history[-1]["epoch"] != epoch:
            self.history.append({"epoch": epoch})
        # float32 has seven digits; more of them would be the noise of writing it as a decimal
        self.history[-1] |= {name: float(f"{float(value):.7g}") for name, value in values.items()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        assert self.optimizer is not None, "built for evaluation only"
        optimizer = self.optimizer(self.network.parameters())
        if self.schedule is None:
            return optimizer
        length = {}
        if self.schedule.whole_run:
            length["total_steps"] = int(self.trainer.estimated_stepping_batches)
        config: dict[str, Any] = {
            "scheduler": self.schedule.scheduler(optimizer, **length),
            "interval": self.schedule.interval,
        }
        if self.schedule.monitor is not None:
            config["monitor"] = self.schedule.monitor
        return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[return-value]

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip before the step; under autocast Lightning would refuse it to a fused optimizer.

        It does so for float16, whose gradients are scaled until then. Those of bfloat16 are not.
        """
        if not gradient_clip_val or self.trainer.precision == "16-mixed":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(self.network.parameters(), gradient_clip_val)
        else:
            nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]
