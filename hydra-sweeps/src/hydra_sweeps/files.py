"""Files that appear complete or not at all, and files of a folder that may be untrusted."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

# Of YAML only plain values, with interpolations as text; without libyaml it is slow.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

log = logging.getLogger(__name__)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, which replaces `path` if the block succeeds.

    An `OSError` about the file names `path`.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())  # else a power failure could leave an empty file under the final name
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, temporary, str(temporary)):  # a full disk is reported without a name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as JSON, atomically; numbers of NumPy and tensors of one element as floats."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, default=float) + "\n")


def write_yaml(path: Path, config: Any, resolve: bool = False) -> None:
    """Write a config as YAML, atomically, with or without interpolations; paths and the like as text."""
    values = OmegaConf.to_container(config, resolve=resolve, enum_to_str=True)
    with atomic_write(path) as temporary:
        OmegaConf.save(OmegaConf.create(_as_text(values)), temporary)


def _as_text(value: Any) -> Any:
    """Return plain values, with other ones as text."""
    if isinstance(value, dict):
        return {key: _as_text(one) for key, one in value.items()}
    if isinstance(value, list):
        return list(map(_as_text, value))
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def read(path: Path) -> Any:
    """Return what is in a JSON file, or in a YAML file with interpolations as text.

    Raises `OSError`, and `ValueError` with the path for content that is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return _built(yaml.parse(text, _Loader)) if path.suffix == ".yaml" else json.loads(text)
    except OSError:
        raise
    except Exception as error:  # what PyYAML raises depends on the content
        raise ValueError(f"{path} cannot be read ({' '.join(str(error).split())[:200]})") from None


def read_or_none(path: Path) -> Any:
    """Return what is in a file; None where there is none, and with a warning where it cannot be read."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as reason:
        log.warning(f"Left out: {reason}.")
        return None


def _built(events: Iterator[yaml.Event]) -> Any:
    """Return the plain value of a YAML document from its events, which is faster than by way of its nodes.

    Raises `ValueError` for what no run writes: aliases, with which a value may contain itself, and tags.
    """
    stack: list[list[Any]] = [[]]  # the items of open collections; of a mapping keys and values in turn
    for event in events:
        if isinstance(event, yaml.ScalarEvent):
            stack[-1].append(_scalar(event.tag, event.value, event.implicit))
        elif isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            raise ValueError("it has YAML aliases or tags")
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append([])
        elif isinstance(event, yaml.CollectionEndEvent):
            items = stack.pop()
            is_mapping = isinstance(event, yaml.MappingEndEvent)
            stack[-1].append(dict(zip(items[::2], items[1::2], strict=True)) if is_mapping else items)
    return stack[0][0] if stack[0] else None


@lru_cache(maxsize=100_000)
def _scalar(tag: str | None, value: str, implicit: tuple[bool, bool]) -> Any:
    """Return the value of a scalar; the files of many runs have the same ones."""
    loader = _Loader("")
    try:
        kind = tag or loader.resolve(yaml.ScalarNode, value, implicit)
        return loader.construct_object(yaml.ScalarNode(kind, value))
    finally:
        loader.dispose()


def printable(value: object) -> str:
    """Return `value` as text without what would control the terminal, which an untrusted file may have."""
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else "?" for one in text)
