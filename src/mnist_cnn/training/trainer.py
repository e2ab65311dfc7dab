"""Lightning's Trainer for the devices of this machine."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy

from mnist_cnn.errors import UserError
from mnist_cnn.ranks import processes_started
from mnist_cnn.training.checkpoints import AtomicCheckpointIO
from mnist_cnn.training.distributed import RANK_TIMEOUT, JobDDPStrategy
from mnist_cnn.training.loop import NoProfiler, shorten_steps
from mnist_cnn.training.memory import keep_freed_memory
from mnist_cnn.training.precision import cpu_name, native_precision

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
# What Lightning raises for values that it does not take.
REFUSALS = (
    MisconfigurationException,
    ValueError,
    TypeError,
    RuntimeError,
    AttributeError,
    ImportError,  # of a package that the value needs
)
PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def build_trainer(
    options: Mapping[str, Any],
    run_dir: Path,
    callbacks: Sequence[L.Callback],
    loggers: Sequence[Logger],
    rank_command: Sequence[str],
) -> L.Trainer:
    """Return the Trainer of one job.

    `options` are arguments of Trainer; those that are None are left to Lightning. `precision="auto"` is
    replaced by the precision that the device computes in natively. Several devices are trained by DDP,
    each further rank started with `rank_command`; a rank that has waited `rank_timeout` seconds for another
    fails. A profiler writes its report into `run_dir`.
    Raises `UserError` for devices that do not exist and for values that Lightning refuses.
    """
    fixed: dict[str, Any] = {
        "default_root_dir": run_dir,
        "callbacks": list(callbacks),
        "logger": list(loggers) or False,
        "log_every_n_steps": 1,  # nothing is logged through Lightning in a step
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # the data module divides the images among the ranks
        "enable_progress_bar": False,  # reporting.progress has its own
        "enable_model_summary": False,
    }
    for name in (*fixed, "plugins"):
        if name in options:
            raise UserError(f"trainer.{name} cannot be set: train.py sets it itself. Leave it out.")
    given = {name: value for name, value in options.items() if value is not None}
    rank_timeout = given.pop("rank_timeout", RANK_TIMEOUT)
    hardware: dict[str, Any] = {
        name: given[name] for name in ("accelerator", "devices", "num_nodes") if name in given
    }
    started = processes_started()
    devices, nodes = given.get("devices", 1), given.get("num_nodes", 1)
    if started is not None and started != (devices, nodes):
        raise UserError(
            f"trainer.devices={devices} trainer.num_nodes={nodes}: torchrun or srun has started "
            f"{started[0]} processes on each of {started[1]} nodes. Leave both settings out."
        )
    if "SLURM_NTASKS" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        # Where Slurm has started one process, as submitit requests it, the other ranks are started here.
        slurm = started and SLURMEnvironment(auto_requeue=False)
        hardware["plugins"] = [slurm or LightningEnvironment()]
    try:
        found = L.Trainer(**hardware, logger=False, enable_checkpointing=False)
        if given.get("precision") == "auto":
            given["precision"] = native_precision(found.strategy.root_device)
    except REFUSALS as error:
        wanted = ", ".join(f"trainer.{name}={value}" for name, value in hardware.items() if name in options)
        raise UserError(f"{wanted}: {error}\n{_available()}") from error
    if found.strategy.root_device.type == "cpu":
        keep_freed_memory()
    if given.get("strategy", "ddp") not in ("ddp", "auto"):
        raise UserError(f"trainer.strategy={given['strategy']} is not supported: leave it out, or use ddp.")
    if found.world_size > 1:
        if "overfit_batches" in given:
            raise UserError(
                f"trainer.overfit_batches={given['overfit_batches']} with {found.world_size} devices: every "
                "device would train on the same images. Add trainer.devices=1."
            )
        given["strategy"] = JobDDPStrategy(rank_command, rank_timeout)
    profiler = _profiler(given["profiler"], run_dir) if "profiler" in given else None
    given["profiler"] = profiler or NoProfiler()
    given["plugins"] = [*hardware.get("plugins", ()), AtomicCheckpointIO()]
    try:
        trainer = L.Trainer(
            **given,
            **fixed,
        )
    except REFUSALS as error:
        raise UserError(f"Lightning's Trainer refuses these settings: {error}") from error
    # A profiler would not see the parts of the short loop, and other strategies have steps of their own.
    if profiler is None and type(trainer.strategy) in (SingleDeviceStrategy, JobDDPStrategy):
        shorten_steps(trainer)
    _leave_signals_to_the_command(trainer)
    # Else a run with max_steps that is resumed from the end of an epoch would end this epoch again.
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
    return trainer


def _leave_signals_to_the_command(trainer: L.Trainer) -> None:
    """Keep Lightning from handling SIGTERM; checked with lightning 2.6.6.

    Its handler kills the other ranks and waits for them in a broadcast, and each step of several processes
    costs a broadcast of its own. Here `entry` handles signals; `SaveWithinEpoch` stops all ranks together.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def _profiler(name: str, run_dir: Path) -> Profiler:
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
