"""Exact resume: checkpoints after any batch, and random numbers that do not depend on what ran before.

Each batch draws the random numbers that follow from the seed, the epoch, the number of the batch and the
rank. So no checkpoint holds the state of a generator, and a resumed run ends with the weights of an
uninterrupted one.
"""

import hashlib
import math
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from mnist_cnn.data.datamodule import Batch, TrainLoader
from mnist_cnn.errors import Interrupted, UserError

# The ranks agree on whether to save once in so many batches, because each agreement costs a message.
BATCHES_PER_AGREEMENT = 10


def seed_generators(seed: int, epoch: int, batch: int, rank: int, device: torch.device) -> None:
    """Seed the generators of Python, NumPy and torch, on the CPU and on `device`, for a batch of a rank."""
    text = f"{seed} {epoch} {batch} {rank}"
    value = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
    random.seed(value)
    np.random.seed(value)
    torch.default_generator.manual_seed(value)  # torch.manual_seed visits every backend, which takes 95 µs
    if device.type == "cuda":
        torch.cuda.manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)


class ExactResume(Checkpoint):
    """Saves `last.ckpt` within an epoch, continues a run after the batch saved last, and acts on signals.

    The checkpoint is written every `every_n_steps` steps, every `every_n_minutes` minutes (None switches
    either off) and on the first of `signals`, which then raises `Interrupted`. A second signal does what it
    did before the training. There is no checkpoint while gradients accumulate, after the last batch of an
    epoch and before a validation: Lightning cannot resume there, and the next opportunity is near.

    A run that early stopping has ended does not train on when it is resumed, unless with another
    `max_epochs`. Raises `UserError` if a run is resumed with another number of processes.
    """

    def __init__(
        self,
        run_dir: Path,
        seed: int,
        signals: Sequence[signal.Signals] = (),
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
    ) -> None:
        self.path = run_dir / "checkpoints" / "last.ckpt"
        self.seed = seed
        self.signals = signals
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.batch = 0  # batches of the present epoch that a resumed run leaves out
        self._received: int | None = None  # the signal that has asked the run to stop
        self._handlers: dict[signal.Signals, Any] = {}  # before the training
        self._stopping = self._due = False  # what the ranks have agreed on
        self._saved_at = 0.0
        self._saved: dict[str, Any] = {}  # the state of the run that is resumed
        self._limits: dict[str, Any] = {}  # that a resumed run is compared by

    def state_dict(self) -> dict[str, Any]:
        return {"batch": self.batch, **self._limits}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batch = state_dict["batch"]
        self._saved = state_dict

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._limits = {"processes": trainer.world_size, "max_epochs": trainer.max_epochs}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        before = self._saved.get("processes", trainer.world_size)
        if before != trainer.world_size:
            raise UserError(
                f"The run was trained by {before} processes, and {trainer.world_size} would train with "
                f"another batch size: resume it with trainer.devices={before}."
            )
        for callback in trainer.early_stopping_callbacks:
            if self._saved.get("max_epochs") != trainer.max_epochs:  # a new run, or one that trains longer
                callback.stopping_reason = EarlyStoppingReason.NOT_STOPPED
            # Lightning keeps the reason, but trains on.
            trainer.should_stop |= callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED
        if self.batch:
            loader = trainer.train_dataloader
            assert isinstance(loader, TrainLoader)
            loader.first = self.batch
        self._seed(trainer, self.batch)
        self.batch = 0  # else the checkpoint at the end of this epoch would have it
        self._saved_at = time.monotonic()
        self._is_first = trainer.is_global_zero
        for number in self.signals:  # here, because Lightning has set its own handler of SIGTERM before
            self._handlers[number] = signal.signal(number, self._on_signal)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.batch = 0
        self._saved_at = time.monotonic()  # at the end of the epoch before
        self._seed(trainer, 0)
        self._stop_if(self._agree(trainer, self._received is not None))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        self._seed(trainer, done)  # before the next batch is fetched and augmented
        if trainer.world_size == 1 or done % BATCHES_PER_AGREEMENT == 0:
            self._stopping = self._agree(trainer, self._received is not None)
            self._due |= self._stopping or self._agree(trainer, self._is_old())
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            self._due = True
        if self._due and _can_continue_after(trainer, done):
            self.batch = done
            trainer.save_checkpoint(self.path)
            self.batch, self._due, self._saved_at = 0, False, time.monotonic()
            self._stop_if(self._stopping)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore_handlers()
        self._stop_if(self._agree(trainer, self._received is not None))

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._restore_handlers()

    def _on_signal(self, number: int, frame: object) -> None:
        self._received = number
        self._restore_handlers()
        if self._is_first:  # os.write, because the signal may have interrupted a print
            os.write(2, b"\nstopping with a checkpoint; interrupt again to stop at once\n")

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _is_old(self) -> bool:
        minutes = self.every_n_minutes
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _agree(self, trainer: L.Trainer, wanted: bool) -> bool:
        """Return whether any rank has `wanted`."""
        if trainer.world_size == 1:
            return wanted
        return bool(trainer.strategy.reduce_boolean_decision(wanted, all=False))

    def _stop_if(self, stopping: bool) -> None:
        if stopping:  # without a number where another rank has received the signal
            raise Interrupted(self._received or signal.SIGTERM)

    def _seed(self, trainer: L.Trainer, batch: int) -> None:
        seed_generators(
            self.seed, trainer.current_epoch, batch, trainer.global_rank, trainer.strategy.root_device
        )


class StopAfterSteps(L.Callback):
    """Ends the training after `max_steps` optimizer steps, if that is not None.

    With its own `max_steps` Lightning ends the last epoch of a resumed run a second time.
    """

    def __init__(self, max_steps: int | None) -> None:
        self.max_steps = math.inf if max_steps is None else max_steps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop |= trainer.global_step >= self.max_steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        trainer.should_stop |= trainer.global_step >= self.max_steps


def _can_continue_after(trainer: L.Trainer, done: int) -> bool:
    """Return whether a run can be resumed after `done` batches of the epoch."""
    is_last = done >= trainer.num_training_batches or trainer.should_stop
    assert trainer.val_check_batch is not None
    validates = done % trainer.val_check_batch == 0
    return not is_last and not validates and done % trainer.accumulate_grad_batches == 0
