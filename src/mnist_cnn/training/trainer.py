"""Lightning's Trainer for the devices of this machine."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import (
    AdvancedProfiler,
    PassThroughProfiler,
    Profiler,
    PyTorchProfiler,
    SimpleProfiler,
)
from lightning.pytorch.strategies import DDPStrategy

from mnist_cnn.errors import UserError
from mnist_cnn.training.checkpoints import AtomicCheckpointIO
from mnist_cnn.training.memory import keep_freed_memory
from mnist_cnn.training.precision import cpu_name, native_precision
from mnist_cnn.training.ranks import RANK_TIMEOUT, is_rank_of_a_job, processes_started

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
# What Lightning raises for values that it does not take; ImportError is of a package that a value needs.
REFUSALS = (
    MisconfigurationException,
    ValueError,
    TypeError,
    RuntimeError,
    AttributeError,
    ImportError,
)
PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}
_NOTHING = nullcontext()


class NoProfiler(PassThroughProfiler):
    """Profiles nothing; Lightning's own makes a generator for each action, several times a step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return _NOTHING


def count_devices(options: Mapping[str, Any]) -> int:
    """Return on how many devices of this machine a job with these arguments of Trainer runs.

    Raises `UserError` for devices that do not exist.
    """
    return _find_devices(options).num_devices


def build_trainer(
    options: Mapping[str, Any], run_dir: Path, callbacks: Sequence[L.Callback], loggers: Sequence[Logger]
) -> L.Trainer:
    """Return the Trainer of one job, or of one rank of a job on several devices.

    `options` are arguments of Trainer; those that are None are left to Lightning. `precision="auto"` is
    replaced by the precision that the device computes in natively; `max_steps` is left to `StopAfterSteps`.
    Several devices are trained by DDP; a rank that has waited `rank_timeout` seconds for another fails. A
    profiler writes its report into `run_dir`.
    Raises `UserError` for devices that do not exist and for values that Lightning refuses.
    """
    fixed: dict[str, Any] = {
        "default_root_dir": run_dir,
        "callbacks": list(callbacks),
        "logger": list(loggers) or False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # the data module divides the images among the ranks
        # reporting.epochs has its own; Lightning's are there if they are among the callbacks
        "enable_progress_bar": any(isinstance(one, ProgressBar) for one in callbacks),
        "enable_model_summary": any(isinstance(one, ModelSummary) for one in callbacks),
    }
    for name in (*fixed, "plugins"):
        if name in options:
            raise UserError(f"trainer.{name} cannot be set: train.py sets it itself. Leave it out.")
    given = {name: value for name, value in options.items() if value is not None and name != "max_steps"}
    if given.get("strategy", "ddp") not in ("ddp", "auto"):
        raise UserError(f"trainer.strategy={given['strategy']} is not supported: leave it out, or use ddp.")

    found = _find_devices(options)
    device = found.strategy.root_device
    seconds = given.pop("rank_timeout", RANK_TIMEOUT)
    if given.get("precision") == "auto":
        given["precision"] = native_precision(device)
    if device.type == "cpu":
        keep_freed_memory()
    if found.world_size > 1:
        if "overfit_batches" in given:
            raise UserError(
                f"trainer.overfit_batches={given['overfit_batches']} with {found.world_size} devices: every "
                "device would train on the same images. Add trainer.devices=1."
            )
        given["strategy"] = DDPStrategy(timeout=timedelta(seconds=seconds))
    if is_rank_of_a_job():  # by default each rank would start as many threads as there are cores
        torch.set_num_threads(max(1, torch.get_num_threads() // found.num_devices))
    profiler = given.pop("profiler", None)
    given["profiler"] = NoProfiler() if profiler is None else _build_profiler(profiler, run_dir)
    given |= _hardware(options)
    given["plugins"] = [*given.get("plugins", ()), AtomicCheckpointIO()]
    try:
        return L.Trainer(**given, **fixed)
    except REFUSALS as error:
        raise UserError(f"Lightning's Trainer refuses these settings: {error}") from error


def _find_devices(options: Mapping[str, Any]) -> L.Trainer:
    """Return a Trainer that has found the devices of a job."""
    try:
        return L.Trainer(**_hardware(options), logger=False, enable_checkpointing=False)
    except REFUSALS as error:
        names = [name for name in ("accelerator", "devices", "num_nodes") if options.get(name) is not None]
        wanted = ", ".join(f"trainer.{name}={options[name]}" for name in names)
        raise UserError(f"{wanted}: {error}\n{_available()}") from error


def _hardware(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of Trainer that choose the devices.

    Raises `UserError` if they contradict how torchrun or srun has started the processes.
    """
    names = ("accelerator", "devices", "num_nodes")
    hardware = {name: options[name] for name in names if options.get(name) is not None}
    started = processes_started()
    if started is not None and not is_rank_of_a_job():
        devices, nodes = hardware.get("devices", "auto"), hardware.get("num_nodes", 1)
        if devices not in (1, "auto", started[0]) or nodes not in (1, started[1]):
            raise UserError(
                f"trainer.devices={devices} trainer.num_nodes={nodes}: torchrun or srun has started "
                f"{started[0]} processes on each of {started[1]} nodes. Leave both settings out."
            )
        hardware["devices"], hardware["num_nodes"] = started
    elif started is None and hardware.get("num_nodes", 1) > 1:
        raise UserError(
            f"trainer.num_nodes={hardware['num_nodes']}: start the processes on all nodes with torchrun or "
            "srun."
        )
    if "SLURM_NTASKS" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        # Lightning would take a batch script, or a shell of Slurm, for one of several ranks.
        slurm = started and SLURMEnvironment(auto_requeue=False)
        hardware["plugins"] = [slurm or LightningEnvironment()]
    return hardware


def _build_profiler(name: str, run_dir: Path) -> Profiler:
    if name not in PROFILERS:
        raise UserError(f"trainer.profiler={name} is unknown; choose one of {', '.join(PROFILERS)}.")
    return PROFILERS[name](dirpath=run_dir, filename="profile")


def describe_device(device: torch.device) -> str:
    """Return a name of `device` for people: its kind and its model."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        return f"cpu, {cpu_name()}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    return str(device)


def _available() -> str:
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append(f"{torch.cuda.device_count()} CUDA GPU(s)")
    if torch.backends.mps.is_available():
        devices.append("an Apple GPU")
    return f"Available: {', '.join(devices)}. trainer.accelerator is one of {', '.join(ACCELERATORS)}."
