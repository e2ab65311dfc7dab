"""The command of an app, to run its jobs and to print: it works as printed, from where the user stands."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hydra_sweeps.files import write_json
from hydra_sweeps.goal import is_dict
from hydra_sweeps.outcome import json_or_none

FILE = "command.json"  # in the folder of a sweep

# The options with which Hydra finds the config of an app.
_OPTIONS = {"--config-path": "-cp", "--config-dir": "-cd", "--config-name": "-cn"}


@dataclass(frozen=True)
class AppCommand:
    """How the app was started: `program` is [script] or ["-m", module], typed in the folder `cwd`.

    `single` are the overrides with which it runs one job.
    """

    program: list[str]
    options: list[str]
    cwd: str
    single: list[str]

    @classmethod
    def of_this_process(cls, single: Sequence[str] = ()) -> "AppCommand":
        """Return the command with which this process was started."""
        parser = argparse.ArgumentParser(add_help=False)
        for long, short in _OPTIONS.items():
            parser.add_argument(long, short, dest=long)
        typed = vars(parser.parse_known_args(sys.argv[1:])[0])
        options = [f"{name}={value}" for name, value in typed.items() if value is not None]
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        module = spec.name.removesuffix(".__main__") if spec is not None else None
        program = ["-m", module] if module is not None else [sys.argv[0]]
        return cls(program, options, os.getcwd(), list(single))

    @classmethod
    def read(cls, sweep: Path) -> "AppCommand | None":
        """Return the command with which the sweep in a folder was started; None if it is not known."""
        content = json_or_none(sweep / FILE)
        if not is_dict(content) or set(content) != {"program", "options", "cwd", "single"}:
            return None
        lists = [content["program"], content["options"], content["single"]]
        texts = [content["cwd"], *(text for one in lists if isinstance(one, list) for text in one)]
        if not all(isinstance(one, list) for one in lists) or not all(isinstance(one, str) for one in texts):
            return None
        return cls(**content)

    def write(self, sweep: Path) -> None:
        """Keep the command in the folder of its sweep."""
        write_json(sweep / FILE, asdict(self))

    def arguments(self) -> list[str]:
        """Return the command without overrides, to be run in `cwd` by any process."""
        *before, last = self.program
        script = last if before else os.path.abspath(last)
        return [sys.executable, *before, script, *self.options]

    def text(self, overrides: Sequence[str]) -> str:
        """Return the command as it is typed into a shell in the current folder."""
        command = shlex.join(["python", *self.program, *self.options, *overrides])
        if os.path.realpath(self.cwd) == os.path.realpath(os.getcwd()):
            return command
        return f"cd {shlex.quote(self.cwd)} && {command}"
