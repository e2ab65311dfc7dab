"""The console output of training: a progress bar in a terminal, and one line per epoch everywhere."""

import logging
import math
import multiprocessing
import textwrap
import time
from pathlib import Path
from typing import Any

import lightning as L
from tqdm import tqdm

from hydra_sweeps import HISTORY, in_sweep
from mnist_cnn.data import ImageData
from mnist_cnn.data.datamodule import Batch
from mnist_cnn.errors import log_to_files
from mnist_cnn.files import write_json
from mnist_cnn.reporting import scores
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.resume import ExactResume
from mnist_cnn.training.trainer import describe_device

log = logging.getLogger(__name__)

WIDTH = 100  # of a line, in columns
SECONDS_PER_UPDATE = 0.5  # of the progress bar: reading the loss from a GPU stalls it


class Progress(L.Callback):
    """Shows progress, writes `history.json`, and counts what was trained.

    `history.json` in `run_dir` is a list of one mapping per epoch, written after each epoch. `images` are
    the images trained on and `seconds` the time that took, without validation and figures; both continue
    when the run is resumed. `lr_source` names the file that set the learning rate, if it is not the
    optimizer's own.
    """

    def __init__(self, run_dir: Path, lr_source: str | None = None) -> None:
        self.run_dir = run_dir
        self.lr_source = lr_source
        self.images = 0
        self.seconds = 0.0
        self.partial_epochs = 0  # ended by max_steps or max_time
        self._elapsed = 0.0  # before the run was resumed
        self._created = time.monotonic()
        self._started = False
        self._reported = 0  # the latest epoch whose line has been printed
        self._bar: tqdm[Any] | None = None
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._batches = 0  # of the epoch, also of the process before a resume
        self._before = self.images, self.seconds
        self._latest = self._shown = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "seconds": self.seconds,
            "elapsed": self.elapsed,
            "partial_epochs": self.partial_epochs,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.images = state_dict["images"]
        self.seconds = state_dict["seconds"]
        self._elapsed = state_dict["elapsed"]
        self.partial_epochs = state_dict["partial_epochs"]

    @property
    def images_per_second(self) -> float:
        """The mean over all epochs, of all ranks together."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def elapsed(self) -> float:
        """The seconds since the start of the run, including everything but the pause before a resume."""
        return self._elapsed + time.monotonic() - self._created

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = True
        self._reported = trainer.current_epoch
        if trainer.is_global_zero:
            for name, description in describe_run(trainer, pl_module, self.lr_source).items():
                line = textwrap.fill(f"{name:<10} {description}", WIDTH, subsequent_indent=11 * " ")
                show = log.info if name == "resumed" else log_detail
                show(line)
        self._begin_epoch()  # on_train_epoch_start does not run for an epoch that is resumed in its middle

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._report_epoch(trainer, pl_module)
        self._begin_epoch()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.images += len(batch[1]) * trainer.world_size
        self.seconds += now - self._latest
        self._latest = now
        self._batches = batch_idx + 1
        is_due = now - self._shown >= SECONDS_PER_UPDATE
        if is_due and trainer.is_global_zero and trainer.progress_bar_callback is None:
            self._shown = now
            self._update_bar(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close_bar()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._latest = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close_bar()
        self.partial_epochs += self._batches < trainer.num_training_batches

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._report_epoch(trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._started and trainer.current_epoch and trainer.is_global_zero:
            log.info(f"resumed    after epoch {trainer.current_epoch}, the last")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._close_bar()

    def _update_bar(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        total, batch_images = images_per_epoch(trainer)
        done = min(self._batches * batch_images, total)
        if self._bar is None:
            self._bar = tqdm(
                desc=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
                total=total,
                initial=done,
                unit=" images",
                unit_scale=True,
                leave=False,
                # only in a terminal that no other process writes to
                disable=None if multiprocessing.parent_process() is None else True,
            )
        elif not self._bar.disable:
            loss, accuracy = pl_module.train_metrics.so_far()
            if not math.isnan(loss):
                self._bar.set_postfix_str(f"loss {loss:.4f}, {accuracy:.2%}", refresh=False)
            self._bar.update(done - self._bar.n)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _report_epoch(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # The module logs the training metrics of an epoch after the callbacks' on_train_epoch_end, so the
        # line is printed in the next hook, which follows immediately.
        assert isinstance(pl_module, Classifier)
        row = pl_module.history[-1] if pl_module.history else {"epoch": 0}
        if row["epoch"] <= self._reported:
            return
        self._reported = int(row["epoch"])
        if not trainer.is_global_zero:
            return
        write_json(self.run_dir / HISTORY, pl_module.history)
        validated = "val/loss" in row
        parts = [f"epoch {self._reported:>{len(str(trainer.max_epochs))}}/{trainer.max_epochs}"]
        if self._batches < trainer.num_training_batches:
            parts.append(f"ended after {self._batches:,} of {trainer.num_training_batches:,} batches")
        parts.append(f"train {scores.split_metrics(row, 'train', extra=not validated)}")
        if validated:
            parts.append(f"validation {scores.split_metrics(row, 'val')}")
        images, seconds = self.images - self._before[0], self.seconds - self._before[1]
        parts.append(f"{images / seconds if seconds else 0:,.0f} images/s")
        log.info(_wrap(parts))


def _wrap(parts: list[str]) -> str:
    """Join the parts of a line; one for which no room is left starts another line."""
    lines = [parts[0]]
    for part in parts[1:]:
        longer = f"{lines[-1]}   {part}"
        if len(longer) <= WIDTH:
            lines[-1] = longer
        else:
            lines.append(f"{' ' * len(parts[0])}   {part}")
    return "\n".join(lines)


def images_per_epoch(trainer: L.Trainer) -> tuple[int, int]:
    """Return the number of images that all ranks train on in an epoch, and in each batch but the last."""
    loader = trainer.train_dataloader
    assert loader is not None
    batch_images = loader.batch_size * trainer.world_size
    batches = int(trainer.num_training_batches)
    if batches == len(loader):  # the last batch is smaller, or larger by one image
        return len(loader.sampler) * trainer.world_size, batch_images
    return batches * batch_images, batch_images


def log_detail(message: str) -> None:
    """Log what the console shows of a single run; a job of a sweep is headed by the sweep's one line."""
    if in_sweep():
        log_to_files(log, logging.INFO, message)
    else:
        log.info(message)


