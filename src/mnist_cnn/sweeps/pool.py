"""Several jobs of a sweep at a time on one machine, each in a process of its own.

A process that a job has to itself leaves nothing to the next job, and if it is killed no other job is. To
import torch and Lightning in each would take longer than many a job, so that the processes are forked from
one that has imported them and nothing more (multiprocessing's forkserver).
"""

import contextlib
import functools
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Literal

import cloudpickle  # type: ignore[import-untyped]
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, env_override, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf

from mnist_cnn.errors import UserError
from mnist_cnn.sweeps.launching import composed, failed

# What train.py imports, at its start or later.
PRELOADED = (
    "lightning",
    "hydra.utils",
    "mnist_cnn.commands",
    "mnist_cnn.settings",
    "mnist_cnn.data",
    "mnist_cnn.models",
    "mnist_cnn.reporting.summary",
    "mnist_cnn.reporting.progress",
    "mnist_cnn.reporting.tensorboard",
    "mnist_cnn.training.checkpoints",
    "mnist_cnn.training.classifier",
    "mnist_cnn.training.distributed",
    "mnist_cnn.training.losses",
    "mnist_cnn.training.quiet",
    "mnist_cnn.training.trainer",
)

# What an interrupted job has to say how to go on, and to end its ranks, before it is killed.
SECONDS_TO_STOP = 10.0

# A job that has given its result only has to leave Python.
SECONDS_TO_LEAVE = 10.0

Count = int | Literal["auto"]


@dataclass(frozen=True)
class Size:
    """How many jobs at a time, and with how many threads each, as the user has it."""

    n_jobs: Count = "auto"
    threads: Count = "auto"

    @classmethod
    def given(cls, n_jobs: object, threads: object) -> "Size":
        """Check the values; raises `UserError`."""
        return cls(_count("n_jobs", n_jobs), _count("threads", threads))


def _count(name: str, value: object) -> Count:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise UserError(f"hydra.launcher.{name}={value}: it must be a whole number from 1 on, or auto.")


