"""The settings of a run that is resumed: read from its folder, which is not trusted, as plain data."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mnist_cnn.errors import UserError, one_line
from mnist_cnn.files import read_yaml
from mnist_cnn.training.trust import check_target

# Settings that a resumed run may change: where and how long it runs, not what it learns.
CHANGEABLE = (
    "data.dir",
    "trainer.max_epochs",
    "trainer.accelerator",
    "trainer.limit_val_batches",
    "trainer.limit_test_batches",
    "trainer.max_time",
    "trainer.rank_timeout",
    "checkpoint",
    "compile",
    "trust",
)
_OF_THE_COMMAND = ("resume", "trust", "sweep")


def read_settings(file: Path, trusted: Sequence[str] | None) -> dict[str, Any]:
    """Return the settings in `file`, which name only classes of this project and packages in `trusted`.

    If `trusted` is None, any class may be named. Raises `UserError` that says what is refused; nothing is
    imported or resolved.
    """
    try:
        settings = read_yaml(file)
        _check(settings, file, trusted)  # RecursionError: with aliases a value may contain itself
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as settings: {one_line(error)}") from None
    if not isinstance(settings, dict) or "objective" not in settings:
        raise UserError(f"{file} is not the settings of a run.")
    return {str(key): value for key, value in settings.items()}


def _check(node: Any, file: Path, trusted: Sequence[str] | None) -> None:
    if isinstance(node, str) and "${" in node:
        raise UserError(f"{file} has the interpolation {node[:100]!r}, which settings of a run do not have.")
    if isinstance(node, list):
        for value in node:
            _check(value, file, trusted)
    if isinstance(node, Mapping):
        if trusted is not None and "_target_" in node:
            check_target(node["_target_"], file, trusted)
            if "scheduler" in node:
                check_target(node["scheduler"], file, trusted)
        for key, value in node.items():
            _check(key, file, trusted)
            _check(value, file, trusted)


def changes_of(
    saved: Mapping[str, Any], composed: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """Return the settings, by their dotted keys, that the command line changes in those of a run.

    `overrides` are those that were typed, and `composed` the settings that follow from them. Raises
    `UserError` for a change of what the run learns.
    """
    changes: dict[str, Any] = {}
    fixed: list[str] = []
    for override in overrides:
        key = re.split("[=@]", override.lstrip("+~"))[0].replace("/", ".")
        before, after = _select(saved, key), _select(composed, key)
        if key.partition(".")[0] in _OF_THE_COMMAND or before == after:
            continue
        if key in CHANGEABLE or key.partition(".")[0] in CHANGEABLE:
            changes[key] = after
        else:
            fixed.append(f"{key} cannot be changed{_from(saved, key)} to {_shown(override)}")
    if fixed:
        raise UserError(
            f"A resumed run keeps its settings: {'; '.join(fixed)}. What can be changed: "
            f"{', '.join(CHANGEABLE)}. Start a new run for other settings."
        )
    if "trainer.max_epochs" in changes:
        scheduler = saved.get("scheduler") or {}
        if "auto" in scheduler.values():
            raise UserError(
                f"The learning rate schedule of this run ({scheduler['scheduler']}) spans the whole run: "
                "trainer.max_epochs cannot be changed."
            )
        changes["hparams.max_epochs"] = changes["trainer.max_epochs"]
    return changes


def _select(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _from(saved: Mapping[str, Any], key: str) -> str:
    """Return a phrase with the value of a setting, or choice of a group, in the settings of a run."""
    value = _select(saved, key)
    if isinstance(value, Mapping):
        value = _select(saved, f"hparams.{key}")
    return "" if value is None else f" from {one_line(value)[:100]}"


def _shown(override: str) -> str:
    return "nothing" if override.startswith("~") else override.partition("=")[2] or "nothing"
