"""Files that appear complete or not at all, and files of a folder that may be untrusted."""

import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

MAX_BYTES = 10_000_000  # of a file that is read
MAX_YAML_BYTES = 100_000  # the parser reads about 30 kB a second; multirun.yaml has about 15 kB
MAX_YAML_DEPTH = 50  # levels; multirun.yaml has about 10, and the time to read is quadratic in them


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


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """Return the content of a file; raises `OSError`, and `Unreadable` where no run writes such a file."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
        raise Unreadable(f"it is not a regular file of at most {limit:,} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8 text") from None


def printable(value: object) -> str:
    """Return `value` as text without what would control the terminal, which an untrusted file may have."""
    return "".join(one if one.isprintable() or one == "\n" else "?" for one in str(value))


def read_yaml(path: Path) -> Any:
    """Return what is in a YAML file, with interpolations as they are; raises `Unreadable` and `OSError`.

    Aliases, of which a small file can make a large structure, and deep structures are refused.
    """
    text = read_text(path, MAX_YAML_BYTES)
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise Unreadable("it has YAML aliases")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_YAML_DEPTH:
                raise Unreadable(f"it has more than {MAX_YAML_DEPTH} levels")
        return OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        # OmegaConf raises OSError for a file that holds a single value
        raise Unreadable(f"it is not YAML of settings ({' '.join(str(error).split())[:200]})") from None
