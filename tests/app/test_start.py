"""The import of slow libraries."""

import subprocess
import sys

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
