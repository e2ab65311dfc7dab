"""Hydra's overrides: quoting, keys, the values of a sweep, and names of folders made of them."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
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
    """Return whether `override` gives several values; False if it cannot be read."""
    try:
        return parse([override])[0].is_sweep_override()
    except HydraException:
        return False


def last_of_each(overrides: Iterable[Override]) -> list[Override]:
    """Return the overrides that count: the last one of each key. Raises `SweepError` for shuffled values."""
    last: dict[object, Override] = {}
    for override in overrides:
        if getattr(override.value(), "shuffle", False):
            raise SweepError(
                f"{override.input_line}: resuming the sweep would give another order. Leave out shuffle()."
            )
        key = (override.key_or_group, override.package, override.is_delete())
        last.pop(key, None)
        last[key] = override
    return list(last.values())


def with_chosen(overrides: Iterable[Override], chosen: Sequence[str]) -> list[str]:
    """Return the overrides of a job: each `chosen` one in the place of the sweep it is from, others last."""
    rest = {one.split("=", 1)[0]: one for one in chosen}
    texts = [
        rest.pop(one.get_key_element()) if one.is_sweep_override() else str(one.input_line)
        for one in overrides
    ]
    return [*texts, *rest.values()]


def as_override(name: str, value: Value) -> str:
    """Return the override that sets `name` to `value`.

    A string that begins like a list or dict, or like such a string in quotes, is left as it is.
    """
    if value is None:
        return f"{name}=null"
    if isinstance(value, bool):
        return f"{name}={str(value).lower()}"
    if isinstance(value, float):
        return f"{name}={float(value)!r}"  # NumPy's floats have another repr()
    if isinstance(value, int):
        return f"{name}={value}"
    if _PLAIN.fullmatch(value) or value.lstrip("'\"").startswith(("[", "{")):
        return f"{name}={value}"
    return f"{name}={quote(value)}"


def folder_name(text: str) -> str:
    """Return overrides as a name that every file system and shell accepts, of at most 200 bytes."""
    name = re.sub(r"[^\w.+-]+", "-", re.sub(r"[,\s]+", "_", text)).strip("-")
    return name.encode()[:200].decode(errors="ignore")
