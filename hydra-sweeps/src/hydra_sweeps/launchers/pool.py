"""Several jobs at a time on one machine, each in a process of its own.

A job cannot affect other jobs, and a job that is killed fails alone.
"""

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from glob import glob
from multiprocessing.connection import wait
from typing import Any

from hydra_sweeps.contract import SweepError
from hydra_sweeps.launchers import process
from hydra_sweeps.launchers.base import Command, CommandLauncher, Commands, Ended, positive
from hydra_sweeps.launchers.process import JobProcess, process_context

_DEVICE_FILES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")  # of GPUs, on Linux


class Slots:
    """The places for jobs on this machine: `n_jobs` at a time, each with `threads` threads.

    A job gets the GPUs with the fewest jobs, and waits if fewer than it needs are free.
    """

    def __init__(self, n_jobs: int, threads: int, gpus: Sequence[str] = (), jobs_per_gpu: int = 1) -> None:
        self.n_jobs = n_jobs
        self.threads = threads
        self.jobs_per_gpu = jobs_per_gpu
        self.load = dict.fromkeys(gpus, 0)

    @classmethod
    def for_jobs(
        cls, devices: int, n_jobs: int | str, threads: int | str, gpus: Sequence[str], cores: int
    ) -> "Slots":
        """Divide the machine among jobs on so many devices each; `n_jobs` and `threads` may be "auto"."""
        if not isinstance(n_jobs, str):
            count = n_jobs
        elif gpus:
            count = len(gpus) // devices
        else:
            count = cores // max(devices, 1 if isinstance(threads, str) else threads)
        count = max(count, 1)
        if isinstance(threads, str):
            threads = 1 if n_jobs == "auto" and not gpus else max(cores // count, 1)
        jobs_per_gpu = math.ceil(count * min(devices, len(gpus)) / len(gpus)) if gpus else 1
        return cls(count, threads, gpus, jobs_per_gpu)

    def acquire(self, devices: int) -> list[str] | None:
        """Return the GPUs for a job, an empty list on a machine without; None if the job has to wait."""
        emptiest = sorted(self.load, key=self.load.__getitem__)[:devices]
        if any(self.load[gpu] >= self.jobs_per_gpu for gpu in emptiest):
            return None
        for gpu in emptiest:
            self.load[gpu] += 1
        return emptiest

    def release(self, gpus: Sequence[str]) -> None:
        """Return the GPUs of a job that has ended."""
        for gpu in gpus:
            self.load[gpu] -= 1


def count_devices(devices: Any, gpus: int) -> int:
    """Return the number of devices of a job on a machine with so many `gpus`.

    Raises `SweepError` if they are given by their indices, since a job sees only its own GPUs.
    """
    if str(devices) in ("auto", "-1"):
        return max(gpus, 1)
    if str(devices).isdecimal():
        return max(int(devices), 1)
    if gpus and (isinstance(devices, list) or "," in str(devices)):
        raise SweepError(
            f"hydra.launcher.devices={devices}: the pool assigns the GPUs to the jobs. Give the number of "
            "devices of a job, and select GPUs with CUDA_VISIBLE_DEVICES."
        )
    return 1


def visible_gpus(accelerator: str) -> list[str]:
    """Return the names of the GPUs in CUDA_VISIBLE_DEVICES; none for jobs on the CPU or without torch."""
    is_linux = sys.platform == "linux"
    if accelerator == "cpu" or (is_linux and not any(glob(pattern) for pattern in _DEVICE_FILES)):
        return []  # without importing torch, which takes seconds
    try:
        import torch
    except ModuleNotFoundError:
        return []
    count = torch.cuda.device_count()  # does not initialize CUDA in this process
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = chosen.split(",") if chosen else [str(number) for number in range(count)]
    if torch.backends.mps.is_available():
        return ["0"]  # Apple's one GPU; the variable has no effect on it
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
        self.preload = list(preload)

    def run(self, commands: Commands) -> Ended:
        context = process_context(self.preload)
        waiting: Iterator[Command] = iter(commands)
        following = next(waiting, None)
        if following is None:
            return
        slots = self._slots(following)
        running: dict[JobProcess, list[str]] = {}  # with its GPUs
        try:
            while True:
                while len(running) < slots.n_jobs:
                    following = following or next(waiting, None)
                    if following is None:
                        break
                    gpus = slots.acquire(count_devices(following.options.get("devices", 1), len(slots.load)))
                    if gpus is None:
                        break  # until a job with GPUs ends
                    environment = {"OMP_NUM_THREADS": str(slots.threads)}
                    if gpus:
                        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
                    prefix = f"#{following.number}  "
                    running[JobProcess(context, following, environment, prefix)] = gpus
                    following = None
                if not running:
                    return
                ready = wait([job.sentinel for job in running])
                for job in [job for job in running if job.sentinel in ready]:
                    job.join()
                    job.kill()  # what it has left behind
                    slots.release(running.pop(job))
                    yield job.number, job.failure()
        finally:
            _stop(list(running))

    def _slots(self, command: Command) -> Slots:
        """Return the places for jobs like this one."""
        gpus = visible_gpus(str(command.options.get("accelerator", "auto")))
        devices = count_devices(command.options.get("devices", 1), len(gpus))
        return Slots.for_jobs(devices, self.n_jobs, self.threads, gpus, available_cores())


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
