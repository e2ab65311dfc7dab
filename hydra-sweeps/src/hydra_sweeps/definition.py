"""What defines a sweep: a resumed one must compare the same jobs."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from hydra_sweeps.files import Unreadable, printable, read_yaml
from hydra_sweeps.interface import SweepError, quote

FILE = "multirun.yaml"  # Hydra's name for the settings of a sweep

# Settings of every app that may differ when a sweep is resumed.
_IGNORED = (
    *("hparams", "objective", "resume", "sweep"),
    *("hydra.sweeper._target_", "hydra.sweeper.n_trials", "hydra.sweeper.storage"),
)

# Overrides that a resumed sweep takes from its folder, which may be untrusted: choices of the app's config
# groups, and values. What may name code, a file outside, a server or the environment is typed
# again: interpolations, classes, dotted names, paths upwards, and of Hydra's own settings all but these.
_KEY = re.compile(r"(~|\+\+?)?[A-Za-z][\w-]*([./@:][\w-]+)*")
_NAMES_SOMETHING = re.compile(r"\$\{|_target_|\.\.|://|[A-Za-z_]\w*\.[A-Za-z_]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HYDRA = re.compile(
    r"hydra(/\w+)+=\w+"
    r"|hydra\.sweeper\.(n_trials|seed|study_name|objectives|(sampler|pruner)\.\w+)=.*"
    r"|hydra\.launcher(\.parameters)?\.\w+=(\d+(\.\d+)?|true|false|null|auto|cpu|gpu)"
    r"|hydra\.launcher\.parameters\.slurm_(partition|account|qos)=[\w-]+"
)
_NEVER = ("resume", "trust")

# Overrides that say how a sweep was started.
_OF_THE_START = ("hydra.mode", "hydra.sweep.dir", "sweep.resume", "sweep.fail_fast")


def left_out(overrides: Iterable[str]) -> list[str]:
    """Return those of `overrides` that a resumed sweep does not take from its folder."""
    return [one for one in overrides if key_of(one) not in _OF_THE_START and not _is_taken(one)]


def _is_taken(override: str) -> bool:
    key, _, value = override.partition("=")
    name = key_of(key)
    if not _KEY.fullmatch(key) or _NAMES_SOMETHING.search(value) or _CONTROL.search(value):
        return False
    if "_target_" in key or name in _NEVER:
        return False
    if name.startswith("hydra"):
        return _HYDRA.fullmatch(override) is not None
    # A config group, or a setting at the top level, must not be a path outside the folder.
    return "." in name or not value.strip(" '\"[").startswith(("/", "~"))


def key_of(override: str) -> str:
    """Return the key of an override, without the + or ~ before it."""
    return override.split("=", 1)[0].lstrip("+~")


def is_ignored(key: str, ignored: Iterable[str]) -> bool:
    """Return whether `key` is one of `ignored`, or below one of them."""
    return any(key == one or key.startswith(f"{one}.") for one in ignored)


def arguments_to_resume(folder: Path, arguments: list[str]) -> list[str]:
    """Return the arguments of the sweep in `folder`, with `arguments` in place of the former ones.

    Raises `SweepError` if `folder` is not a sweep, and for settings in
    `left_out` that `arguments` do not give again.
    """
    file = folder / FILE
    if not file.is_file():
        raise SweepError(f"sweep.resume={folder} is not the folder of a sweep: it has no {FILE}.")
    former = {key_of(text): text for text in _overrides(file)}
    for key in _OF_THE_START:
        former.pop(key, None)
    options = [text for text in arguments if text.startswith("-")]
    given = {key_of(text): text for text in arguments if text not in options}
    if given.get("hydra/launcher", former.get("hydra/launcher")) != former.get("hydra/launcher"):
        # The options of one launcher mean nothing to another.
        former = {key: text for key, text in former.items() if not key.startswith("hydra.launcher.")}
    if missing := left_out(text for key, text in former.items() if key not in given):
        again = printable(" ".join(map(shlex.quote, missing)))[:1000]
        raise SweepError(
            f"sweep.resume={folder}: settings that may name code, files or servers are not taken from its "
            f"{FILE}. If you know and trust them, add them to the command: {again}"
        )
    where = [f"sweep.resume={quote(folder)}", f"hydra.sweep.dir={quote(folder)}"]
    return [*options, *(former | given).values(), *where]


def read(folder: Path) -> DictConfig | ListConfig:
    """Return the definition of the sweep in `folder`; raises `SweepError` where it cannot be read."""
    try:
        config: DictConfig | ListConfig = OmegaConf.create(read_yaml(folder / FILE))
        return config
    except (Unreadable, OSError) as reason:
        raise SweepError(f"{folder / FILE} cannot be read: {reason}.") from None


def _overrides(file: Path) -> list[str]:
    """Return the overrides in the definition of a sweep; raises `SweepError` for any other file."""
    try:
        overrides = read_yaml(file)["hydra"]["overrides"]
        found = [*overrides["hydra"], *overrides["task"]]
    except Unreadable as reason:
        raise SweepError(f"{file} cannot be read: {printable(reason)}.") from None
    except (LookupError, TypeError):
        found = [None]
    if not all(isinstance(text, str) for text in found):
        raise SweepError(f"{file} is not the definition of a sweep: it has no list of overrides.")
    return found


def refuse_changes(former: DictConfig | ListConfig, now: DictConfig, folder: Path) -> None:
    """Raise `SweepError` with each setting that differs between the sweep's definition and `now`."""
    ignored = (*_IGNORED, *OmegaConf.select(now, "sweep.ignore", default=[]))
    try:
        before = _flat(former, ignored)
    except (LookupError, TypeError, AttributeError, AssertionError, HydraException) as error:
        raise SweepError(f"{folder / FILE} is not the definition of a sweep: {error}") from None
    after = _flat(now, ignored)
    changed = [
        f"  {key}: {before.get(key, 'not set')} before, {after.get(key, 'not set')} now"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]
    if changed:
        raise SweepError(
            f"The sweep in {folder} has other settings, so that its jobs could not be compared:\n"
            + "\n".join(changed)
            + "\nKeep these settings, or start a new sweep."
        )


def _flat(config: DictConfig | ListConfig, ignored: tuple[str, ...]) -> dict[str, str]:
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    hydra = plain.pop("hydra")
    compared = plain | {"hydra": {"sweeper": hydra["sweeper"], "sweep": {"subdir": hydra["sweep"]["subdir"]}}}
    flat = {key: str(value) for key, value in flatten(compared) if not is_ignored(key, ignored)}
    for text in hydra["overrides"]["task"]:
        key, _, value = text.partition("=")
        # A setting that may change is part of the definition where it is swept.
        if not is_ignored(key_of(text), ignored) or is_swept(text):
            flat[key_of(key)] = value
    return {key: value.replace(" ", "") for key, value in flat.items()}


def is_swept(override: str) -> bool:
    """Return whether `override` gives several values."""
    return OverridesParser.create().parse_override(override).is_sweep_override()


def flatten(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with their dotted keys."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
