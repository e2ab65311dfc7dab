"""What the import of Lightning brings."""

import subprocess
import sys

PROGRAM = """
import sys
from mnist_cnn.imports import without_scipy_signal
with without_scipy_signal():
    import lightning
assert "torchmetrics" in sys.modules
assert not any(name.startswith("scipy.signal") for name in sys.modules)
import scipy.signal
assert len(scipy.signal.find_peaks([0, 1, 0])[0]) == 1
with without_scipy_signal():
    from scipy.signal import find_peaks
"""


def test_lightning_is_imported_without_scipy_signal_which_can_be_imported_later() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
