"""A callback that tells a benchmark when a run made its first step, and how much memory it took."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L


class Measure(L.Callback):
    """Writes `first_step`, the time of the end of the first step, and `memory` in bytes to `file`."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.first_step = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.first_step = self.first_step or time.time()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.file.write_text(json.dumps({"first_step": self.first_step, "memory": peak_memory()}))


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
