"""The process of a job: started, watched and ended in the same way by every launcher.

It runs in a session of its own, so that all its processes can be ended together, and ends when the process
that has started it ends in any way.
"""

import gc
import io
import logging
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeAlias, cast

from hydra.core.utils import env_override

from hydra_sweeps.contract import FAILED
from hydra_sweeps.launchers.base import Command
from hydra_sweeps.outcome import describe_exit, record_failure

Context: TypeAlias = ForkServerContext | SpawnContext

# An interrupted job may use this time to report how to resume and to end the processes it has started.
SECONDS_TO_STOP = 10.0

# Slurm warns all processes of a job before its time limit; the warning is for submitit alone.
_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)


class JobProcess:
    """A process that runs the command of a job; `prefix` is put before each line that it prints."""

    def __init__(
        self, context: Context, command: Command, environment: Mapping[str, str], prefix: str = ""
    ) -> None:
        # With HYDRA_FULL_ERROR Hydra raises an error instead of printing it.
        variables = {**os.environ, "HYDRA_FULL_ERROR": "1", **command.environment, **environment}
        arguments = (command.arguments, variables, command.folder, prefix)
        self._process: Any = context.Process(target=_run, args=arguments)  # each context has its own type
        with _no_main_module():
            self._process.start()

    @property
    def sentinel(self) -> int:
        """What `multiprocessing.connection.wait` waits for: the end of the process."""
        return int(self._process.sentinel)

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the process, and return whether it has ended."""
        self._process.join(seconds)
        return self._process.exitcode is not None

    def failure(self) -> str | None:
        """Return why the process has failed; None if it has not."""
        code = self._process.exitcode
        if code is None or code >= 0:
            return describe_exit(code)
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"the job's process was killed by {name}{hint}"

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the job, or kill it if it has not started to run."""
        with suppress(OSError):
            if os.getpgid(self._process.pid) == self._process.pid:
                os.kill(self._process.pid, signal.SIGINT)
                return
        self.kill()

    def kill(self) -> None:
        """Kill the job and all processes it has started."""
        with suppress(OSError):  # none is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()


def end(jobs: Sequence[JobProcess], seconds: float | None = None) -> None:
    """Interrupt the jobs, and kill those that have not ended after `seconds`, and what they have started."""
    try:
        for job in jobs:
            job.interrupt()
        deadline = time.monotonic() + (SECONDS_TO_STOP if seconds is None else seconds)
        for job in jobs:
            job.join(max(deadline - time.monotonic(), 0.0))
    finally:  # also if the user interrupts again
        for job in jobs:
            job.kill()


def process_context(preload: Sequence[str] = ()) -> Context:
    """Return how processes are started.

    On Linux they are forked from a server that has imported `preload`, since the imports of an app may take
    longer than a job. Elsewhere forks are not safe.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    from multiprocessing.forkserver import ensure_running

    context = multiprocessing.get_context("forkserver")
    known = ("hydra.main", "hydra_sweeps.callbacks", "hydra_sweeps.launchers.warm")
    context.set_forkserver_preload([*known, *preload])
    # The server must have no threads, which a fork does not copy; NumPy's BLAS would start some. Nor may a
    # Ctrl-C, which the terminal sends to all processes, interrupt its imports, or a signal of Slurm end it,
    # which the job takes: without the server its exit code would be lost.
    blocked = (signal.SIGINT, signal.SIGTERM, *_WARNINGS)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        with env_override({"OMP_NUM_THREADS": "1"}):
            ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep multiprocessing from importing the script of this process into the new one, which runs it."""
    main = vars(sys.modules["__main__"])
    hidden = {name: main.pop(name, None) for name in ("__file__", "__spec__")}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update({name: value for name, value in hidden.items() if value is not None})


class RemoteCommand:
    """A command that a cluster calls in a process of its own; returns why it has failed.

    If an exception ends the wait, the command is interrupted, and then killed with all its processes.
    """

    def __init__(self, command: Command, threads: int | None) -> None:
        self.command = command
        self.environment = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        self.cwd = os.getcwd()
        self.running: JobProcess | None = None

    def __call__(self) -> str | None:
        os.chdir(self.cwd)
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup leaves it ignored
        job = self.running = JobProcess(process_context(), self.command, self.environment)
        try:
            while not job.join(0.1):  # an endless wait would not notice that Ray cancels the task
                pass
        finally:
            end([job])
        return job.failure()


# --- in the process of a job ---------------------------------------------------------------------


def _run(arguments: Sequence[str], environment: Mapping[str, str], folder: Path, prefix: str) -> None:
    """Run a job's command in this process, and exit with its code."""
    gc.freeze()  # the collector need not look at the libraries of the server
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in _WARNINGS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the server has blocked them
    os.setsid()  # so that the job's processes can be ended together
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    if (torch := sys.modules.get("torch")) and "OMP_NUM_THREADS" in environment:
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))  # preloaded, it has not read the variable
    prefixed = [_Prefixed(stream, prefix) for stream in (sys.stdout, sys.stderr)]
    sys.stdout, sys.stderr = streams = [one.as_text() for one in prefixed]
    code: object = 0
    try:
        _run_script(arguments[1:])
    except SystemExit as stop:
        code = stop.code
    except Exception as error:
        if not (folder / FAILED).is_file():  # else the app has reported the error itself
            traceback.print_exc()
            record_failure(folder, error)
        code = 1
    except BaseException as interruption:  # a KeyboardInterrupt, or one of the app's own class
        code = getattr(interruption, "exit_code", 128 + signal.SIGINT)
    if isinstance(code, str):
        record_failure(folder, code)
        code = 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.shutdown()
    for stream, lines in zip(streams, prefixed, strict=True):
        if not stream.closed:  # by the app
            stream.flush()
            lines.end()
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


def _end_with_parent() -> None:
    """Kill this process, and those it has started, when the process that has started it ends in any way."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(os.getpid(), signal.SIGKILL)


class _Prefixed(io.RawIOBase):
    """Writes whole lines with a prefix, since several jobs write to the same console.

    Of a line that is written over, as by a progress bar, the last state is shown.
    """

    def __init__(self, stream: TextIO, prefix: str) -> None:
        self._stream = stream
        self._prefix = prefix.encode()
        self._rest = b""

    def as_text(self) -> TextIO:
        """Return a stream for text, in which a character that the console does not have is escaped."""
        raw = cast(BinaryIO, self)
        return io.TextIOWrapper(raw, self._stream.encoding, errors="backslashreplace", line_buffering=True)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        *lines, rest = (self._rest + bytes(data)).split(b"\n")
        self._rest = _last_state(rest)
        if lines:
            texts = (self._prefix + _last_state(line).rstrip(b"\r") + b"\n" for line in lines)
            self._stream.buffer.write(b"".join(texts))
            self._stream.buffer.flush()
        return len(data)

    def end(self) -> None:
        """Write a last line that has no end."""
        if self._rest:
            self.write(b"\n")

    def fileno(self) -> int:
        return self._stream.fileno()


def _last_state(line: bytes) -> bytes:
    """Return what is visible of a line in which a carriage return begins a new state."""
    before, end, state = line.rpartition(b"\r")
    return state if state else before.rpartition(b"\r")[2] + end
