"""The folders of runs and sweeps: a name of its own for each, and none left by a command that was refused."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hydra_sweeps import RESOLVED
from mnist_cnn.app.paths import latest_files
from mnist_cnn.errors import UserError
from mnist_cnn.training.ranks import is_first_rank, name_of_start, processes_started

_new: list[Path] = []  # that this command, or Hydra for it, has made


def new_folder(name: str) -> str:
    """Make the folder `name`, or `name-2` and so on if it exists, and return its path.

    The processes of torchrun and srun have agreed on a name, which no other run has.
    """
    if processes_started() is not None:
        return name
    number, folder = 1, Path(name)
    while True:
        with suppress(FileExistsError):  # another process may make it in the meantime
            folder.mkdir(parents=True)
            _new.append(folder)
            return str(folder)
        number += 1
        folder = Path(f"{name}-{number}")


def run_folder(resume: str | None, new: str) -> str:
    """Return the folder of the run in `resume`, the one that was started last for `latest`, or a new one.

    Raises `UserError` if `resume` is not the folder of a run.
    """
    if resume is None:
        return new_folder(new)
    folder = Path(resume)
    if resume == "latest" and not folder.exists():
        started = sorted(Path("logs", "runs").glob(f"*/{RESOLVED}"), key=lambda path: path.stat().st_mtime)
        folder = started[-1].parents[1] if started else folder
    if (folder / "multirun.yaml").is_file():  # Hydra's file in the folder of a sweep
        raise UserError(f"resume={folder} is the folder of a sweep. Resume it with sweep.resume={folder}.")
    if not (folder / RESOLVED).is_file():
        latest = ", ".join(str(path.parents[1]) for path in latest_files(str(RESOLVED)))
        hint = f"The latest: {latest}." if latest else "No run exists under logs/ yet: run python train.py."
        raise UserError(f"resume={folder} is not the folder of a run. {hint}")
    return str(folder)


def sweep_folder(resume: str | None, new: str) -> str:
    """Return the folder of the sweep that is resumed, or a new one."""
    return new_folder(new) if resume is None else resume


def hydra_subfolder(resume: str | None) -> str | None:
    """Return where Hydra writes its files; nowhere if the run has them, or if another rank writes them."""
    return ".hydra" if resume is None and is_first_rank() else None


# For the YAML files, by name.
RESOLVERS: dict[str, Callable[..., object]] = {
    "start_of_run": name_of_start,
    "new_folder": new_folder,
    "run_folder": run_folder,
    "sweep_folder": sweep_folder,
    "hydra_subfolder": hydra_subfolder,
}


def refused(folder: Path) -> None:
    """Note that the job in a folder, which the user may have named, was refused."""
    _new.append(folder)


def remove_unused() -> None:
    """Remove the folders that this command has made, if they hold nothing but logs and Hydra's own files."""
    for folder in _new:
        files = [path for path in folder.rglob("*") if not path.is_dir()]
        is_used = (folder / RESOLVED).exists()  # by a run
        if not is_used and all(_is_of_hydra(path) for path in files):
            shutil.rmtree(folder, ignore_errors=True)
    _new.clear()


def _is_of_hydra(path: Path) -> bool:
    return path.parent.name == ".hydra" or path.suffix == ".log" or path.name == ".lock"
