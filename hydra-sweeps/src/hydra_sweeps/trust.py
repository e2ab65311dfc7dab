"""What a resumed sweep takes from its folder, which may be a stranger's.

Choices of the app's config groups, and values. What may name code, a file outside, a server or the
environment is typed again: interpolations, classes, dotted names, paths, and of Hydra's own settings all
but a few.
"""

import re
from collections.abc import Iterable

from hydra_sweeps.grammar import key_of

# Overrides that say how a sweep was started.
OF_THE_START = ("hydra.mode", "hydra.sweep.dir", "sweep.resume", "sweep.fail_fast")

_KEY = re.compile(r"(~|\+\+?)?[A-Za-z][\w-]*([./@:][\w-]+)*")
_NAMES_SOMETHING = re.compile(r"\$\{|_target_|\.\.|://|[A-Za-z_]\w*\.[A-Za-z_]")
_IS_PATH = re.compile(r"(^|[\s'\"(\[{,:=])[/~\\]")  # anywhere among several values
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HYDRA = re.compile(
    r"hydra(/\w+)+=\w+"
    r"|hydra\.sweeper\.(n_trials|seed|study_name|objectives|(sampler|pruner)\.\w+)=.*"
    r"|hydra\.launcher(\.parameters)?\.\w+=(\d+(\.\d+)?|true|false|null|auto|cpu|gpu)"
    r"|hydra\.launcher\.parameters\.slurm_(partition|account|qos)=[\w-]+"
)
_NEVER = ("resume", "trust")


def left_out(overrides: Iterable[str]) -> list[str]:
    """Return those of `overrides` that a resumed sweep does not take from its folder."""
    return [one for one in overrides if key_of(one) not in OF_THE_START and not _is_taken(one)]


def _is_taken(override: str) -> bool:
    key, _, value = override.partition("=")
    name = key_of(key)
    if not _KEY.fullmatch(key) or _NAMES_SOMETHING.search(value) or _CONTROL.search(value):
        return False
    if "_target_" in key or name in _NEVER:
        return False
    if name.startswith("hydra"):
        return _HYDRA.fullmatch(override) is not None
    # A config group, or a setting at the top level, must not be a path.
    return "." in name or not _IS_PATH.search(value)