class Places:
    """Which GPUs a job gets: those with the fewest jobs, as many as it asks for.

    There are `n_jobs` places of `threads` threads each. A job that asks for more `gpus` than are free waits.
    """

    def __init__(self, n_jobs: int, threads: int, gpus: Sequence[str] = (), jobs_per_gpu: int = 1) -> None:
        self.n_jobs = n_jobs
        self.threads = threads
        self.jobs_per_gpu = jobs_per_gpu
        self.load = dict.fromkeys(gpus, 0)

    @classmethod
    def for_jobs_like(cls, config: DictConfig, size: Size, gpus: Sequence[str], cores: int) -> "Places":
        """Divide the machine among jobs such as that of `config`."""
        devices = devices_of(config, len(gpus))
        if size.n_jobs != "auto":
            n_jobs = size.n_jobs
        elif gpus:
            n_jobs = len(gpus) // devices
        else:
            n_jobs = cores // max(devices, 1 if size.threads == "auto" else size.threads)
        n_jobs = max(n_jobs, 1)
        if size.threads != "auto":
            threads = size.threads
        elif size.n_jobs == "auto" and not gpus:
            threads = 1
        else:
            threads = max(cores // n_jobs, 1)
        jobs_per_gpu = math.ceil(n_jobs * min(devices, len(gpus)) / len(gpus)) if gpus else 1
        return cls(n_jobs, threads, gpus, jobs_per_gpu)

    def take(self, devices: int) -> list[str] | None:
        """Return the GPUs for a job on so many devices, none where there are none; None if it must wait."""
        emptiest = sorted(self.load, key=self.load.__getitem__)[:devices]
        if any(self.load[gpu] >= self.jobs_per_gpu for gpu in emptiest):
            return None
        for gpu in emptiest:
            self.load[gpu] += 1
        return emptiest

    def give_back(self, gpus: Sequence[str]) -> None:
        for gpu in gpus:
            self.load[gpu] -= 1


def devices_of(config: DictConfig, gpus: int) -> int:
    """Return how many devices a job trains on, of a machine with so many `gpus`.

    Raises `UserError` where they are chosen by their numbers, since a job sees its own GPUs alone.
    """
    devices = OmegaConf.select(config, "trainer.devices", default=1)
    if str(devices) in ("auto", "-1"):
        return max(gpus, 1)
    if isinstance(devices, int) or str(devices).isdecimal():
        return max(int(devices), 1)
    if gpus and (isinstance(devices, ListConfig) or "," in str(devices)):
        raise UserError(
            f"trainer.devices={devices}: hydra/launcher=pool divides the GPUs among the jobs itself. Give "
            "the number of devices of a job, and choose among the GPUs with CUDA_VISIBLE_DEVICES."
        )
    return 1


def gpus_for(config: DictConfig) -> list[str]:
    """Return the names by which CUDA_VISIBLE_DEVICES knows the GPUs, none for jobs on the CPU."""
    if OmegaConf.select(config, "trainer.accelerator", default="auto") == "cpu":
        return []
    import torch

    count = torch.cuda.device_count()  # without starting CUDA in this process
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = chosen.split(",") if chosen else [str(number) for number in range(count)]
    if torch.backends.mps.is_available():
        return ["0"]  # Apple's one GPU, to which the variable means nothing
    return [name.strip() for name in names[:count]]


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class _Running:
    """A job in its process."""

    number: int
    overrides: Sequence[str]
    gpus: Sequence[str]
    pipe: Connection
    process: Any = field(repr=False)  # of a context's own kind, which have no common type

    def has_ended(self, ready: Sequence[object]) -> bool:
        return self.pipe in ready or self.process.sentinel in ready

    def result(self) -> JobReturn:
        """Return what the job has sent, or that it died; its process is gone then."""
        result = None
        try:
            if self.pipe.poll():
                result = cloudpickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            pass
        except Exception as error:
            result = failed(RuntimeError(f"its result cannot be read: {error}"), self.overrides)
        self.process.join(SECONDS_TO_LEAVE if result is not None else 1.0)
        if result is None:
            result = failed(RuntimeError(_death(self.process.exitcode)), self.overrides)
        self.kill()
        return result

    def interrupt(self) -> None:
        """Let the job come to its end by a KeyboardInterrupt, if it has got as far as to run."""
        if sys.platform != "win32" and self.process.pid is not None:
            with contextlib.suppress(OSError):
                if os.getpgid(self.process.pid) == self.process.pid:
                    os.kill(self.process.pid, signal.SIGINT)
                    return
        self.kill()

    def kill(self) -> None:
        """Kill what is left of the job, with the processes that it has started."""
        self.pipe.close()  # at which a process ends that has not been given its job yet
        if self.process.pid is None:
            return
        if sys.platform != "win32":
            with contextlib.suppress(OSError):  # nothing is left
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()


class Pool:
    """Runs the jobs of a sweep, as many at a time as there are places for."""

    def __init__(
        self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig, size: Size
    ) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config
        self.size = size

    def run(self, jobs: Iterable[tuple[int, Sequence[str]]]) -> Iterator[tuple[int, JobReturn]]:
        """Run jobs (number, overrides), and yield each when it ends; a job that dies has failed.

        The next is taken from `jobs` when there is a place for it. Where this ends early, by Ctrl-C or
        because no more results are wanted, the jobs that are running are interrupted.
        """
        context = _context()
        configured = (
            (number, overrides, composed(self.hydra_context.config_loader, self.config, number, overrides))
            for number, overrides in jobs
        )
        places: Places | None = None
        following: tuple[int, Sequence[str], DictConfig] | None = None  # has been taken, waits for GPUs
        running: list[_Running] = []
        try:
            while True:
                while places is None or len(running) < places.n_jobs:
                    following = following or next(configured, None)
                    if following is None:
                        break
                    number, overrides, config = following
                    if places is None:
                        places = Places.for_jobs_like(config, self.size, gpus_for(config), cores())
                    gpus = places.take(devices_of(config, len(places.load)))
                    if gpus is None:
                        break
                    following = None
                    ours, theirs = context.Pipe()
                    environment = _environment(gpus, places.threads)
                    arguments = (number, environment, places.threads, theirs)
                    process = context.Process(target=_run, args=arguments)
                    running.append(_Running(number, overrides, gpus, ours, process))
                    process.start()
                    theirs.close()
                    with contextlib.suppress(OSError):  # it has died already, which is found below
                        ours.send_bytes(self._work(config))
                if not running:
                    return
                assert places is not None
                handles = [handle for job in running for handle in (job.pipe, job.process.sentinel)]
                ready = wait(handles)
                for job in [job for job in running if job.has_ended(ready)]:
                    result = job.result()
                    running.remove(job)
                    places.give_back(job.gpus)
                    yield job.number, result
        finally:
            _stop(running)

    def _work(self, config: DictConfig) -> bytes:
        """Return all that another process needs to run the job as this one would."""
        return bytes(
            cloudpickle.dumps((self.hydra_context, self.task_function, config, Singleton.get_state()))
        )


def _context() -> ForkServerContext | SpawnContext:
    """Return how processes are started: from a server on Linux; elsewhere libraries do not bear a fork."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    from multiprocessing.forkserver import ensure_running

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    # The server must have no threads, which do not live through a fork. NumPy's BLAS would start some.
    with env_override({"OMP_NUM_THREADS": "1"}):
        # Nor may Ctrl-C, which the terminal sends to all, break its imports.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            ensure_running()
        finally:
            signal.signal(signal.SIGINT, before)
    return context


def _environment(gpus: Sequence[str], threads: int) -> dict[str, str]:
    """Return the environment of a job on `gpus`, and of the ranks that it starts."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return dict(environment)


def _death(code: int | None) -> str:
    """Say how a process has ended that should have lived, by its exit code."""
    if code is None or code >= 0:
        return f"the job's process ended with exit code {code} before the job did"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = ", as the system does where memory runs out" if name == "SIGKILL" else ""
    return f"the job's process was killed by {name}{hint}"


def _stop(running: Sequence[_Running]) -> None:
    """Interrupt the jobs, and kill those that do not end."""
    try:
        for job in running:
            job.interrupt()
        deadline = time.monotonic() + SECONDS_TO_STOP
        for job in running:
            if job.process.pid is not None:
                job.process.join(max(deadline - time.monotonic(), 0.0))
    finally:  # also where the user does not want to wait
        for job in running:
            job.kill()


# Of the process of a job


def _run(number: int, environment: dict[str, str], threads: int, pipe: Connection) -> None:
    """Run a job in this process, which is its own, and send its JobReturn."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if sys.platform != "win32":
            os.setsid()  # so that the job is ended with all processes that it starts
        threading.Thread(target=_end_with_parent, daemon=True).start()
        os.environ.clear()
        os.environ.update(environment)
        answer = _answer(number, threads, pipe.recv_bytes())
        logging.shutdown()
        sys.stdout.flush()
        pipe.send_bytes(answer)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (EOFError, OSError):
        pass  # the sweep does not want the job any more
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    """End this process and those that it has started, when the sweep's is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    if sys.platform != "win32":
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _answer(number: int, threads: int, work: bytes) -> bytes:
    """Run a job, and return its JobReturn as bytes."""
    overrides: Sequence[str] = []
    try:
        for name in PRELOADED:
            import_module(name)  # the server says nothing where it could not
        import torch

        torch.set_num_threads(threads)
        hydra_context, task_function, config, singletons = cloudpickle.loads(work)
        overrides = list(config.hydra.overrides.task)
        Singleton.set_state(singletons)
        setup_globals()
        result = run_job(
            hydra_context=hydra_context,
            task_function=_numbered(task_function, number),
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    except Exception as error:
        result = failed(error, overrides)
    try:
        answer = cloudpickle.dumps(result)
        cloudpickle.loads(answer)  # there are exceptions that can be written but not read
    except Exception:
        value = result._return_value
        said = RuntimeError(f"{type(value).__name__}: {value}")
        answer = cloudpickle.dumps(failed(said, overrides))
    return bytes(answer)


def _numbered(task_function: TaskFunction, number: int) -> TaskFunction:
    """Return the task with the job's number before what it says on the console, where others speak, too.

    The settings of logging stay as they are, for they are saved with the run.
    """

    @functools.wraps(task_function)
    def numbered(config: Any) -> Any:
        for handler in logging.getLogger().handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setFormatter(_Numbered(number, handler.formatter or logging.Formatter()))
        return task_function(config)

    return numbered


class _Numbered(logging.Formatter):
    def __init__(self, number: int, inner: logging.Formatter) -> None:
        super().__init__()
        self.prefix = f"#{number}  "
        self.inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(self.prefix + line for line in self.inner.format(record).splitlines())
