"""Messages for errors that the user can correct."""

import difflib
import errno
import re
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
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
        return _unknown_setting(str(error.__cause__)) or str(error)
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
    return _unknown_setting(message) or message


def _unknown_setting(message: str) -> str | None:
    """Return a message with the known settings; None unless `message` is Hydra's of an unknown setting."""
    match = re.search(r"Could not override '([\w.]+)'", message)
    if match is None:
        return None
    key = match[1]
    # The settings depend on the options chosen, so that these are composed without the values.
    groups = {str(path.relative_to(CONF)) for path in CONF.rglob("*") if path.is_dir()}
    # A comma in a list does not sweep.
    chosen = [a for a in sys.argv[1:] if a.split("=")[0] in groups and "," not in re.sub(r"\[.*\]", "", a)]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(Path(sys.argv[0]).stem, overrides=chosen, return_hydra_config=True)
    except HydraException:  # of a choice in the user's own folder
        return None
    node: Any = config
    parents: list[str] = []
    rest = key.split(".")
    while rest and isinstance(node, DictConfig) and rest[0] in node:
        parents.append(rest.pop(0))
        node = node[parents[-1]]
    if not rest or not isinstance(node, DictConfig):
        return None
    for group, choice in (("hydra/launcher", "pool"), ("hydra/sweeper", "optuna")):
        if parents == group.split("/") and not any(one.startswith(f"{group}=") for one in chosen):
            return f"there is no setting {key}: add {group}={choice}."
    if parents and not node:
        return f"there is no setting {key}: choose an option of {parents[0]} first, {parents[0]}=NAME."
    known = sorted(str(name) for name in node if not str(name).startswith("_") and name != "hydra")
    near = difflib.get_close_matches(rest[0], known, n=1)
    hint = f" Did you mean {'.'.join([*parents, near[0], *rest[1:]])}?" if near else ""
    where = f"settings of {'.'.join(parents)}" if parents else "settings"
    # Hydra adds a setting that is typed with a plus; a class or Lightning's Trainer may take it.
    plus = f"\nAn argument that is not listed is added with a plus: +{key}=VALUE" if parents else ""
    return f"there is no setting {key}.{hint}\n{where}: {', '.join(known)}{plus}"
