"""Files that are written completely or not at all, their order, and their paths in messages."""

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]  # the folder of train.py and conf/


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a new path beside `path` to write to; it replaces `path` if the block succeeds.

    If the block raises, `path` is unchanged and no file is left beside it. Several processes may write to
    `path` at the same time; the last one wins. An `OSError` about the file names `path`.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield aside
        with aside.open("r+b") as file:
            os.fsync(file.fileno())  # else a power failure could leave an empty file under the final name
        os.replace(aside, path)
    except OSError as error:
        if error.filename in (None, aside, str(aside)):  # a full disk is reported without a name
            error.filename = str(path)
        raise
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write `values` as JSON, atomically."""
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(values, indent=2) + "\n")


def read_yaml(path: Path) -> Any:
    """Return what is in a YAML file as plain values, with interpolations as text."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
    return yaml.load(path.read_bytes(), loader)


def shown_path(path: Path) -> Path:
    """Return `path` relative to the current folder if it lies below it."""
    here = Path.cwd()  # hydra.job.chdir=true makes it the run's folder
    inside = path.is_relative_to(here) and path != here
    return path.relative_to(here) if inside else path


def data_folder() -> str:
    """Return the folder of the data sets that are downloaded: data/ of this repository, from any folder."""
    return "data" if Path.cwd() == ROOT else str(ROOT / "data")


def natural_order(name: str) -> tuple[list[int | str], str]:
    """Return a sort key by which 2 comes before 10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name
