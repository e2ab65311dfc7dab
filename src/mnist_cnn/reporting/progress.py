"""The console output of training: a progress bar in a terminal, and one line per epoch everywhere."""

import logging
import multiprocessing
import time
from pathlib import Path
from typing import Any

import lightning as L
from tqdm import tqdm

from hydra_sweeps.interface import HISTORY
from mnist_cnn.data import ImageData
from mnist_cnn.data.datamodule import Batch
from mnist_cnn.files import write_json
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.trainer import describe_device

log = logging.getLogger(__name__)

BATCHES_PER_UPDATE = 20  # of the progress bar


class Progress(L.Callback):
    """Shows progress, writes `history.json`, and counts what was trained.

    `history.json` in `run_dir` is a list of one mapping per epoch, written after each epoch. `images` and
    `seconds` are the images trained on and the time that took, without validation, figures and checkpoints;
    both continue when the run is resumed. `lr_source` names the file that set the learning rate, if it is
    not the optimizer's own.
    """

    def __init__(self, run_dir: Path, lr_source: str | None = None) -> None:
        self.run_dir = run_dir
        self.lr_source = lr_source
        self.images = 0
        self.seconds = 0.0
        self.partial_epochs = 0  # ended by max_steps or max_time
        self._elapsed = 0.0  # before a resume
        self._began = time.monotonic()
        self._start = self._end = 0.0  # of the latest epoch in this process
        self._rate = 0.0  # images per second in the latest epoch
        self._batches = self._epoch_images = 0  # in the latest epoch
        self._epoch_seconds = 0.0  # of the latest epoch, before the run was resumed within it
        self._reported = 0  # the latest epoch whose line has been printed
        self._bar: tqdm[Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "seconds": self.seconds,
            "elapsed": self.elapsed,
            "partial_epochs": self.partial_epochs,
            "epoch": [self._batches, self._epoch_images, self._epoch_seconds + self._end - self._start],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.images = state_dict["images"]
        self.seconds = state_dict["seconds"]
        self.partial_epochs = state_dict.get("partial_epochs", 0)
        self._elapsed = state_dict["elapsed"]
        # of a run that continues within an epoch
        self._batches, self._epoch_images, self._epoch_seconds = state_dict.get("epoch", (0, 0, 0.0))

    @property
    def images_per_second(self) -> float:
        """The mean over all epochs, of all ranks together."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def elapsed(self) -> float:
        """The seconds since the start of the run, including everything, without the time between a resume."""
        return self._elapsed + time.monotonic() - self._began

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._reported = trainer.current_epoch
        if trainer.is_global_zero:
            for name, description in describe_run(trainer, pl_module, self.lr_source).items():
                log.info(f"{name:<10} {description}")
        if trainer.fit_loop.restarted_mid_epoch:
            self._continue_epoch(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._report_epoch(trainer, pl_module)
        self._epoch_images = self._batches = 0
        self._epoch_seconds = 0.0
        self._continue_epoch(trainer)

    def _continue_epoch(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            assert trainer.train_dataloader is not None
            self._bar = tqdm(
                desc=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
                total=int(trainer.num_training_batches)
                * trainer.train_dataloader.batch_size
                * trainer.world_size,
                initial=self._epoch_images,
                unit=" images",
                unit_scale=True,
                leave=False,
                # only in a terminal that no other process writes to
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
        self._batches += 1
        self._end = time.perf_counter()
        if self._bar is not None and self._batches % BATCHES_PER_UPDATE == 0:
            self._bar.update(self._epoch_images - self._bar.n)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close_bar()
        self._epoch_seconds += self._end - self._start

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = self._end = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close_bar()
        seconds = self._epoch_seconds + self._end - self._start
        self._rate = self._epoch_images / seconds if seconds else 0.0
        self.images += self._epoch_images
        self.seconds += seconds
        self.partial_epochs += self._batches < trainer.num_training_batches

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._report_epoch(trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        began = self._reported or not trainer.current_epoch  # else on_train_start did not run
        if not began and trainer.is_global_zero:
            log.info(f"resumed    after epoch {trainer.current_epoch}, the last")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _report_epoch(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # The module logs the training metrics of an epoch after the callbacks' on_train_epoch_end, so that
        # the line is printed in the next hook, which follows immediately.
        assert isinstance(pl_module, Classifier)
        if not pl_module.history or pl_module.history[-1]["epoch"] <= self._reported:
            return
        row = pl_module.history[-1]
        self._reported = int(row["epoch"])
        if not trainer.is_global_zero:
            return
        write_json(self.run_dir / HISTORY, pl_module.history)
        parts = [f"epoch {self._reported:>{len(str(trainer.max_epochs))}}/{trainer.max_epochs}"]
        if self._batches < trainer.num_training_batches:
            parts.append(f"ended after {self._batches:,} of {trainer.num_training_batches:,} batches")
        for split, name in (("train", "train"), ("val", "validation")):
            if f"{split}/loss" in row:
                parts.append(f"{name} loss {row[f'{split}/loss']:.4f}, {row[f'{split}/acc']:.2%}")
        parts.append(f"{self._rate:,.0f} images/s")
        log.info("   ".join(parts))


def describe_run(
    trainer: L.Trainer, classifier: L.LightningModule, lr_source: str | None = None
) -> dict[str, str]:
    """Return the start-up lines of a run, a description for each name."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(classifier, Classifier) and isinstance(data, ImageData)
    optimizer = trainer.optimizers[0]
    options = {
        name: str(value)
        for name, value in optimizer.defaults.items()
        if name in ("lr", "momentum", "nesterov", "betas", "alpha", "weight_decay") and value
    }
    if lr_source is not None and "lr" in options:
        options["lr"] += f" (set by {lr_source})"
    parameters = sum(p.numel() for p in classifier.network.parameters())
    sizes = [f"{len(part):,} {name}" for name, part in data.parts().items() if len(part)]
    lines = {
        "network": f"{type(classifier.network).__name__}, {parameters:,} parameters",
        "optimizer": ", ".join(
            [type(optimizer).__name__, *(f"{name} {value}" for name, value in options.items())]
        ),
        "loss": type(classifier.loss).__name__,
        "data": f"{data.name}: {', '.join(sizes)}; {data.source_label}",
        "classes": data.describe_classes(),
        "device": f"{trainer.world_size} x {describe_device(classifier.device)}; "
        f"precision {trainer.precision}",
    }
    if trainer.lr_scheduler_configs:
        lines["schedule"] = type(trainer.lr_scheduler_configs[0].scheduler).__name__
    if trainer.fit_loop.restarted_mid_epoch:
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        lines["resumed"] = f"in epoch {trainer.current_epoch + 1}, after {done:,} batches"
    elif trainer.current_epoch:
        lines["resumed"] = f"after epoch {trainer.current_epoch}"
    return lines
