"""Files that appear complete or not at all, and files of a folder that may be untrusted."""

import json
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

MAX_BYTES = 10_000_000  # of a JSON file that is read
MAX_YAML_BYTES = 1_000_000  # multirun.yaml has about 15 kB
MAX_YAML_DEPTH = 50  # levels; multirun.yaml has about 10

log = logging.getLogger(__name__)


class Unreadable(Exception):
    """A file that is not read; the message, which follows its path and a colon, says why."""


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


def write_yaml(path: Path, values: Any) -> None:
    """Write plain values or a config as YAML, with interpolations as they are, atomically."""
    with atomic_write(path) as temporary:
        OmegaConf.save(OmegaConf.create(values), temporary)


def read(path: Path) -> Any:
    """Return what is in a JSON file, or in a YAML file with interpolations as text.

    Raises `OSError`, and `Unreadable` where no run writes such a file: of YAML also aliases, of which a small
    file can make a large structure, and deep structures are refused.
    """
    is_yaml = path.suffix == ".yaml"
    limit = MAX_YAML_BYTES if is_yaml else MAX_BYTES
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
        raise Unreadable(f"it is not a regular file of at most {limit:,} bytes")
    try:
        text = path.read_text(encoding="utf-8")
        return _built(yaml.parse(text, _Loader)) if is_yaml else json.loads(text)
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        kind = "YAML of settings" if is_yaml else "JSON"
        raise Unreadable(f"it is not {kind} ({' '.join(str(error).split())[:200]})") from None


def read_or_none(path: Path) -> Any:
    """Return what is in a file; None where there is none, and with a warning where it is not read."""
    try:
        return read(path)
    except OSError:
        return None
    except Unreadable as reason:
        log.warning(f"{path} is left out: {reason}.")
        return None


def printable(value: object) -> str:
    """Return `value` as text without what would control the terminal, which an untrusted file may have."""
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else "?" for one in text)


# --- YAML ------------------------------------------------------------------------------------------

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # without libyaml it is slow


def _built(events: Iterator[yaml.Event]) -> Any:
    """Return the plain value of a YAML document, from its events: twice as fast as by way of its nodes."""
    stack: list[list[Any]] = [[]]  # the items of open collections; of a mapping keys and values in turn
    for event in events:
        if isinstance(event, yaml.ScalarEvent):
            stack[-1].append(_scalar(event.tag, event.value, event.implicit))
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(stack) > MAX_YAML_DEPTH:
                raise Unreadable(f"it has more than {MAX_YAML_DEPTH} levels")
            stack.append([])
        elif isinstance(event, yaml.CollectionEndEvent):
            items = stack.pop()
            is_mapping = isinstance(event, yaml.MappingEndEvent)
            stack[-1].append(dict(zip(items[::2], items[1::2], strict=True)) if is_mapping else items)
        elif isinstance(event, yaml.AliasEvent):
            raise Unreadable("it has YAML aliases")
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
