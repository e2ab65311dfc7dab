"""Hydra's overrides: quoting, keys, the values of a sweep, and names of folders made of them."""

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from hydra_sweeps.contract import SweepError

Value: TypeAlias = str | int | float | bool | None

# Strings that need no quotes.
_PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan)\Z)[a-z_/][\w./-]*", re.IGNORECASE | re.ASCII)


def quote(value: object) -> str:
    """Quote a value for Hydra's command line, where commas and equal signs have a meaning."""
    return str(QuotedString(str(value), Quote.single).with_quotes())


def unquote(value: str) -> str:
    """Return a value of Hydra's command line without the quotes around it, if there are any."""
    if value.startswith(("'", '"')):
        with suppress(HydraException):  # only a part of it is quoted
            override = parse([f"x={value}"])[0]
            return value if override.is_sweep_override() else str(override.value())
    return value


def parse(overrides: Sequence[str], loader: ConfigLoader | None = None) -> list[Override]:
    """Return overrides as Hydra reads them; `loader` knows the choices of `glob()`."""
    return OverridesParser.create(loader).parse_overrides(list(overrides))


def key_of(override: str) -> str:
    """Return the key of an override, without the + or ~ before it."""
    return override.split("=", 1)[0].lstrip("+~")


def is_swept(override: str) -> bool:
    """Return whether `override` gives several values."""
    return parse([override])[0].is_sweep_override()


def same_key(one: Override, other: Override) -> bool:
    """Return whether two overrides are of the same setting."""
    return (one.key_or_group, one.package) == (other.key_or_group, other.package)


def fixed_and_swept(overrides: Iterable[Override]) -> tuple[list[str], list[Override]]:
    """Divide overrides into those with one value, as they were given, and those that are swept.

    The last override of a key counts. Raises `SweepError` for shuffled values.
    """
    fixed: list[Override] = []
    swept: list[Override] = []
    for override in overrides:
        if getattr(override.value(), "shuffle", False):
            raise SweepError(
                f"{override.input_line}: resuming the sweep would give another order. Leave out shuffle()."
            )
        swept = [one for one in swept if not same_key(one, override)]
        if override.is_sweep_override():
            fixed = [one for one in fixed if one.is_delete() or not same_key(one, override)]
            swept.append(override)
        else:
            fixed.append(override)
    return [str(one.input_line) for one in fixed], swept


def as_override(name: str, value: Value) -> str:
    """Return the override that sets `name` to `value`.

    A string in the form of a list or dict is not quoted.
    """
    if value is None:
        return f"{name}=null"
    if isinstance(value, bool):
        return f"{name}={str(value).lower()}"
    if isinstance(value, float):
        return f"{name}={float(value)!r}"  # NumPy's floats have another repr()
    if isinstance(value, int):
        return f"{name}={value}"
    if _PLAIN.fullmatch(value) or _is_container(value):
        return f"{name}={value}"
    return f"{name}={quote(value)}"


def path_override(name: str, path: Path) -> str:
    """Return the override that sets `name` to a path, relative to the current folder."""
    return as_override(name, os.path.relpath(path))


def folder_name(text: str) -> str:
    """Return overrides as a name that every file system and shell accepts, of at most 200 bytes."""
    name = re.sub(r"[^\w.+-]+", "-", re.sub(r"[,\s]+", "_", text)).strip("-")
    return name.encode()[:200].decode(errors="ignore")


def _is_container(value: str) -> bool:
    if not value.startswith(("[", "{")):
        return False
    try:
        return isinstance(OverridesParser.create().parse_rule(value, "element"), list | dict)
    except HydraException:
        return False
