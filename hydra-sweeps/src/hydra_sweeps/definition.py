"""What defines a sweep: a resumed one must compare the same jobs."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hydra_sweeps import files
from hydra_sweeps.contract import SweepError
from hydra_sweeps.files import Unreadable, printable
from hydra_sweeps.goal import is_dict, select
from hydra_sweeps.grammar import is_swept, key_of
from hydra_sweeps.trust import OF_THE_START, left_out

FILE = "multirun.yaml"  # Hydra's name for the settings of a sweep

# Settings of every app that may differ when a sweep is resumed.
_IGNORED = (
    *("hparams", "objective", "resume", "sweep"),
    *("hydra.sweeper._target_", "hydra.sweeper.n_trials", "hydra.sweeper.storage", "hydra.sweep.dir"),
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
    except (Unreadable, OSError) as reason:
        raise SweepError(f"{folder / FILE} cannot be read: {printable(reason)}.") from None
    for which in ("hydra", "task"):
        texts = select(config, "hydra", "overrides", which)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise SweepError(f"{folder / FILE} is not the definition of a sweep: it has no overrides.")
    return dict(config)


def overrides_to_resume(folder: Path, given: Sequence[str]) -> list[str]:
    """Return the overrides of the sweep in `folder`, with those `given` in place of the former ones.

    Raises `SweepError` if `folder` is not a sweep, and for settings in `trust.left_out` that are not given.
    """
    if not is_sweep(folder):
        raise SweepError(f"sweep.resume={folder} is not the folder of a sweep: it has no {FILE}.")
    overrides = read(folder)["hydra"]["overrides"]
    texts = [*overrides["hydra"], *overrides["task"]]
    former = {key_of(text): text for text in texts if key_of(text) not in OF_THE_START}
    # That the given sweeper is one of this package has brought us here; what it was is in the folder.
    gone = ("hydra.mode", "hydra.sweep.dir", "hydra/sweeper", "sweep.resume")
    now = {key_of(text): text for text in given if key_of(text) not in gone}
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


def _compared(config: Mapping[Any, Any], ignored: Iterable[str]) -> dict[str, str]:
    """Return the settings that must not change, as text, by their dotted keys."""
    hydra = {key: config["hydra"].get(key) for key in ("sweeper", "sweep")}
    flat = {key: str(value) for key, value in flatten({**config, "hydra": hydra})}
    flat = {key: value for key, value in flat.items() if not is_ignored(key, ignored)}
    for text in config["hydra"]["overrides"]["task"]:
        key, _, value = text.partition("=")
        # A setting that may change is part of the definition where it is swept.
        if not is_ignored(key_of(text), ignored) or is_swept(text):
            flat[key_of(key)] = value
    return {key: value.replace(" ", "") for key, value in flat.items()}


def swept_keys(config: Any) -> list[str]:
    """Return the settings and groups that the sweep with this definition sweeps."""
    task, params = select(config, "hydra", "overrides", "task"), select(config, "hydra", "sweeper", "params")
    given = [f"{key}={value}" for key, value in params.items()] if is_dict(params) else []
    given += map(str, task) if isinstance(task, list) else []
    return [key_of(override) for override in given if is_swept(override)]


def is_ignored(key: str, ignored: Iterable[str]) -> bool:
    """Return whether `key` is one of `ignored`, or below one of them."""
    return f"{key}.".startswith(tuple([f"{one}." for one in ignored]))


def flatten(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with their dotted keys."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
