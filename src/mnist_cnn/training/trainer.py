"""Lightning's Trainer for the devices that are there."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger

from mnist_cnn.errors import UserError
from mnist_cnn.training.distributed import JobDDPStrategy
from mnist_cnn.training.precision import native_precision

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


def make_trainer(
    options: Mapping[str, Any],
    run_dir: Path,
    callbacks: Sequence[L.Callback],
    loggers: Sequence[Logger],
    rank_command: Sequence[str],
) -> L.Trainer:
    """Return the Trainer of one job.

    `options` are Trainer's own arguments, of which those that are None are left to Lightning;
    `precision="auto"` becomes what the device computes natively, and several devices are trained by DDP,
    each further rank started with `rank_command`. Raises `UserError` for devices that are not there and
    for values that Lightning refuses.
    """
    given = {name: value for name, value in options.items() if value is not None}
    plain: dict[str, Any] = {
        name: given[name] for name in ("accelerator", "devices", "num_nodes") if name in given
    }
    if os.environ.get("SLURM_NTASKS") == "1":
        # Slurm was asked for one process, as submitit does: the other ranks are ours to start.
        plain["plugins"] = given["plugins"] = LightningEnvironment()
    try:
        found = L.Trainer(**plain, logger=False, enable_checkpointing=False)
        if given.get("precision") == "auto":
            given["precision"] = native_precision(found.strategy.root_device)
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        wanted = ", ".join(f"trainer.{name}={value}" for name, value in plain.items() if name in options)
        raise UserError(f"{wanted}: {error}\n{_what_is_there()}") from error
    if found.world_size > 1:
        if given.get("strategy", "ddp") not in ("ddp", "auto"):
            raise UserError(f"trainer.strategy={given['strategy']}: several devices are trained by ddp.")
        given["strategy"] = JobDDPStrategy(rank_command)
    try:
        return L.Trainer(
            **given,
            default_root_dir=run_dir,
            callbacks=list(callbacks),
            logger=list(loggers) or False,
            log_every_n_steps=1,  # nothing is logged in a step, but Lightning compares it with the epoch
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the data module divides the images itself
            enable_progress_bar=False,  # reporting.progress has its own
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"Lightning's Trainer refuses these settings: {error}") from error


def describe(device: torch.device) -> str:
    """Name a device as a person would: its kind and its maker's name."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        name = torch.cpu.get_capabilities().get("cpu_name", "unknown make")
        return f"cpu, {name}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    return str(device)


def _what_is_there() -> str:
    there = ["cpu"]
    if torch.cuda.is_available():
        there.append(f"{torch.cuda.device_count()} CUDA GPU(s)")
    if torch.backends.mps.is_available():
        there.append("an Apple GPU")
    return f"This machine has: {', '.join(there)}. trainer.accelerator is one of {', '.join(ACCELERATORS)}."
