"""Where a build of this project finds hydra-sweeps: in the folder beside it, never in a package index."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LocalSweeps(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the folder hydra-sweeps to the dependencies.

    Not to those of an editable installation: `pip install -e ./hydra-sweeps -e .` names it itself, and pip
    refuses the same package twice, once editable and once not.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            folder = Path(self.root, "hydra-sweeps")
            build_data["dependencies"].append(f"hydra-sweeps @ {folder.as_uri()}")
