"""Messages for errors that the user can correct."""

import difflib
import errno
import re

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from hydra_sweeps import SweepError
from mnist_cnn.app.paths import CONF
from mnist_cnn.errors import UserError, one_line

# Errors of the file system that the user can do something about.
_USER_OS_ERRORS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
}

# Messages of torch, on a GPU and on the CPU, and of C++.
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "bad_alloc")


def message_for_user(error: BaseException) -> str | None:
    """Return the message for the user, or None where the error is not one that a user can correct."""
    for cause in (error, error.__cause__):  # Hydra wraps errors of the objects that it instantiates
        if cause is not None and _is_out_of_memory(cause):
            return f"out of memory: {one_line(cause)}. Try a smaller data.batch_size."
    if isinstance(error, UserError | SweepError):  # one of a sweep may be due to settings of a job
        return _unknown_setting(error.__cause__) or str(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _hydra_message(error)
    if type(error).__name__ == "MisconfigurationException":  # of Lightning, which is not imported here
        return f"Lightning refuses these settings: {one_line(error)}"
    if isinstance(error, OSError) and error.errno in _USER_OS_ERRORS:
        file = error.filename or _files_of_the_run()
        return f"cannot access {file}: {error.strerror}. Check the path, its permissions and the free space."
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def _files_of_the_run() -> str:
    folder = f" in {HydraConfig.get().runtime.output_dir}" if HydraConfig.initialized() else ""
    return f"the files of the run{folder}"


def _hydra_message(error: Exception) -> str | None:
    cause: BaseException | None = error
    while cause is not None:  # of an object or an interpolation
        # Hydra's error of a missing choice is an OSError, too.
        if isinstance(cause, UserError | SweepError | OSError) and not isinstance(cause, HydraException):
            return message_for_user(cause)
        cause = cause.__cause__ or cause.__context__
    message = str(error).split("\nConfig search path:")[0]
    if isinstance(error.__cause__, OmegaConfBaseException):
        message += f"\n{error.__cause__}"
    return _unknown_setting(error) or message


def _unknown_setting(error: BaseException | None) -> str | None:
    """Return a message with the known settings; None unless `error` is Hydra's of an unknown setting."""
    match = re.match(r"Could not override '([\w.]+)'", str(error))
    cause = error and error.__cause__
    if match is None or not isinstance(cause, OmegaConfBaseException):
        return None
    key, full_key = match[1], str(cause.full_key)  # optm.lr, and optm
    parent, _, name = full_key.rpartition(".")
    known = sorted(str(one) for one in cause.parent_node if not str(one).startswith("_") and one != "hydra")
    if known in ([], ["params"]):  # of a group of which nothing is chosen, or of hydra/sweeper=grid
        options = {"hydra.launcher": "hydra/launcher=pool", "hydra.sweeper": "hydra/sweeper=optuna"}
        option = options.get(parent) or ((CONF / parent).is_dir() and f"{parent}=NAME")
        return f"there is no setting {key}: choose an option first, {option}." if option else None
    near = difflib.get_close_matches(name, known, n=1)
    message = f"there is no setting {key}."
    if near:
        message += f" Did you mean {full_key.removesuffix(name)}{near[0]}{key.removeprefix(full_key)}?"
    message += f"\n{f'settings of {parent}' if parent else 'settings'}: {', '.join(known)}"
    if parent:  # Hydra adds a setting that is typed with a plus; a class or Lightning's Trainer may take it
        message += f"\nAn argument that is not listed is added with a plus: +{key}=VALUE"
    return message
