"""Faults for a run to meet at a certain epoch: callbacks that a test names in callbacks.fault."""

import contextlib
import errno
import json
import os
import signal
import time
from pathlib import Path

import lightning as L
import psutil

from mnist_cnn.errors import UserError


def fault(kind: str, **options: object) -> str:
    """Return the setting that lets a run meet the fault `kind`, a class of this module."""
    node = {"_target_": f"tests.faults.{kind}", **options}
    return f"+callbacks.fault={{{', '.join(f'{key}: {value}' for key, value in node.items())}}}"


class _Fault(L.Callback):
    """Happens at the start of `epoch` on `rank`, or before the test if `epoch` is 0."""

    def __init__(self, epoch: int = 2, rank: int = 0) -> None:
        self.epoch, self.rank = epoch, rank

    def happen(self) -> None:
        raise NotImplementedError

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if (trainer.current_epoch + 1, trainer.global_rank) == (self.epoch, self.rank):
            self.happen()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.epoch == 0:
            self.happen()


class Refusal(_Fault):
    """The run ends with an error that says why."""

    def happen(self) -> None:
        raise UserError("This is the reason.")


class FullDisk(_Fault):
    """The file system of `file`, which is new, has `free` bytes left."""

    def __init__(self, file: str, free: int = 0, **when: int) -> None:
        super().__init__(**when)
        self.file, self.free = Path(file), free

    def happen(self) -> None:
        if self.file.exists():  # it has happened
            return
        with self.file.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        os.truncate(self.file, self.file.stat().st_size - self.free)


class Signal(_Fault):
    """The process gets the signal `name`."""

    def __init__(self, name: str, **when: int) -> None:
        super().__init__(**when)
        self.name = name

    def happen(self) -> None:
        os.kill(os.getpid(), getattr(signal, self.name))


class Hang(_Fault):
    """The process does nothing until it is ended."""

    def happen(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(3600)


class NoSpaceAfterInterrupt(_Fault):
    """The process is interrupted, and its checkpoint cannot be written."""

    def happen(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.ckpt")


class NoMemory(_Fault):
    """The process gets no more memory than `megabytes`."""

    def __init__(self, megabytes: int, **when: int) -> None:
        super().__init__(**when)
        self.megabytes = megabytes

    def happen(self) -> None:
        import resource  # not on Windows

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + self.megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class ClockBack(_Fault):
    """The clock is set back by a day."""

    def happen(self) -> None:
        now = time.time
        time.time = lambda: now() - 86_400


class Usage(L.Callback):
    """Appends what the process uses at the end of its job to `file`, a line of JSON for each job."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        process = psutil.Process()
        used = {
            "megabytes": process.memory_full_info().uss / 2**20,
            "files": process.num_fds(),
            "threads": process.num_threads(),
        }
        with self.file.open("a") as file:
            file.write(json.dumps(used) + "\n")
