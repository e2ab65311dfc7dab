"""What a training says while it runs: a bar in a terminal, and one line an epoch everywhere."""

import logging
import multiprocessing
import time
from typing import Any

import lightning as L
from tqdm import tqdm

from mnist_cnn.data import ImageData
from mnist_cnn.data.datamodule import Batch
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.trainer import describe_device

log = logging.getLogger(__name__)


class Progress(L.Callback):
    """Shows progress, and counts the `images` trained on and the `seconds` that took.

    Validation, pictures and checkpoints are not in those seconds. Both go on counting over a resume.
    """

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        self._elapsed = 0.0  # before a resume
        self._began = time.monotonic()
        self._rate = 0.0  # images a second in the latest epoch
        self._told = 0  # epochs with their line out
        self._bar: tqdm[Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images, "seconds": self.seconds, "elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.images = state_dict["images"]
        self.seconds = state_dict["seconds"]
        self._elapsed = state_dict["elapsed"]

    @property
    def images_per_second(self) -> float:
        """The mean over all epochs, of all ranks together."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of the whole run, everything in it."""
        return self._elapsed + time.monotonic() - self._began

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._told = trainer.current_epoch
        if trainer.is_global_zero:
            for name, choice in choices(trainer, pl_module).items():
                log.info(f"{name:<10} {choice}")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tell_epoch(trainer, pl_module)
        self._epoch_images = 0
        if trainer.is_global_zero:
            assert trainer.train_dataloader is not None
            self._bar = tqdm(
                desc=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
                total=int(trainer.num_training_batches)
                * trainer.train_dataloader.batch_size
                * trainer.world_size,
                unit=" images",
                unit_scale=True,
                leave=False,
                # in anything but a terminal that this process has to itself
                disable=None if multiprocessing.parent_process() is None else True,
            )
        self._start = self._end = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        images = len(batch[1]) * trainer.world_size
        self._epoch_images += images
        self._end = time.perf_counter()
        if self._bar is not None:
            self._bar.update(images)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close_bar()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close_bar()
        seconds = self._end - self._start
        self._rate = self._epoch_images / seconds if seconds else 0.0
        self.images += self._epoch_images
        self.seconds += seconds

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tell_epoch(trainer, pl_module)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _tell_epoch(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # The module logs an epoch's training metrics after the callbacks' turn at its end, so that
        # the line waits for the next moment, which comes at once.
        assert isinstance(pl_module, Classifier)
        if not pl_module.history or pl_module.history[-1]["epoch"] <= self._told:
            return
        row = pl_module.history[-1]
        self._told = int(row["epoch"])
        parts = [f"epoch {self._told:>{len(str(trainer.max_epochs))}}/{trainer.max_epochs}"]
        for split, name in (("train", "train"), ("val", "validation")):
            if f"{split}/loss" in row:
                parts.append(f"{name} loss {row[f'{split}/loss']:.4f}, {row[f'{split}/acc']:.2%}")
        parts.append(f"{self._rate:,.0f} images/s")
        if trainer.is_global_zero:
            log.info("   ".join(parts))


def choices(trainer: L.Trainer, classifier: L.LightningModule) -> dict[str, str]:
    """Return what a run has been resolved to, for people."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(classifier, Classifier) and isinstance(data, ImageData)
    optimizer = trainer.optimizers[0]
    options = {
        name: value
        for name, value in optimizer.defaults.items()
        if name in ("lr", "momentum", "nesterov", "betas", "alpha", "weight_decay") and value
    }
    parameters = sum(p.numel() for p in classifier.network.parameters())
    sizes = [f"{len(part):,} {name}" for name, part in data.parts().items() if len(part)]
    said = {
        "network": f"{type(classifier.network).__name__}, {parameters:,} parameters",
        "optimizer": f"{type(optimizer).__name__}, "
        + ", ".join(f"{name} {value}" for name, value in options.items()),
        "loss": type(classifier.loss).__name__,
        "data": f"{data.name}: {', '.join(sizes)}; {data.source_label}",
        "device": f"{trainer.world_size} x {describe_device(classifier.device)}; "
        f"precision {trainer.precision}",
    }
    if trainer.lr_scheduler_configs:
        said["schedule"] = type(trainer.lr_scheduler_configs[0].scheduler).__name__
    if trainer.current_epoch:
        said["resumed"] = f"after epoch {trainer.current_epoch}"
    return said
