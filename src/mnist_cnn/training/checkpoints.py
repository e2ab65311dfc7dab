"""The checkpoints that a run writes, and the one that it is resumed from."""

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mnist_cnn.errors import UserError
from mnist_cnn.files import atomic_write
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.loading import load

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under another name and renames it; Lightning copies it from a temporary folder.

    Where it cannot be written, the former one stays, and no partial file is left.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()  # torch reports a full disk as an internal error
        torch.save(checkpoint, buffer)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as aside:
            aside.write_bytes(buffer.getbuffer())


class RunCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that finds its files in the present folder of the run, also after it was moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def moved(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = {name: moved(state_dict[name]) for name in ("best_model_path", "kth_best_model_path")}
        paths["dirpath"] = str(self.dirpath)
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"best_k_models": best})


def save_last(run_dir: Path) -> ModelCheckpoint:
    """Return the callback that saves each epoch as `last.ckpt`, from which a run is resumed."""
    return _save(run_dir, "last")


def save_best(run_dir: Path, metric: str, mode: Literal["min", "max"]) -> ModelCheckpoint:
    """Return the callback that saves the epoch with the best value of `metric` as `best.ckpt`."""
    return _save(run_dir, "best", monitor=metric, mode=mode)


def _save(run_dir: Path, name: str, **options: Any) -> ModelCheckpoint:
    # At the end of an epoch and not of its validation, so that a resumed run starts with the next epoch.
    return RunCheckpoint(
        run_dir / "checkpoints",
        filename=name,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
        **options,
    )


@dataclass(frozen=True)
class ResumePoint:
    """Where an interrupted run continues: its latest readable checkpoint, and the optimizer steps done."""

    path: Path
    global_step: int


def find_resume_point(run_dir: Path) -> ResumePoint | None:
    """Return where the run in `run_dir` continues; None if it was interrupted before its first checkpoint.

    This is the checkpoint of the latest step that can be read. Raises `UserError` if there are checkpoints
    and none can be read.
    """
    points: list[ResumePoint] = []
    unreadable: list[Path] = []
    for path in (run_dir / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")):
        if not path.exists():
            continue
        try:
            points.append(ResumePoint(path, int(load(path)["global_step"])))
        except (UserError, OSError, KeyError, TypeError, ValueError):
            unreadable.append(path)
    names = " and ".join(map(str, unreadable))
    if not points and unreadable:
        raise UserError(
            f"The run cannot be continued: {names} cannot be read. Restore one of them from a copy, or "
            "remove them to start the run again at epoch 1."
        )
    point = max(points, key=lambda one: (one.global_step, one.path.name), default=None)
    if point is not None and unreadable:
        log.warning(f"{names} cannot be read; the run continues from {point.path}.")
    return point


def load_best_weights(classifier: Classifier, checkpoint: ModelCheckpoint) -> int:
    """Load the weights that `checkpoint` saved into `classifier`; return their epoch, from 1.

    If nothing was saved, as with trainer.fast_dev_run, the weights stay as they are. If the file was removed
    or damaged before the run was resumed, it warns and keeps the last weights.
    """
    if not checkpoint.best_model_path:
        trained = not classifier.trainer.fast_dev_run  # type: ignore[attr-defined]
        if trained and checkpoint.monitor is not None:
            log.warning(f"{checkpoint.monitor} was never measured: the result is that of the last weights.")
        return classifier.current_epoch
    try:
        best = load(Path(checkpoint.best_model_path))
    except (UserError, FileNotFoundError):
        log.warning(
            f"{checkpoint.best_model_path} is missing or damaged: the result is that of the last weights."
        )
        return classifier.current_epoch
    classifier.load_state_dict(best["state_dict"])
    return int(best["epoch"]) + 1
