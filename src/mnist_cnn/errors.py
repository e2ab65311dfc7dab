"""The exception for errors that the user can correct, safe messages, and tracebacks for the log files."""

import logging


class UserError(Exception):
    """An error that the user can correct: the message says what is wrong, the value given, what to type.

    The commands print the message without a traceback and exit with code 1.
    """


def printable(text: str) -> str:
    """Return `text` without what would control the terminal that shows it."""
    return "".join(character if character.isprintable() else "?" for character in text)


def one_line(text: object) -> str:
    """Return `text` without line breaks, and at most 500 characters of it."""
    return " ".join(str(text).split())[:500]


def log_traceback(log: logging.Logger, error: BaseException) -> None:
    """Write the traceback of `error` to the log files only; the console shows its message."""
    info = (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "traceback", (), info)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
