"""Overrides of the command line that Hydra would not take as they are typed."""

import os
import re
from collections.abc import Sequence

from hydra_sweeps import quote, unquote
from mnist_cnn.app.paths import CONF
from mnist_cnn.errors import UserError

# Settings that are paths, relative to the folder in which the command was typed.
PATHS = ("data.dir", "ckpt", "init_from", "images", "out", "resume", "sweep.resume")

# Paths that Hydra reads without quotes, and as text.
_PLAIN_PATH = re.compile(
    r"(?!(?:null|true|false|inf|nan)\Z)(?:\.{0,2}/|[a-z_])[\w./-]*", re.IGNORECASE | re.ASCII
)

# Values of which Hydra does not say that they are no choice.
_NO_NAME = re.compile(r"null|true|false|[\d.]+", re.IGNORECASE)


def prepare(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command line with paths, as a shell completes them, quoted for Hydra.

    The flag of a sweep may stand anywhere.

    Raises `UserError` for choices that Hydra does not explain.
    """
    # Python's argparse does not take a flag between overrides.
    flags = [argument for argument in arguments if argument in ("-m", "--multirun")]
    others = [argument for argument in arguments if argument not in flags]
    if flags and any(one.startswith("resume=") and one not in ("resume=", "resume=null") for one in others):
        raise UserError("resume=RUN resumes one run; leave out -m.")
    return [*flags, *(_prepare(argument, bool(flags)) for argument in others)]


def _prepare(argument: str, is_multirun: bool) -> str:
    key, equals, value = argument.partition("=")
    if key.startswith("-") or not (equals or key.startswith("~")):
        return argument
    if key in ("hydra.launcher", "hydra.sweeper") and not value.startswith("{"):
        raise UserError(f"{argument}: choose with a slash: {key.replace('.', '/')}={value}.")
    group = key.lstrip("+~").partition("@")[0]
    if group and (CONF / group).is_dir() and _NO_NAME.fullmatch(value):
        choices = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        raise UserError(f"{argument}: choose one of {', '.join(choices)}, or leave it out.")
    if key in PATHS and value not in ("", "null"):
        return f"{key}={_quoted_paths(value, is_multirun)}"
    return argument


def _quoted_paths(value: str, is_sweep: bool) -> str:
    """Return a path, a list `[a,b]`, or values of a sweep `a,b`, with quotes if Hydra needs them."""
    if os.path.exists(value) or unquote(value) != value:
        return _quoted_path(value)
    if value.startswith("[") and value.endswith("]"):
        return f"[{','.join(map(_quoted_path, _items(value[1:-1])))}]"
    if is_sweep and not re.match(r"(choice|glob)\(", value):
        return ",".join(one if one == "null" else _quoted_path(one) for one in value.split(","))
    return value if is_sweep else _quoted_path(value)


def _items(text: str) -> list[str]:
    """Return the paths of a list, which are separated by commas; a path in quotes may contain some."""
    return [one.strip() for one in re.findall(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,]+""", text)]


def _quoted_path(value: str) -> str:
    path = unquote(value.strip())
    return path if _PLAIN_PATH.fullmatch(path) else quote(path)
