"""The app that sweeps are tested on, in a folder of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from hydra_sweeps.contract import Job
from hydra_sweeps.sweep import BaseSweep

App = Callable[..., "subprocess.Popen[str]"]
Plan = Callable[..., tuple[BaseSweep, list[Job]]]


@pytest.fixture(scope="session")
def app_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the apps into a folder beside those of the tests."""
    folder = tmp_path_factory.getbasetemp() / "app"
    if not folder.exists():
        shutil.copytree(Path(__file__).parent / "app", folder)
    return folder


@pytest.fixture
def script() -> str:
    """The app as it is typed in the folder of a test."""
    return "../app/app.py"


@pytest.fixture
def start(script: str, app_folder: Path, tmp_path: Path) -> App:
    """Start the app with these arguments in a fresh folder."""

    def begin(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HYDRA_")}
        return subprocess.Popen(
            [sys.executable, script, *arguments],
            cwd=tmp_path,
            env=inherited | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.fixture
def run(start: App) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run the app with these arguments in a fresh folder, and return its output and exit code."""

    def to_end(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        process = start(*arguments, **environment)
        output, errors = process.communicate(timeout=100)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    return to_end


@pytest.fixture
def plan(app_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Begin a sweep of the app in this process and in a fresh folder; return its jobs, which are not run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    begun: list[tuple[BaseSweep, list[Job]]] = []
    monkeypatch.setattr(BaseSweep, "_run", lambda sweep: begun.append((sweep, list(sweep.propose()))))

    def begin(*overrides: str) -> tuple[BaseSweep, list[Job]]:
        with initialize_config_dir(str(app_folder / "conf"), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            hydra.multirun("app", lambda config: None, list(overrides), with_log_configuration=False)
        return begun[-1]

    return begin
