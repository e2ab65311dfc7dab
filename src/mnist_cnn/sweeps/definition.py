"""What a sweep is defined by: a resumed one must be the same as it was."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from mnist_cnn.errors import UserError

FILE = "multirun.yaml"  # Hydra's name for the settings of a sweep

# Where and how far a sweep runs, not what it compares.
CHANGEABLE = (
    *("sweep.", "data.dir", "trainer.accelerator", "hydra.sweeper.n_trials", "hydra.sweeper.storage"),
    *("hparams.", "resume"),
)


def quoted(value: str) -> str:
    """Quote a value for Hydra, to which the commas and equal signs of a job's folder mean something."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def merged(folder: Path, arguments: list[str]) -> list[str]:
    """Return the arguments of the sweep in `folder`, with those given now in the place of the former.

    Raises `UserError` where `folder` is not that of a sweep.
    """
    file = folder / FILE
    if not file.is_file():
        raise UserError(f"sweep.resume={folder} is not the folder of a sweep: it has no {FILE}.")
    overrides = OmegaConf.load(file).hydra.overrides
    former = {_key(text): text for text in (*overrides.hydra, *overrides.task)}
    for key in ("hydra.mode", "hydra.sweep.dir", "sweep.resume", "sweep.fail_fast"):
        former.pop(key, None)
    options = [text for text in arguments if text.startswith("-")]
    given = {_key(text): text for text in arguments if text not in options}
    if given.get("hydra/launcher", former.get("hydra/launcher")) != former.get("hydra/launcher"):
        # The options of one launcher mean nothing to another.
        former = {key: text for key, text in former.items() if not key.startswith("hydra.launcher.")}
    return [*options, *(former | given).values(), f"hydra.sweep.dir={quoted(str(folder))}"]


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~")


def refuse_changes(former: DictConfig | ListConfig, now: DictConfig, folder: Path) -> None:
    """Raise `UserError` that names each setting in which the sweep differs from what it was."""
    before, after = _flat(former), _flat(now)
    changed = [
        f"  {key}: {before.get(key, 'not set')} before, {after.get(key, 'not set')} now"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]
    if changed:
        raise UserError(
            f"The sweep in {folder} was defined otherwise, and its jobs could not be compared:\n"
            + "\n".join(changed)
            + "\nLeave these as they were, or start a new sweep."
        )


def _flat(config: DictConfig | ListConfig) -> dict[str, str]:
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    hydra = plain.pop("hydra")
    overrides = {_key(text): text.split("=", 1)[-1] for text in hydra["overrides"]["task"]}
    compared = plain | {"hydra": {"sweeper": hydra["sweeper"], "sweep": {"subdir": hydra["sweep"]["subdir"]}}}
    flat = {key: str(value).replace(" ", "") for key, value in (_items(compared))}
    flat |= {key: value.replace(" ", "") for key, value in overrides.items()}
    # What could be changed is part of the definition where it is swept.
    return {key: value for key, value in flat.items() if "," in value or not key.startswith(CHANGEABLE)}


def _items(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _items(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
