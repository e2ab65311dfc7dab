"""Checkpoints within an epoch, at intervals and when the run is stopped, from which it continues exactly."""

import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping

from mnist_cnn import entry
from mnist_cnn.data.datamodule import Batch, ResumableLoader
from mnist_cnn.errors import UserError
from mnist_cnn.training.classifier import Classifier

KEY = "within_epoch"  # of a checkpoint that was not written at the end of an epoch

# Ranks agree on a checkpoint once in so many batches: each agreement costs a message between them.
BATCHES_PER_AGREEMENT = 10


class RankState(Protocol):
    """What has a state within an epoch that differs between the ranks, as tensors on the CPU and values."""

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None: ...


class SaveWithinEpoch(Checkpoint):
    """Saves `path` every `every_n_steps` steps, every `every_n_minutes` minutes, and when the run is stopped.

    None switches an interval off. On a signal the batch, or the validation, is finished first. A checkpoint
    holds for each rank the states of the random number generators and of `parts`, so that the resumed run
    ends with the same weights and curves as an uninterrupted one. There is none after a
    batch that completes the epoch or is followed by a validation, and none while gradients accumulate.
    A run that early stopping has ended does not train on when it is resumed, unless with other max_epochs.

    It reads private state of Lightning's loops, checked with lightning 2.6.6.
    """

    def __init__(
        self,
        path: Path,
        parts: Mapping[str, RankState],
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
    ) -> None:
        self.path = path
        self.parts = parts
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self._saved = 0.0  # when the latest checkpoint was written
        self._resumed: dict[str, Any] | None = None
        self._max_epochs: int | None = None  # of the run before it was resumed

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._max_epochs = checkpoint.get("max_epochs")
        self._resumed = checkpoint.get(KEY)
        if self._resumed is not None and len(self._resumed["ranks"]) != trainer.world_size:
            count = len(self._resumed["ranks"])
            raise UserError(
                f"The run was stopped within an epoch with {count} processes, and {trainer.world_size} "
                f"cannot continue this epoch: resume it with trainer.devices={count}."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        self._saved = time.monotonic()
        if self._resumed is not None and trainer.fit_loop.restarted_mid_epoch:
            state = self._resumed["ranks"][trainer.global_rank]
            for name, part in self.parts.items():
                part.load_state(state[name], pl_module.device)
            _set_generators(state["generators"], pl_module.device)
            # Lightning has not, where a schedule has asked for the number of steps before.
            loader = trainer.train_dataloader
            assert isinstance(loader, ResumableLoader)
            loader.load_state_dict({"batches_done": trainer.fit_loop.epoch_loop.batch_progress.current.ready})
        self._resumed = None
        if self._max_epochs == trainer.max_epochs and any(
            map(_has_stopped, trainer.early_stopping_callbacks)
        ):
            trainer.should_stop = True  # which Lightning does not save
        entry.defer_interrupts(True)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        wanted = entry.interrupted() or self._is_old()
        if trainer.world_size > 1:
            if (batch_idx + 1) % BATCHES_PER_AGREEMENT:
                wanted = False
            else:
                wanted = trainer.strategy.reduce_boolean_decision(wanted, all=False)
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            wanted = True
        if not wanted or not self._can_continue_here(trainer):
            return
        trainer.save_checkpoint(self.path)
        self._saved = time.monotonic()
        self._stop_if_requested(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved = time.monotonic()  # at the end of the epoch before
        self._stop_if_requested(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop_if_requested(trainer)
        entry.defer_interrupts(False)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        entry.defer_interrupts(False)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        assert isinstance(pl_module, Classifier)
        checkpoint["max_epochs"] = trainer.max_epochs
        if not pl_module.within_epoch:
            return
        state = {name: part.state() for name, part in self.parts.items()}
        state["generators"] = _get_generators(pl_module.device)
        states = [state]
        if trainer.world_size > 1:
            states *= trainer.world_size
            torch.distributed.all_gather_object(states, state)
        checkpoint[KEY] = {"ranks": states}

    def _is_old(self) -> bool:
        return (
            self.every_n_minutes is not None and time.monotonic() - self._saved >= 60 * self.every_n_minutes
        )

    def _can_continue_here(self, trainer: L.Trainer) -> bool:
        loop = trainer.fit_loop.epoch_loop
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        return not (loop._is_training_done or loop._should_accumulate() or loop._should_check_val_fx(fetcher))

    def _stop_if_requested(self, trainer: L.Trainer) -> None:
        requested = entry.interrupted()
        if trainer.world_size > 1:
            requested = trainer.strategy.reduce_boolean_decision(requested, all=False)
        if requested:
            raise KeyboardInterrupt


def _has_stopped(early_stopping: EarlyStopping) -> bool:
    return early_stopping.stopped_epoch > 0 or early_stopping.wait_count >= early_stopping.patience


def _get_generators(device: torch.device) -> dict[str, Any]:
    """Return the states of the default generators of Python, NumPy and torch as plain values and tensors."""
    version, words, gauss = random.getstate()
    array = np.random.get_state(legacy=False)
    assert isinstance(array, dict)
    array["state"]["key"] = torch.from_numpy(array["state"]["key"].astype(np.int64))
    states = {"python": [version, list(words), gauss], "numpy": array, "cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_generators(states: dict[str, Any], device: torch.device) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    inner = states["numpy"]["state"]
    np.random.set_state(states["numpy"] | {"state": inner | {"key": inner["key"].numpy().astype(np.uint32)}})
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
