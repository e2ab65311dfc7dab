"""The exception whose message is for the user, and tracebacks for the log files."""

import logging


class UserError(Exception):
    """Something the user can mend: what is wrong, the value given, what to type instead.

    The commands print its message without a traceback and exit with code 1.
    """


def log_traceback(log: logging.Logger, error: BaseException) -> None:
    """Write the traceback of `error` to the log files only; the console shows its message."""
    info = (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "traceback of the error above", (), info)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