def describe_run(
    trainer: L.Trainer, classifier: L.LightningModule, lr_source: str | None = None
) -> dict[str, str]:
    """Return the lines that a run starts with, a description for each name."""
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
    layers = [
        f"{name} {type(layer).__name__} {sum(p.numel() for p in layer.parameters()):,}"
        for name, layer in classifier.network.named_children()
        if next(layer.parameters(), None) is not None
    ]
    lines = {"network": f"{type(classifier.network).__name__}, {parameters:,} parameters"}
    if layers:
        lines["layers"] = ", ".join(layers)
    lines |= {
        "optimizer": ", ".join(
            [type(optimizer).__name__, *(f"{name} {value}" for name, value in options.items())]
        ),
        "loss": type(classifier.loss).__name__,
        "data": f"{data.name}: {data.describe_sizes()}; {data.source_label}",
        "classes": data.describe_classes(),
        "device": f"{trainer.world_size} x {describe_device(classifier.device)}; "
        f"precision {trainer.precision}",
    }
    if trainer.lr_scheduler_configs:
        lines["schedule"] = type(trainer.lr_scheduler_configs[0].scheduler).__name__
    saved = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ExactResume)]
    done = saved[0].batch if saved else 0  # batches of the present epoch
    if done:
        lines["resumed"] = f"in epoch {trainer.current_epoch + 1}, after {done:,} batches"
    elif trainer.current_epoch:
        lines["resumed"] = f"after epoch {trainer.current_epoch}"
    return lines
