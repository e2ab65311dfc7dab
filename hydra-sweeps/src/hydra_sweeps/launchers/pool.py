"""Several jobs at a time on one machine, each in a process of its own.

A job cannot affect other jobs, and a job that is killed fails alone.
"""

import os
import sys
import time
from collections.abc import Sequence
from glob import glob
from itertools import cycle, islice
from multiprocessing.connection import wait
from typing import Any

from hydra_sweeps.launchers import process
from hydra_sweeps.launchers.base import CommandLauncher, Commands, Ended, positive
from hydra_sweeps.launchers.process import JobProcess, process_context

_DEVICE_FILES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")  # of GPUs, on Linux


def divide(
    n_jobs: int | str, threads: int | str, devices: int, gpus: Sequence[str], cores: int
) -> tuple[int, list[list[str]]]:
    """Divide a machine among jobs on so many devices each; `n_jobs` and `threads` may be "auto".

    Returns the threads of a job, and for each place of a job its GPUs, none on a machine without.
    """
    cores_of_job = devices if threads == "auto" else max(devices, int(threads))
    count = len(gpus) // devices if gpus else cores // cores_of_job
    count = max(count, 1) if n_jobs == "auto" else int(n_jobs)
    if threads == "auto":
        threads = 1 if n_jobs == "auto" and not gpus else max(cores // count, 1)
    in_turn = cycle(gpus)
    return int(threads), [list(islice(in_turn, min(devices, len(gpus)))) for _ in range(count)]


def count_devices(devices: Any, gpus: int) -> int:
    """Return the number of devices of a job on a machine with so many `gpus`.

    devices: as for Lightning's Trainer, a number, "auto", -1 or a list of indices.
    """
    if str(devices) in ("auto", "-1"):
        return max(gpus, 1)
    if str(devices).isdecimal():
        return max(int(devices), 1)
    return len(str(devices).split(","))


def visible_gpus(accelerator: str) -> list[str]:
    """Return the names of the GPUs in CUDA_VISIBLE_DEVICES; none for jobs on the CPU or without torch."""
    is_linux = sys.platform == "linux"
    if accelerator == "cpu" or (is_linux and not any(glob(pattern) for pattern in _DEVICE_FILES)):
        return []  # without importing torch, which takes seconds
    try:
        import torch
    except ModuleNotFoundError:
        return []
    if torch.backends.mps.is_available():
        return ["0"]  # Apple's one GPU; the variable has no effect on it
    count = torch.cuda.device_count()  # does not initialize CUDA in this process
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = chosen.split(",") if chosen else [str(number) for number in range(count)]
    return [name.strip() for name in names[:count]]


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Pool(CommandLauncher):
    """Runs as many jobs at a time as there are slots for; see conf/hydra/launcher/pool.yaml."""

    def __init__(
        self,
        n_jobs: int | str = "auto",
        threads: int | str = "auto",
        devices: Any = 1,
        accelerator: str = "auto",
        preload: Sequence[str] = (),
    ) -> None:
        self.n_jobs = n_jobs if n_jobs == "auto" else positive("n_jobs", n_jobs)
        self.threads = threads if threads == "auto" else positive("threads", threads)
        self.devices = devices
        self.accelerator = accelerator
        self.preload = list(preload)

    def run(self, commands: Commands) -> Ended:
        context = process_context(self.preload)
        gpus = visible_gpus(self.accelerator)
        devices = count_devices(self.devices, len(gpus))
        threads, free = divide(self.n_jobs, self.threads, devices, gpus, available_cores())
        waiting = iter(commands)
        running: dict[JobProcess, list[str]] = {}  # with its GPUs
        try:
            while True:
                while free and (command := next(waiting, None)) is not None:
                    environment = {"OMP_NUM_THREADS": str(threads)}
                    if free[0]:
                        environment["CUDA_VISIBLE_DEVICES"] = ",".join(free[0])
                    job = JobProcess(context, command, environment, prefix=f"#{command.number}  ")
                    running[job] = free.pop(0)
                if not running:
                    return
                ready = wait([job.sentinel for job in running])
                for job in [job for job in running if job.sentinel in ready]:
                    job.kill()  # what it has left behind
                    free.append(running.pop(job))
                    yield job.number, job.failure()
        finally:
            _stop(list(running))


def _stop(running: Sequence[JobProcess]) -> None:
    """Interrupt the jobs, and kill those that do not end."""
    try:
        for job in running:
            job.interrupt()
        deadline = time.monotonic() + process.SECONDS_TO_STOP
        for job in running:
            job.join(max(deadline - time.monotonic(), 0.0))
    finally:  # also if the user interrupts again
        for job in running:
            job.kill()
