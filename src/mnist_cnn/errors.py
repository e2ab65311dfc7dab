"""The exceptions that end a command with a message and no traceback, and text that is safe to print."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """An error that the user can correct. The message says what is wrong, the value given and what to type.

    The commands print the message without a traceback and exit with code 1.
    """


class Interrupted(BaseException):
    """A signal has ended the job.

    It is not a KeyboardInterrupt, which Lightning turns into `SystemExit(1)`, and not an `Exception`, so that
    no handler of errors catches it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """The exit code of shells: 128 and the number of the signal."""
        return 128 + self.number


def printable(text: str) -> str:
    """Return `text` without the characters that would control the terminal that shows it."""
    return "".join(character if character.isprintable() else "?" for character in text)


def one_line(message: object) -> str:
    """Return a text, or the message of an exception, in one printable line of at most 500 characters."""
    text = str(message)
    if isinstance(message, LookupError) or (isinstance(message, Exception) and not text):
        text = f"{type(message).__name__} {text}"  # of a missing key the message is the key alone
    return printable(" ".join(text.split())[:500])


@contextmanager
def needs_extra(extra: str, setting: str) -> Iterator[None]:
    """Raise `UserError` that names the extra to install for `setting` if an import in the block fails."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{setting} needs other packages ({one_line(error)}). Install them with: "
            f"pip install -e '.[{extra}]'"
        ) from error


def log_traceback(log: logging.Logger, error: BaseException) -> None:
    """Write the traceback of `error` to the log files only; the console shows the message."""
    log_to_files(log, logging.ERROR, "traceback", error)


def log_to_files(log: logging.Logger, level: int, message: str, error: BaseException | None = None) -> None:
    """Write a message to the log files only, with the traceback of `error`."""
    info = None if error is None else (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, level, __file__, 0, message, (), info)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
