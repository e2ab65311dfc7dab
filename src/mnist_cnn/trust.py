"""The settings in the folder of a run, which are not trusted, read as data."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_cnn.errors import UserError, printable

MAX_BYTES = 100_000  # of the settings of a run, which have about 3 kB; YAML is read at some 30 kB a second
MAX_DEPTH = 50  # of their levels, which are about 6; the time that YAML takes is quadratic in it

# The classes that the config groups of this project name, and those that can be chosen in their place. The
# name after the module is a class: with names of modules in between, `mnist_cnn.data.idx.subprocess.run`
# would be one of this package.
_CLASS = r"_?[A-Z]\w*"
_PACKAGES = (
    *(r"mnist_cnn(\.[a-z]\w*)*", r"torch\.nn", r"torch\.optim", r"torchmetrics(\.classification)?"),
    *(r"torchvision\.transforms(\.v2)?", r"lightning\.pytorch\.(callbacks|loggers)"),
)
_TARGET = re.compile(rf"({'|'.join(_PACKAGES)})\.{_CLASS}|torchvision\.models\.[a-z]\w*")
_SCHEDULER = re.compile(rf"torch\.optim\.lr_scheduler\.{_CLASS}")


def read_settings(file: Path, trusted: Sequence[str], hydra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in `file`, which name only classes of this project and modules in `trusted`.

    `hydra` is the section that the file must have under that key, if it has one: Hydra builds what its
    settings name, too. Raises `UserError` that says what is refused; nothing is imported or resolved.
    """
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"{file} is larger than {MAX_BYTES:,} bytes: it is not the settings of a run.")
    try:
        text = content.decode()
        if text.lstrip("\ufeff \t\r\n").startswith("#"):
            raise UserError(
                f"{file} starts with a comment, which Hydra may take for an instruction: remove it."
            )
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{file} has a YAML alias (*), which settings of a run do not have.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise UserError(f"{file} has more than {MAX_DEPTH} levels: it is not the settings of a run.")
        settings = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"{file} cannot be read as settings: {_first_line(error)}") from None
    if not isinstance(settings, dict) or "defaults" in settings:
        raise UserError(f"{file} is not the settings of a run.")
    found = settings.pop("hydra", None)
    if found is not None and _without_levels(found) != _without_levels(hydra):
        raise UserError(
            f"{file} has other settings of Hydra than this repository. If you do not need them, remove the "
            "section `hydra` from the file."
        )
    for node in _nodes(settings):
        _check(node, file, trusted)
    return {str(key): value for key, value in settings.items()}


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return printable(text)


def _without_levels(hydra: Any) -> Any:
    """Return a section `hydra` without the levels of single loggers, which other versions have others of."""
    if not isinstance(hydra, Mapping):
        return hydra
    return {
        key: {k: v for k, v in value.items() if k != "loggers"} if isinstance(value, Mapping) else value
        for key, value in hydra.items()
    }


def _nodes(node: Any) -> Iterator[Any]:
    """Yield all mappings, and all keys and values that are none, in `node`."""
    if isinstance(node, Mapping):
        yield node
        for key, value in node.items():
            yield key
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)
    else:
        yield node


def _check(node: Any, file: Path, trusted: Sequence[str]) -> None:
    if isinstance(node, str) and "${" in node:
        raise UserError(f"{file} has the interpolation {node[:100]!r}, which settings of a run do not have.")
    if not isinstance(node, Mapping) or "_target_" not in node:
        return
    names = [(str(node["_target_"]), _TARGET)]
    if names[0][0].endswith(".Schedule") and "scheduler" in node:
        names.append((str(node["scheduler"]), _SCHEDULER))
    for name, known in names:
        if not known.fullmatch(name) and not any(name.startswith(f"{module}.") for module in trusted):
            raise UserError(
                f"{file} names {name[:200]!r}, which is not a class that this repository uses. If you know "
                "and trust the package that it belongs to, add trust=[PACKAGE]."
            )
