"""The start of a command. It imports only the standard library, so that Ctrl-C always ends it cleanly."""

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130  # exit code after Ctrl-C, as in shells: 128 + SIGINT

Function = Callable[[Any], object]


def command(config_name: str) -> Callable[[Function], Callable[[], None]]:
    """Make a function of a config the entry point of a command line that Hydra parses.

    Hydra composes `conf/<config_name>.yaml` and the arguments of the command line into the config.
    Errors that a user can correct end the command with their message and exit code 1; with
    `HYDRA_FULL_ERROR=1` in the environment every error is shown with its traceback.
    """

    def decorate(function: Function) -> Callable[[], None]:
        @functools.wraps(function)
        def start() -> None:
            try:
                from mnist_cnn import commands

                commands.run(function, config_name)
            except KeyboardInterrupt:
                sys.exit(INTERRUPTED)

        return start

    return decorate


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """End the process at once on Ctrl-C in the block, which imports libraries.

    A KeyboardInterrupt in the middle of importing a C++ extension would abort the process.
    """
    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.default_int_handler:  # ignored, or handled by somebody else
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
