"""Several jobs at a time on one machine, each in a process of its own.

A job cannot affect other jobs, and a job that is killed fails alone.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from itertools import cycle, islice
from multiprocessing.connection import wait
from typing import Any

from hydra_sweeps.contract import integer
from hydra_sweeps.launchers.base import Command, CommandLauncher
from hydra_sweeps.launchers.process import JobProcess, end, process_context


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
    return int(devices) if str(devices).isdecimal() else len(str(devices).split(","))


def visible_gpus(accelerator: str) -> list[str]:
    """Return the names of the GPUs in CUDA_VISIBLE_DEVICES; none for jobs on the CPU or without torch."""
    files = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")  # of GPUs, on Linux
    if accelerator == "cpu" or (sys.platform == "linux" and not any(glob(pattern) for pattern in files)):
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


@dataclass(eq=False)
class Pool(CommandLauncher):
    """Runs as many jobs at a time as there are places for; see conf/hydra/launcher/pool.yaml."""

    n_jobs: Any = "auto"
    threads: Any = "auto"
    devices: Any = 1
    accelerator: str = "auto"
    preload: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, value in (("n_jobs", self.n_jobs), ("threads", self.threads)):
            if value != "auto":
                integer(f"hydra.launcher.{name}", value)

    def open(self) -> None:
        self.context = process_context(self.preload)
        gpus = visible_gpus(self.accelerator)
        devices = integer("hydra.launcher.devices", count_devices(self.devices, len(gpus)))
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        self.threads, self.free = divide(self.n_jobs, self.threads, devices, gpus, cores)
        self.n_jobs = len(self.free)
        self.gpus: dict[JobProcess, list[str]] = {}  # of the running jobs

    def start(self, command: Command) -> JobProcess:
        gpus = self.free.pop(0)
        environment = {"OMP_NUM_THREADS": str(self.threads)}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        job = JobProcess(self.context, command, environment, prefix=f"#{command.job.number}  ")
        self.gpus[job] = gpus
        return job

    def ended(self, running: Sequence[JobProcess]) -> Iterator[tuple[JobProcess, str | None]]:
        ready = wait([job.sentinel for job in running])
        for job in [job for job in running if job.sentinel in ready]:
            job.kill()  # what it has left behind
            self.free.append(self.gpus.pop(job))
            yield job, job.failure()

    def stop(self, running: Sequence[JobProcess]) -> None:
        end(running)
