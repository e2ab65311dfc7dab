"""One target run on many inputs, with limits of time and memory for each."""

import faulthandler
import resource
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.targets import TARGETS

SECONDS = 20.0  # for an input; the process ends with a traceback after them
MAX_GROWTH = 1_000_000_000  # bytes of memory that inputs may take
MAX_MESSAGE = 20_000  # characters


@dataclass
class Result:
    """The results of a target."""

    inputs: int = 0
    refused: int = 0
    seconds: float = 0
    slowest: float = 0
    peak: int = 0  # bytes of memory of the process


def run(name: str, inputs: int, *, derandomize: bool) -> Result:
    """Read that many inputs; raises what a reader must not raise.

    The process ends where a reader hangs or crashes: the input is the newest file in `folder`.
    """
    target, result = TARGETS[name], Result()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        strategy = target.prepare(folder)
        before = memory()

        @settings(
            max_examples=inputs,
            derandomize=derandomize,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(content=strategy)
        def read_all(content: bytes) -> None:
            result.inputs += 1
            (folder / "input").write_bytes(content)
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
            message = ""
            start = time.perf_counter()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of Pillow and torch, about the input
                    target.read(content, folder)
            except target.refusals as error:
                result.refused += 1
                message = str(error)
            finally:
                faulthandler.cancel_dump_traceback_later()
            result.slowest = max(result.slowest, time.perf_counter() - start)
            assert len(message) < MAX_MESSAGE
            assert memory() - before < MAX_GROWTH

        start = time.perf_counter()
        read_all()
        result.seconds = time.perf_counter() - start
    result.peak = memory()
    return result


def memory() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
