"""The import of slow libraries, and the names of the folders of runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_runs_of_the_same_minute_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = [compose_train("optim=adam") for _ in range(3)]
    folders = [config.hydra.run.dir for config in configs]
    assert [config.hydra.run.dir for config in configs] == folders  # resolved once
    assert len(set(folders)) == 3 and all(Path(folder).is_dir() for folder in folders)
    assert all(re.fullmatch(r"logs/runs/simple-adam-ce_\d{4}-\d{4}(-\d)?", folder) for folder in folders)
