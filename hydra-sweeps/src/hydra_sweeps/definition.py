"""What defines a sweep: a resumed one must compare the same jobs.

Its folder may be a stranger's. A resumed sweep takes choices of config groups from it, and values. What may
name code, a file outside, a server or the environment is typed again: interpolations, classes, dotted names,
paths, and of Hydra's own settings all but a few.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hydra_sweeps import files
from hydra_sweeps.contract import SweepError
from hydra_sweeps.files import printable
from hydra_sweeps.goal import is_dict, select
from hydra_sweeps.grammar import is_swept, key_of

FILE = "multirun.yaml"  # Hydra's name for the settings of a sweep

# Settings of every app that may differ when a sweep is resumed.
_IGNORED = (
    "hparams",
    "objective",
    "sweep",
    "hydra.sweeper._target_",
    "hydra.sweeper.n_trials",
    "hydra.sweeper.storage",
    "hydra.sweep.dir",
)

# Overrides that say how a sweep was started.
OF_THE_START = ("hydra.mode", "hydra.sweep.dir", "sweep.resume", "sweep.fail_fast")

_KEY = re.compile(r"(~|\+\+?)?[A-Za-z][\w-]*([./@:][\w-]+)*")
_NAMES_SOMETHING = re.compile(r"\$\{|_target_|\.\.|://|[A-Za-z_]\w*\.[A-Za-z_]")
_IS_PATH = re.compile(r"(^|[\s'\"(\[{,:=])[/~\\]")  # anywhere among several values
_HYDRA = re.compile(
    r"hydra(/\w+)+=\w+"
    r"|hydra\.sweeper\.(n_trials|seed|study_name|objectives|(sampler|pruner)\.\w+)=.*"
    r"|hydra\.launcher(\.parameters)?\.\w+=(\d+(\.\d+)?|true|false|null|auto|cpu|gpu)"
    r"|hydra\.launcher\.parameters\.slurm_(partition|account|qos)=[\w-]+"
)


def is_sweep(folder: Path) -> bool:
    """Return whether `folder` is the folder of a sweep."""
    return (folder / FILE).is_file()


def read(folder: Path) -> dict[str, Any]:
    """Return the definition of the sweep in `folder`, with interpolations as text.

    Raises `SweepError` where it cannot be read.
    """
    try:
        config = files.read(folder / FILE)
    except (ValueError, OSError) as reason:
        raise SweepError(f"{printable(reason)}.") from None
    for which in ("hydra", "task"):
        texts = select(config, "hydra", "overrides", which)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise SweepError(f"{folder / FILE} is not the definition of a sweep: it has no overrides.")
    return dict(config)


def overrides_to_resume(folder: Path, given: Sequence[str]) -> list[str]:
    """Return the overrides of the sweep in `folder`, with those `given` in place of the former ones.

    Raises `SweepError` if `folder` is not a sweep, and for settings in `left_out` that are not given.
    """
    if not is_sweep(folder):
        raise SweepError(f"sweep.resume={folder} is not the folder of a sweep: it has no {FILE}.")
    overrides = read(folder)["hydra"]["overrides"]
    texts = [*overrides["hydra"], *overrides["task"]]
    former: dict[str, str] = {}
    for text in texts:
        if key_of(text) not in OF_THE_START:
            former.pop(_name(text), None)  # the last one of a key counts, in its place
            former[_name(text)] = text
    # That the given sweeper is one of this package has brought us here; what it was is in the folder.
    gone = ("hydra.mode", "hydra.sweep.dir", "hydra/sweeper", "sweep.resume")
    now = {_name(text): text for text in given if key_of(text) not in gone}
    if now.get("hydra/launcher", former.get("hydra/launcher")) != former.get("hydra/launcher"):
        # The options of one launcher mean nothing to another.
        former = {key: text for key, text in former.items() if not key.startswith("hydra.launcher.")}
    if missing := left_out(text for key, text in former.items() if key not in now):
        again = printable(" ".join(map(shlex.quote, missing)))[:1000]
        raise SweepError(
            f"sweep.resume={folder}: settings that may name code, files or servers are not taken from its "
            f"{FILE}. If you know and trust them, add them to the command: {again}"
        )
    return list((former | now).values())


def _name(override: str) -> str:
    """Return the key of an override; that of a deletion differs from that of what is added in its place."""
    return f"{'~' if override.startswith('~') else ''}{key_of(override)}"


def left_out(overrides: Iterable[str]) -> list[str]:
    """Return those of `overrides` that a resumed sweep does not take from its folder."""
    return [one for one in overrides if key_of(one) not in OF_THE_START and not _is_taken(one)]


def _is_taken(override: str) -> bool:
    key, _, value = override.partition("=")
    name = key_of(key)
    if not _KEY.fullmatch(key) or _NAMES_SOMETHING.search(value) or not value.isprintable():
        return False
    if "_target_" in key or name in ("resume", "trust"):
        return False
    if name.startswith("hydra"):
        return _HYDRA.fullmatch(override) is not None
    # A config group, or a setting at the top level, must not be a path.
    return "." in name or not _IS_PATH.search(value)


def refuse_changes(former: Mapping[str, Any], now: DictConfig, folder: Path) -> None:
    """Raise `SweepError` with each setting that differs between the sweep's definition and `now`."""
    plain = OmegaConf.to_container(now, resolve=False, enum_to_str=True)
    assert isinstance(plain, dict)
    ignored = (*_IGNORED, *(OmegaConf.select(now, "sweep.ignore") or ()))
    before, after = _compared(former, ignored), _compared(plain, ignored)
    changed = [
        f"  {key}: {before.get(key, 'not set')} before, {after.get(key, 'not set')} now"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]
    if changed:
        raise SweepError(
            f"The sweep in {folder} has other settings, so that its jobs could not be compared:\n"
            + printable("\n".join(changed))
            + "\nKeep these settings, or start a new sweep."
        )


def _compared(config: Mapping[Any, Any], ignored: tuple[str, ...]) -> dict[str, str]:
    """Return the settings that must not change, as text, by their dotted keys."""
    hydra = {key: config["hydra"].get(key) for key in ("sweeper", "sweep")}
    flat = {key: str(value) for key, value in flatten({**config, "hydra": hydra})}
    flat = {key: value for key, value in flat.items() if not is_ignored(key, ignored)}
    for text in config["hydra"]["overrides"]["task"]:
        key, _, value = text.partition("=")
        # A setting that may change is part of the definition where it is swept.
        if not is_ignored(key_of(text), ignored) or is_swept(text):
            is_quoted = "'" in value or '"' in value
            flat[_name(key)] = value if is_quoted else re.sub(r"\s*,\s*", ",", value)
    return flat


def swept_keys(config: Any) -> list[str]:
    """Return the settings and groups that the sweep with this definition sweeps."""
    task, params = select(config, "hydra", "overrides", "task"), select(config, "hydra", "sweeper", "params")
    given = [f"{key}={value}" for key, value in params.items()] if is_dict(params) else []
    given += map(str, task) if isinstance(task, list) else []
    return [key_of(override) for override in given if is_swept(override)]


@lru_cache(maxsize=10_000)  # thousands of runs have the same settings
def is_ignored(key: str, ignored: tuple[str, ...]) -> bool:
    """Return whether `key` is one of `ignored`, or below one of them."""
    return f"{key}.".startswith(tuple(f"{one}." for one in ignored))


def flatten(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with their dotted keys."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
