"""What defines a sweep: a resumed one must compare the same jobs."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf

from hydra_sweeps.interface import SweepError, quote

FILE = "multirun.yaml"  # Hydra's name for the settings of a sweep

# Settings of every app that may differ when a sweep is resumed.
_IGNORED = (
    *("hparams", "objective", "resume", "sweep"),
    *("hydra.sweeper._target_", "hydra.sweeper.n_trials", "hydra.sweeper.storage"),
)


def key_of(override: str) -> str:
    """Return the key of an override, without the + or ~ before it."""
    return override.split("=", 1)[0].lstrip("+~")


def is_ignored(key: str, ignored: Iterable[str]) -> bool:
    """Return whether `key` is one of `ignored`, or below one of them."""
    return any(key == one or key.startswith(f"{one}.") for one in ignored)


def arguments_to_resume(folder: Path, arguments: list[str]) -> list[str]:
    """Return the arguments of the sweep in `folder`, with `arguments` in place of the former ones.

    Raises `SweepError` if `folder` is not a sweep.
    """
    file = folder / FILE
    if not file.is_file():
        raise SweepError(f"sweep.resume={folder} is not the folder of a sweep: it has no {FILE}.")
    overrides = OmegaConf.load(file).hydra.overrides
    former = {key_of(text): text for text in (*overrides.hydra, *overrides.task)}
    for key in ("hydra.mode", "hydra.sweep.dir", "sweep.resume", "sweep.fail_fast"):
        former.pop(key, None)
    options = [text for text in arguments if text.startswith("-")]
    given = {key_of(text): text for text in arguments if text not in options}
    if given.get("hydra/launcher", former.get("hydra/launcher")) != former.get("hydra/launcher"):
        # The options of one launcher mean nothing to another.
        former = {key: text for key, text in former.items() if not key.startswith("hydra.launcher.")}
    where = [f"sweep.resume={quote(folder)}", f"hydra.sweep.dir={quote(folder)}"]
    return [*options, *(former | given).values(), *where]


def refuse_changes(former: DictConfig | ListConfig, now: DictConfig, folder: Path) -> None:
    """Raise `SweepError` with each setting that differs between the sweep's definition and `now`."""
    ignored = (*_IGNORED, *OmegaConf.select(now, "sweep.ignore", default=[]))
    before, after = _flat(former, ignored), _flat(now, ignored)
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
        if not is_ignored(key_of(text), ignored) or _is_sweep(text):
            flat[key_of(key)] = value
    return {key: value.replace(" ", "") for key, value in flat.items()}


def _is_sweep(override: str) -> bool:
    return OverridesParser.create().parse_override(override).is_sweep_override()


def flatten(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with their dotted keys."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
