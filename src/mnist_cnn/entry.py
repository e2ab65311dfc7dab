"""The start of a command. It imports only the standard library, so that Ctrl-C always ends it cleanly.

SIGTERM, SIGHUP and SIGUSR1, with which Slurm warns before a time limit, end it like Ctrl-C. In training they
end it after a checkpoint, and the second one at once. The exit code is that of shells: 128 and the number of
the signal.
"""

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Function = Callable[[Any], object]

_received: signal.Signals | None = None  # the last signal that has asked the command to end
_raised = False  # whether a signal has raised KeyboardInterrupt
_deferred = False  # whether a first signal only requests that the command stops


def interrupted() -> bool:
    """Return whether a signal has asked the command to end; it asks here before it starts something long.

    A KeyboardInterrupt may not arrive: some libraries catch it and continue.
    """
    return _received is not None


def interrupt_raised() -> bool:
    """Return whether a signal has raised KeyboardInterrupt, which some libraries turn into another error."""
    return _raised


def interrupt_code() -> int:
    """Return the exit code of a command that was interrupted."""
    return 128 + (_received or signal.SIGINT)


def _interrupt(number: int, _: FrameType | None) -> None:
    global _received, _raised
    is_first, _received = _received is None, signal.Signals(number)
    if not (is_first and _deferred):
        _raised = True
        raise KeyboardInterrupt
    # Not print, which may be what the signal has interrupted.
    os.write(2, b"\nstopping with a checkpoint; interrupt again to stop at once\n")


def defer_interrupts(defer: bool) -> None:
    """Let the first signal only request a stop (`interrupted`), or let it raise KeyboardInterrupt."""
    global _deferred
    _deferred = defer


def command(config_name: str) -> Callable[[Function], Callable[[], None]]:
    """Make a function of a config the entry point of a command line that Hydra parses.

    Hydra composes `conf/<config_name>.yaml` and the arguments of the command line into the config.
    Errors that a user can correct end the command with their message and exit code 1; with
    `HYDRA_FULL_ERROR=1` in the environment every error is shown with its traceback.
    """

    def decorate(function: Function) -> Callable[[], None]:
        @functools.wraps(function)
        def start() -> None:
            for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):  # the last two are unknown to Windows
                number = getattr(signal, name, None)
                # but not a signal that is ignored, as SIGHUP is under nohup
                if number and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    signal.signal(number, _interrupt)
            try:
                with exit_on_interrupt():
                    from mnist_cnn import commands

                commands.run(function, config_name)
            except KeyboardInterrupt:
                sys.exit(interrupt_code())

        return start

    return decorate


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """End the process at once on Ctrl-C in the block, which imports libraries.

    A KeyboardInterrupt in the middle of importing a C++ extension would abort the process.
    """
    # but not of signals that are ignored, or handled by somebody else
    ours = (signal.default_int_handler, _interrupt)
    before = {n: handler for n in signal.valid_signals() if (handler := signal.getsignal(n)) in ours}
    for number in before:
        signal.signal(number, lambda number, _: os._exit(128 + number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
