"""The classes that a file may name: checkpoints and the folders of runs may come from anybody."""

import re
from collections.abc import Sequence

from mnist_cnn.errors import UserError

# The classes that the config groups name, and those that can be chosen in their place. The last part is a
# class: if any name could follow, `mnist_cnn.data.idx.subprocess.run` would be allowed.
_CLASS = r"_?[A-Z]\w*"
_PACKAGES = (
    r"mnist_cnn(\.[a-z]\w*)*",
    r"torch\.nn",
    r"torch\.optim",
    r"torch\.optim\.lr_scheduler",
    r"torchmetrics(\.classification)?",
    r"torchvision\.transforms(\.v2)?",
    r"lightning\.pytorch\.(callbacks|loggers)",
)
_FUNCTIONS = r"torchvision\.models\.[a-z]\w*|torch\.tensor"  # the first build networks
_ALLOWED = re.compile(rf"({'|'.join(_PACKAGES)})\.{_CLASS}|{_FUNCTIONS}")


def is_trusted(name: str, trusted: Sequence[str]) -> bool:
    """Return whether `name` is in one of the packages in `trusted`."""
    return any(name.startswith(f"{package}.") for package in trusted)


def check_target(name: object, source: object, trusted: Sequence[str] = ()) -> None:
    """Raise `UserError` that names `source`, the file, unless `name` is a class that a file may name.

    That is a class of this project's libraries, or one in a package in `trusted`. Nothing is imported.
    """
    text = str(name)
    if not (_ALLOWED.fullmatch(text) or is_trusted(text, trusted)):
        raise UserError(
            f"{source} names {text[:200]!r}, which is not a class that this repository uses. If you know and "
            "trust the package that it belongs to, add trust=[PACKAGE]."
        )
