"""The command of an app, to run its jobs and to print: it works as printed, from where the user stands."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hydra_sweeps.files import read_or_none, write_json

FILE = "command.json"  # in the folder of a sweep


@dataclass(frozen=True)
class AppCommand:
    """How the app was started: `program`, [script] or ["-m", module] with options, typed in the folder `cwd`.

    `hydra` are the overrides of Hydra's own settings with which it runs one job. `sweep` is a name that no
    other sweep has, by which a study knows its jobs.
    """

    program: list[str]
    cwd: str
    hydra: list[str]
    sweep: str

    @classmethod
    def of_this_process(cls, hydra: list[str], sweep: str) -> "AppCommand":
        """Return the command with which this process was started."""
        parser = argparse.ArgumentParser(add_help=False)
        # The options with which Hydra finds the config of an app.
        for long, short in (("--config-path", "-cp"), ("--config-dir", "-cd"), ("--config-name", "-cn")):
            parser.add_argument(long, short, dest=long)
        typed = vars(parser.parse_known_args(sys.argv[1:])[0])
        options = [f"{name}={value}" for name, value in typed.items() if value is not None]
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        name = "__main__" if spec is None else spec.name  # of a script, and of a folder with a __main__.py
        program = [sys.argv[0]] if name == "__main__" else ["-m", name.removesuffix(".__main__")]
        return cls([*program, *options], os.getcwd(), hydra, sweep)

    @classmethod
    def read(cls, sweep: Path) -> "AppCommand | None":
        """Return the command with which the sweep in a folder was started; None if it is not known."""
        content = read_or_none(sweep / FILE)
        try:
            program, cwd, hydra = content["program"], content["cwd"], content["hydra"]
            return cls([*map(str, program)], str(cwd), [*map(str, hydra)], str(content["sweep"]))
        except (LookupError, TypeError):
            return None

    def write(self, sweep: Path) -> None:
        """Keep the command in the folder of its sweep."""
        write_json(sweep / FILE, asdict(self))

    def arguments(self) -> list[str]:
        """Return the command without overrides, for a process that is started in the same folder."""
        script, *rest = self.program
        return [sys.executable, script if script == "-m" else os.path.abspath(script), *rest]

    def text(self, overrides: Sequence[str]) -> str:
        """Return the command as it is typed into a shell in the current folder."""
        command = shlex.join(["python", *self.program, *overrides])
        if os.path.realpath(self.cwd) == os.path.realpath(os.getcwd()):
            return command
        return f"cd {shlex.quote(self.cwd)} && {command}"
