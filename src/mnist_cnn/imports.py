"""A faster import of Lightning. It imports only the standard library."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_NAME = "scipy.signal"


@contextmanager
def without_scipy_signal() -> Iterator[None]:
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
