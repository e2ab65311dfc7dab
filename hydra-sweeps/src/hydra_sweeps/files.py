"""Files that appear complete or not at all, and files of a folder that may be untrusted."""

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import yaml
from omegaconf import OmegaConf

MAX_BYTES = 10_000_000  # of a file that is read
MAX_YAML_BYTES = 1_000_000  # multirun.yaml has about 15 kB
MAX_YAML_DEPTH = 50  # levels; multirun.yaml has about 10


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
    """Write `values` as JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def write_yaml(path: Path, values: Any) -> None:
    """Write plain values or a config as YAML, with interpolations as they are, atomically."""
    with atomic_write(path) as temporary:
        OmegaConf.save(OmegaConf.create(values), temporary)


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """Return the content of a file; raises `OSError`, and `Unreadable` where no run writes such a file."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
        raise Unreadable(f"it is not a regular file of at most {limit:,} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8 text") from None


def read_json(path: Path) -> Any:
    """Return what is in a JSON file; raises `Unreadable` and `OSError`."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is not JSON ({error})") from None


def read_yaml(path: Path) -> Any:
    """Return what is in a YAML file, with interpolations as text; raises `Unreadable` and `OSError`.

    Aliases, of which a small file can make a large structure, and deep structures are refused.
    """
    text = read_text(path, MAX_YAML_BYTES)
    try:
        return _built(yaml.parse(text, _Loader))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise Unreadable(f"it is not YAML of settings ({' '.join(str(error).split())[:200]})") from None


def _built(events: Iterator[yaml.Event]) -> Any:
    """Return the plain value of a YAML document, from its events: faster than by way of its nodes."""
    stack: list[list[Any]] = [[]]  # the items of open collections; of a mapping keys and values in turn
    tags: list[str | None] = []
    for event in events:
        if isinstance(event, yaml.ScalarEvent):
            stack[-1].append(_scalar(event.tag, event.value, event.implicit))
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(stack) > MAX_YAML_DEPTH:
                raise Unreadable(f"it has more than {MAX_YAML_DEPTH} levels")
            stack.append([])
            tags.append(event.tag)
        elif isinstance(event, yaml.CollectionEndEvent):
            items, tag = stack.pop(), tags.pop()
            if isinstance(event, yaml.MappingEndEvent):
                stack[-1].append(dict(zip(items[::2], items[1::2], strict=True)))
            else:  # a pathlib path of a config becomes text
                stack[-1].append(str(PurePath(*items)) if tag and "pathlib" in tag else items)
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


def printable(value: object) -> str:
    """Return `value` as text without what would control the terminal, which an untrusted file may have."""
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else "?" for one in text)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # without libyaml slow
    """Reads YAML as OmegaConf does: 1e-3 is a number, and a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":timestamp", ":float"))]
    for first, known in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:\d[\d_]*)\.[\d_]*(?:[eE][-+]?\d+)?$|[-+]?(?:\d[\d_]*)(?:[eE][-+]?\d+)$"
        r"|[-+]?\.[\d_]+(?:[eE][-+]?\d+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
