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

from hydra_sweeps.sweep import BaseSweep, Job

REPOSITORY = Path(__file__).parents[2]

App = Callable[..., "subprocess.Popen[str]"]
Plan = Callable[..., list[Job]]


@pytest.fixture(scope="session")
def app_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the app, and the configuration of sweepers and launchers as an app would."""
    folder = tmp_path_factory.mktemp("app")
    for group in ("launcher", "sweeper"):
        shutil.copytree(REPOSITORY / "conf" / "hydra" / group, folder / "conf" / "hydra" / group)
    shutil.copytree(Path(__file__).parent / "app", folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def start(app_folder: Path, tmp_path: Path) -> App:
    """Start the app with these arguments in a fresh folder."""

    def run(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HYDRA_")}
        return subprocess.Popen(
            [sys.executable, str(app_folder / "app.py"), *arguments],
            cwd=tmp_path,
            env=inherited | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


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
    jobs: list[Job] = []
    monkeypatch.setattr(BaseSweep, "_run", lambda sweep: jobs.extend(sweep.propose()))

    def begin(*overrides: str) -> list[Job]:
        with initialize_config_dir(str(app_folder / "conf"), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            hydra.multirun("app", lambda config: None, list(overrides), with_log_configuration=False)
        return jobs

    return begin
