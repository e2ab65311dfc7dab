"""The one LightningModule: any network, loss, optimizer and learning rate schedule."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric

from mnist_cnn.data.datamodule import Batch
from mnist_cnn.errors import UserError, one_line
from mnist_cnn.training import failed_step, loading
from mnist_cnn.training.building import build
from mnist_cnn.training.metrics import EpochMetrics
from mnist_cnn.training.schedule import Schedule

OptimizerFactory = Callable[[Iterable[nn.Parameter] | list[dict[str, Any]]], Optimizer]


class Classifier(L.LightningModule):
    """Trains and evaluates a network that maps images (B, C, H, W) to logits (B, num_classes).

    Logs `split/loss`, `split/acc` and `split/<name>` of each of `metrics` once an epoch, by global step, with
    the number of the epoch, from 1, as `epoch` beside them.
    Without `decay_biases` the optimizer's weight decay leaves out biases and other vectors.
    `compile` is a mode of `torch.compile`, with which the network is compiled for training; evaluation,
    figures and checkpoints use the network itself.
    `config` holds the settings of the run as plain values. It is stored in every checkpoint, so that the
    network can be rebuilt from the file alone (see `training.checkpoints`).
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        metrics: Mapping[str, Metric] | None = None,
        config: dict[str, Any] | None = None,
        *,
        decay_biases: bool = True,
        compile: str | None = None,
    ) -> None:
        super().__init__()
        # The memory format in which convolutions are fastest, on CPUs and GPUs.
        self.network = network.to(memory_format=torch.channels_last)
        self.loss = loss
        self.num_classes = num_classes
        self.optimizer = optimizer
        self.schedule = schedule
        self.decay_biases = decay_biases
        self.config = config or {}
        self.compile_mode = compile
        # A function, because a compiled module would be a second one with the same parameters.
        self._compiled = torch.compile(lambda images: self.network(images), mode=compile) if compile else None
        self.train_metrics = EpochMetrics(num_classes, metrics)
        self.val_metrics = EpochMetrics(num_classes, metrics)
        self.test_metrics = EpochMetrics(num_classes, metrics)
        self._resumed: dict[str, Any] = {}  # the checkpoint of the run that is resumed
        self.history: list[dict[str, float]] = []  # for each epoch: "epoch", "train/loss", "val/acc", …

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # of Lightning's arguments none has a use here
        cls, checkpoint_path: str | Path, trusted: Sequence[str] = ()
    ) -> "Classifier":
        """Build the classifier of a checkpoint from the file alone, on the CPU and in evaluation mode.

        Only classes of this project, its libraries and the packages in `trusted` are built. Raises
        `UserError` if the file has no complete settings, if its weights do not fit the network, or are not
        finite.
        """
        path = Path(checkpoint_path)
        checkpoint = loading.load_complete(path)
        config = checkpoint["config"]
        network = build(config["model"], nn.Module, trusted)
        loss = build(config["loss"], nn.Module, trusted)
        metrics = {
            name: build(metric, Metric, trusted)  # type: ignore[type-abstract]
            for name, metric in config.get("metrics", {}).items()
        }
        try:
            classifier = cls(network, loss, config["data"]["num_classes"], metrics=metrics, config=config)
            classifier.load_state_dict(checkpoint["state_dict"])
        except (RuntimeError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"The weights in {path} do not fit its network: {one_line(error)}") from error
        for name, value in classifier.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise UserError(f"{path} holds weights that are not finite numbers, in {name}.")
        return classifier.eval()

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the name of each hook, 40 times a step. If torch looked each time whether it is a
        # layer or a parameter, that would take 4 % of a step of CnnNet.
        if (value is None or isinstance(value, str)) and name in self.__dict__:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, num_classes) as float32, whatever the precision of the network."""
        # Lightning converts batches to a "true" precision before the data module makes them float32.
        images = images.to(self.dtype)
        network = self._compiled if self.training and self._compiled is not None else self.network
        try:
            logits: Tensor = network(images)
        except failed_step.ERRORS as error:
            failed_step.explain(error, self.network, images)
            raise
        return logits.float()

    @property
    def gives_probabilities(self) -> bool:
        """Whether the loss trains the softmax of the logits; the outputs of a regression are none."""
        return isinstance(self.loss, nn.CrossEntropyLoss)

    def scores(self, logits: Tensor) -> Tensor:
        """Return what can be shown as confidence (B, num_classes): probabilities, or the raw outputs."""
        return logits.softmax(1) if self.gives_probabilities else logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, self.global_step + 1, self.train_metrics)[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, self.global_step, self.val_metrics)[1]

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, self.global_step, self.test_metrics)[1]

    def predict_step(self, batch: Batch | list[Tensor] | Tensor, batch_idx: int) -> Tensor:
        """Return the logits (B, num_classes) of the images of a batch, with or without their targets."""
        images: Tensor = batch if isinstance(batch, Tensor) else batch[0]
        return self(images)  # type: ignore[no-any-return]

    def _step(self, batch: Batch, step: int, metrics: EpochMetrics) -> tuple[Tensor, Tensor]:
        images, targets = batch
        logits = self(images)
        if logits.shape[1:] != (self.num_classes,):
            raise UserError(
                f"{type(self.network).__name__} gives outputs of shape {tuple(logits.shape)}, but the data "
                f"has {self.num_classes} classes: leave model.num_classes as ${{data.num_classes}}."
            )
        try:
            loss: Tensor = self.loss(logits, targets)
        except failed_step.ERRORS as error:
            failed_step.explain(error, self.loss, logits, targets)
            raise
        if loss.ndim:
            raise UserError(
                f"{type(self.loss).__name__} gives a loss of shape {tuple(loss.shape)} and not one number: "
                "it should be the mean over the batch."
            )
        metrics.add(step, loss, logits, targets)
        return loss, logits

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train", self.train_metrics, self.current_epoch + 1)
        if self.schedule is not None and self.schedule.monitor is not None:
            # Lightning would do this after saving the checkpoint of the epoch, so that a resumed run
            # would miss the step.
            scheduler = self.lr_schedulers()
            assert isinstance(scheduler, ReduceLROnPlateau)
            if self.schedule.monitor in self.history[-1]:  # not after an epoch without validation
                scheduler.step(self.trainer.callback_metrics[self.schedule.monitor])

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val", self.val_metrics, self.current_epoch + 1)

    def on_test_epoch_end(self) -> None:
        # After the fit, current_epoch is the number of epochs trained.
        self._log_epoch("test", self.test_metrics, self.current_epoch)

    def _log_epoch(self, split: str, metrics: EpochMetrics, epoch: int) -> None:
        values = {f"{split}/{name}": value for name, value in metrics.compute().items()}
        position = {"step": float(self.trainer.global_step), "epoch": float(epoch)}
        # The values are already reduced over all ranks; without sync_dist Lightning would warn.
        # Those of the test are written with the results of the run, so that a run that is killed before and
        # resumed writes them once.
        logger = False if split == "test" else None
        self.log_dict({**values, **position}, sync_dist=True, logger=logger)
        if not self.history or self.history[-1]["epoch"] != epoch:
            self.history.append({"epoch": epoch})
        # float32 has seven significant digits.
        self.history[-1] |= {name: float(f"{float(value):.7g}") for name, value in values.items()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        assert self.optimizer is not None, "built for evaluation only"
        try:
            optimizer = self.optimizer(self._parameters_to_train())
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"optim: the optimizer refuses these settings: {error}") from error
        if isinstance(optimizer, torch.optim.LBFGS):
            raise UserError("optim: LBFGS is not supported, since it takes gradients in one memory format.")
        if self.schedule is None:
            return optimizer
        config: dict[str, Any] = {
            "scheduler": self.schedule.build(optimizer, self.trainer),
            "interval": self.schedule.interval,
        }
        if self.schedule.monitor is not None:
            # on_train_epoch_end steps it; Lightning never does
            config |= {"monitor": self.schedule.monitor, "frequency": sys.maxsize}
        return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[return-value]

    def _parameters_to_train(self) -> Iterable[nn.Parameter] | list[dict[str, Any]]:
        if self.decay_biases:
            return self.network.parameters()
        matrices = [parameter for parameter in self.network.parameters() if parameter.ndim > 1]
        vectors = [parameter for parameter in self.network.parameters() if parameter.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        return groups

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients before the step.

        Under autocast Lightning refuses to clip for a fused optimizer. This is right for float16, whose
        gradients are scaled until the step, and not for bfloat16, whose gradients are not.
        """
        if not gradient_clip_val:
            return
        if self.trainer.precision == "16-mixed":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(self.network.parameters(), gradient_clip_val)
        else:
            nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config
        checkpoint["history"] = self.history
        # Lightning does not keep the values that schedulers and callbacks watch.
        checkpoint["metrics"] = {name: float(v) for name, v in self.trainer.callback_metrics.items()}
        checkpoint["train_metrics"] = self._of_all_ranks(self.train_metrics.state())

    def _of_all_ranks(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        states = [state] * self.trainer.world_size
        if self.trainer.world_size > 1:
            torch.distributed.all_gather_object(states, state)
        return states

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]
        self._resumed = {name: checkpoint[name] for name in ("metrics", "train_metrics")}

    def on_train_start(self) -> None:
        if self._resumed:
            metrics = {name: torch.tensor(value) for name, value in self._resumed["metrics"].items()}
            self.trainer.callback_metrics.update(metrics)
            self.train_metrics.load_state(
                self._resumed["train_metrics"][self.trainer.global_rank], self.device
            )
            self._resumed = {}
