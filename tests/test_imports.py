"""What the import of Lightning brings."""

import subprocess
import sys

PROGRAM = """
import gc
import sys
from mnist_cnn.imports import fast_imports
with fast_imports():
    import lightning
    assert not gc.isenabled()
assert "torchmetrics" in sys.modules
assert not any(name.startswith("scipy.signal") for name in sys.modules)
import scipy.signal
assert len(scipy.signal.find_peaks([0, 1, 0])[0]) == 1
assert gc.isenabled() and gc.get_freeze_count() > 100_000
frozen = gc.get_freeze_count()
with fast_imports():
    from scipy.signal import find_peaks
assert gc.isenabled() and gc.get_freeze_count() <= frozen
"""


def test_lightning_is_imported_without_scipy_signal_and_garbage_collection() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
