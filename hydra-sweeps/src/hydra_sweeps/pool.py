"""Several jobs at a time on one machine, each in a process of its own.

A job cannot affect other jobs, and a job that is killed fails alone. The processes are forked from a server
that has imported the app's libraries, since these imports may take longer than a job.
"""

import gc
import io
import logging
import math
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any, TextIO

from hydra.core.utils import env_override

from hydra_sweeps import launchers
from hydra_sweeps.files import write_json
from hydra_sweeps.interface import FAILED, SweepError
from hydra_sweeps.launchers import Command, CommandLauncher, Commands, Ended, describe_exit, positive


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
    if accelerator == "cpu":
        return []
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
        context = _context(self.preload)
        waiting: Iterator[Command] = iter(commands)
        following = next(waiting, None)
        if following is None:
            return
        slots = self._slots(following)
        running: list[_Running] = []
        try:
            while True:
                while len(running) < slots.n_jobs:
                    following = following or next(waiting, None)
                    if following is None:
                        break
                    devices = count_devices(following.options.get("devices", 1), len(slots.load))
                    assigned = slots.acquire(devices)
                    if assigned is None:
                        break  # until a job with GPUs ends
                    running.append(_Running.start(context, following, assigned, slots.threads))
                    following = None
                if not running:
                    return
                ready = wait([job.process.sentinel for job in running])
                for job in [job for job in running if job.process.sentinel in ready]:
                    job.process.join()
                    job.kill()  # what it has left behind
                    running.remove(job)
                    slots.release(job.gpus)
                    yield job.number, describe_exit(job.process.exitcode)
        finally:
            _stop(running)

    def _slots(self, command: Command) -> Slots:
        """Return the places for jobs like this one."""
        gpus = visible_gpus(str(command.options.get("accelerator", "auto")))
        devices = count_devices(command.options.get("devices", 1), len(gpus))
        return Slots.for_jobs(devices, self.n_jobs, self.threads, gpus, available_cores())


@dataclass
class _Running:
    number: int
    gpus: Sequence[str]
    process: Any  # each multiprocessing context has its own type

    @classmethod
    def start(
        cls, context: "ForkServerContext | SpawnContext", command: Command, gpus: Sequence[str], threads: int
    ) -> "_Running":
        # With HYDRA_FULL_ERROR Hydra raises an error instead of printing it.
        added = {"OMP_NUM_THREADS": str(threads), "HYDRA_FULL_ERROR": "1", **command.environment}
        if gpus:
            added["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        arguments = (command.arguments, command.number, os.environ | added, command.folder)
        process = context.Process(target=_run, args=arguments)
        process.start()
        return cls(command.number, gpus, process)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the job, or kill it if it has not started to run."""
        with suppress(OSError):
            if os.getpgid(self.process.pid) == self.process.pid:
                os.kill(self.process.pid, signal.SIGINT)
                return
        self.kill()

    def kill(self) -> None:
        """Kill the job and all processes it has started."""
        with suppress(OSError):  # none is left
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()


def _stop(running: Sequence[_Running]) -> None:
    """Interrupt the jobs, and kill those that do not end."""
    try:
        for job in running:
            job.interrupt()
        deadline = time.monotonic() + launchers.SECONDS_TO_STOP
        for job in running:
            job.process.join(max(deadline - time.monotonic(), 0.0))
    finally:  # also if the user interrupts again
        for job in running:
            job.kill()


def _context(preload: Sequence[str]) -> ForkServerContext | SpawnContext:
    """Return how processes are started: forked from a server on Linux; elsewhere forks are not safe."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    from multiprocessing.forkserver import ensure_running

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hydra.main", "hydra_sweeps.pool", *preload])
    # The server must have no threads, which a fork does not copy; NumPy's BLAS would start some. Nor may a
    # Ctrl-C, which the terminal sends to all processes, interrupt its imports.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with env_override({"OMP_NUM_THREADS": "1"}):
            ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
    return context


# --- in the process of a job ---------------------------------------------------------------------


def _run(arguments: Sequence[str], number: int, environment: Mapping[str, str], folder: Path) -> None:
    """Run a job's command in this process, and exit with its code."""
    gc.freeze()  # the collector need not look at the libraries of the server
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()  # so that the job's processes can be ended together
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    if torch := sys.modules.get("torch"):  # preloaded, so that it has not read the variable
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    sys.stdout = _Prefixed(sys.stdout, f"#{number}  ")
    sys.stderr = _Prefixed(sys.stderr, f"#{number}  ")
    code: object = 0
    try:
        _run_script(arguments[1:])
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except SystemExit as error:
        code = error.code
        if isinstance(code, str):
            code = _record(folder, code)
    except Exception as error:
        if not (folder / FAILED).is_file():  # else the app has reported the error itself
            traceback.print_exc()
        code = _record(folder, f"{type(error).__name__}: {error}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.shutdown()
    sys.exit(code)  # type: ignore[arg-type]


def _run_script(arguments: Sequence[str]) -> None:
    """Run `SCRIPT ARGUMENTS…` or `-m MODULE ARGUMENTS…` as Python would."""
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        sys.path[0] = os.path.dirname(arguments[0])
        runpy.run_path(arguments[0], run_name="__main__")


def _record(folder: Path, error: str) -> int:
    """Write an error that the app has not recorded into the run's folder; return the exit code."""
    if not (folder / FAILED).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FAILED, {"error": " ".join(error.split())})
    return 1


def _end_with_parent() -> None:
    """Kill this process, and those it has started, when the process of the sweep ends in any way."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(os.getpid(), signal.SIGKILL)


class _Prefixed(io.TextIOBase):
    """Writes whole lines with a prefix, since several jobs write to the same console."""

    def __init__(self, stream: TextIO, prefix: str) -> None:
        self._stream = stream
        self._prefix = prefix
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            self._stream.write("".join(f"{self._prefix}{line}\n" for line in lines))
            self._stream.flush()
        return len(text)

    def close(self) -> None:
        if self._rest:
            self.write("\n")
        super().close()

    def fileno(self) -> int:
        return self._stream.fileno()
