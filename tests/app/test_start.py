"""The start of a command: its streams, its settings, its folder, the import of slow libraries."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_cnn.app import start
from mnist_cnn.app.settings import TrainSettings
from tests.conftest import Command
from tests.runs import compose_train

PROGRAM = """
import gc
from mnist_cnn.app.start import import_libraries

import_libraries(["lightning"])
assert gc.isenabled() and gc.get_freeze_count() > 100_000
frozen = gc.get_freeze_count()
import_libraries(["scipy.signal"])  # what has been left since then must not be frozen
assert gc.isenabled() and gc.get_freeze_count() <= frozen
"""


def test_libraries_are_imported_without_garbage_collection() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a command sets be undone."""
    monkeypatch.setattr(sys, "argv", ["train.py"])
    for name in ("HYDRA_FULL_ERROR", "MNIST_CNN_FULL_ERROR", "MPLBACKEND"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(logging, "raiseExceptions", True)


@pytest.mark.usefixtures("environment")
def test_installation_without_the_settings_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "CONF", Path("/lib/python3/conf"))
    main = start.command("train", TrainSettings)(lambda job: None)
    with pytest.raises(SystemExit, match=r"^train\.py: there is no /lib/python3/conf: .* pip install -e \.$"):
        main()


def test_characters_that_the_console_does_not_know_are_escaped(new_process: Command) -> None:
    done = new_process("train.py", "--cfg", "job", "data.dir=цифры", PYTHONIOENCODING="cp1252")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"dir: \u0446\u0438\u0444\u0440\u044b" in done.stdout


def test_runs_of_the_same_minute_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = [compose_train("optim=adam") for _ in range(3)]
    folders = [config.hydra.run.dir for config in configs]
    assert [config.hydra.run.dir for config in configs] == folders  # resolved once
    assert len(set(folders)) == 3 and all(Path(folder).is_dir() for folder in folders)
    assert all(re.fullmatch(r"logs/runs/simple-adam-ce_\d{4}-\d{4}(-\d)?", folder) for folder in folders)
