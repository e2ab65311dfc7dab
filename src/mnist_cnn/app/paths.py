"""The files of this repository and of its runs that a command is given."""

from pathlib import Path

from mnist_cnn.errors import UserError
from mnist_cnn.files import ROOT
from mnist_cnn.runs import best_checkpoint, newest_checkpoint

CONF = ROOT / "conf"


def find_checkpoint(path: str | None, setting: str = "ckpt") -> Path:
    """Return the path of a checkpoint; `latest` is that of the newest finished run, `best` of the best one.

    Raises `UserError` that lists existing ones if it is not a file.
    """
    if path in ("latest", "best") and not Path(path).exists():
        return newest_checkpoint() if path == "latest" else best_checkpoint()
    if path is not None and Path(path).is_file():
        return Path(path)
    problem = f"{setting}=PATH is missing" if path is None else f"{setting}={path} is not a file"
    latest = ", ".join(map(str, latest_files("checkpoints/best.ckpt", "checkpoints/last.ckpt")))
    hint = f"The latest: {latest}." if latest else "There is no checkpoint under logs/ yet: run train.py."
    raise UserError(f"{problem}. {hint}")


def latest_files(*names: str) -> list[Path]:
    """Return the three latest files under logs/ with these names, `FILE` or `FOLDER/FILE`, oldest first."""
    found = {path for name in names for path in Path("logs").glob(f"*/**/{name}")}
    return sorted(found, key=lambda path: path.stat().st_mtime)[-3:]
