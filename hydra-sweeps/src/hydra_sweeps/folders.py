"""The folders of the jobs of a sweep, kept in a file: a resumed sweep knows them without composing a job."""

import json
from pathlib import Path

from hydra_sweeps.contract import SweepError
from hydra_sweeps.files import Unreadable, read_text

FILE = "jobs.jsonl"  # a line for each job that has started


class JobFolders:
    """The folder of each job of the sweep in `sweep` that has started."""

    def __init__(self, sweep: Path) -> None:
        self._sweep = sweep
        self._names: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        for number, name in _read(sweep / FILE).items():
            self._names[number], self._numbers[name] = name, number

    def __getitem__(self, number: int) -> Path:
        return self._sweep / self._names[number]

    def __contains__(self, number: int) -> bool:
        return number in self._names

    def add(self, number: int, name: str) -> None:
        """Note the folder of a job; raises `SweepError` if it is another job's, or not in the sweep's."""
        if name in self._numbers:
            raise SweepError(
                f"Jobs {self._numbers[name]} and {number} would have the same folder, {name}: set "
                "hydra.sweep.subdir with ${hydra:job.num} in it."
            )
        if not _is_inside(name):
            raise SweepError(f"hydra.sweep.subdir={name}: the folder of a job must be in that of its sweep.")
        self._names[number], self._numbers[name] = name, number
        with (self._sweep / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"job": number, "folder": name}) + "\n")


def _read(file: Path) -> dict[int, str]:
    """Return the names by number; the line that a killed process has left unfinished is skipped."""
    try:
        lines = read_text(file).splitlines()
    except FileNotFoundError:
        return {}
    except (Unreadable, OSError) as reason:
        raise SweepError(f"{file} cannot be read: {reason}.") from None
    names = {}
    for line in lines:
        try:
            content = json.loads(line)
            number, name = content["job"], content["folder"]
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
        if isinstance(number, int) and isinstance(name, str) and _is_inside(name):
            names[number] = name
    return names


def _is_inside(name: str) -> bool:
    path = Path(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
