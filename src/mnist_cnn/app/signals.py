"""What a signal does: it ends the command at once or, in a job that has begun, raises `Interrupted`.

While libraries are imported, an exception could abort the process in the middle of a C++ extension, or be
caught by one of them. In training `training.resume` takes over: the first signal writes a checkpoint.
The exit code is that of shells: 128 and the number of the signal.
"""

import os
import signal

from mnist_cnn.errors import Interrupted

# Slurm warns before a time limit with SIGUSR1; Windows does not know the last two.
SIGNALS = [
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
]


def end_at_once() -> None:
    """Let each signal end the process, unless it is ignored, as SIGHUP is under nohup, or handled already."""
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _exit)


def raise_interrupted() -> None:
    """Let each signal that would end the process raise `Interrupted` instead."""
    for number in SIGNALS:
        if signal.getsignal(number) is _exit:
            signal.signal(number, _raise)


def handled() -> list[signal.Signals]:
    """Return the signals that raise `Interrupted`."""
    return [number for number in SIGNALS if signal.getsignal(number) is _raise]


def _exit(number: int, frame: object) -> None:
    os._exit(128 + number)


def _raise(number: int, frame: object) -> None:
    raise Interrupted(number)
