"""The line that says how to look at a sweep in TensorBoard, at its end."""

import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from mnist_cnn.files import shown_path

log = logging.getLogger(__name__)

_sweeps: list[Path] = []  # that this command has started


class ViewOfSweep(Callback):
    """Notes the folder of a sweep; Hydra tells a callback of its end only if no job has failed."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _sweeps.append(Path(config.hydra.sweep.dir).absolute())


def log_view() -> None:
    """Print how to view the sweep that this command has run, if its jobs have written TensorBoard's files."""
    while _sweeps:
        folder = _sweeps.pop()
        if any(folder.glob("*/events.out.tfevents.*")):
            log.info(f"view: tensorboard --logdir {shown_path(folder)}")
