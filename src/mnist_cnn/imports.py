"""A faster import of torch and Lightning. It imports only the standard library."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_NAME = "scipy.signal"


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import libraries in the block in less time: 2.1 seconds in place of 2.8 for torch and Lightning.

    The garbage collector is off in the block. Where torch was imported in it, the collector leaves out later
    the objects that exist at its end: a million of them, which would take another second in a short run.
    """
    is_first = "torch" not in sys.modules
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with _without_scipy_signal():
            yield
    finally:
        if is_first and "torch" in sys.modules:  # else what the process has run before may have left garbage
            gc.freeze()
        if was_enabled:
            gc.enable()


@contextmanager
def _without_scipy_signal() -> Iterator[None]:
    """Keep torchmetrics, which Lightning imports, from importing scipy.signal: a third of its time.

    torchmetrics does so to give back a function, `hamming`, for a package of audio metrics. After the block
    scipy.signal can be imported as ever.
    """
    if _NAME in sys.modules:
        yield
        return
    stub = ModuleType(_NAME)
    stub.hamming = None  # type: ignore[attr-defined]
    sys.modules[_NAME] = stub
    try:
        yield
    finally:
        if sys.modules.get(_NAME) is stub:
            del sys.modules[_NAME]
