"""The checkpoints that a run writes, and the one that it is resumed from."""

import io
import logging
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

    @property
    def state_key(self) -> str:
        """The name of this callback in checkpoints; Lightning asks for it several times a step."""
        return f"RunCheckpoint.{self.filename}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def moved(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = {name: moved(state_dict[name]) for name in ("best_model_path", "kth_best_model_path")}
        paths["dirpath"] = str(self.dirpath)
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"best_k_models": best})


def save_epochs(run_dir: Path, selects_by: tuple[str, Literal["min", "max"]] | None) -> list[ModelCheckpoint]:
    """Return the callbacks that save epochs, the one first whose checkpoint is the result of the run.

    Each epoch is saved as `last.ckpt`, from which a run is resumed, and the best one as `best.ckpt`, if
    `selects_by` says by which metric and mode. Without it the last epoch is the result.
    """
    last = _save(run_dir, "last")
    if selects_by is None:
        return [last]
    metric, mode = selects_by
    return [_save(run_dir, "best", monitor=metric, mode=mode), last]


def _save(run_dir: Path, name: str, **options: Any) -> ModelCheckpoint:
    # At the end of an epoch and not of its validation, so that a resumed run starts with the next epoch.
    return RunCheckpoint(
        run_dir / "checkpoints",
        filename=name,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
        **options,
    )


def find_resume_point(run_dir: Path) -> tuple[int, Path | None]:
    """Return the optimizer steps done by the run in `run_dir`, and its latest checkpoint that can be read.

    Raises `UserError` if there are checkpoints and none can be read.
    """
    points: list[tuple[int, Path]] = []
    unreadable: list[Path] = []
    for path in (run_dir / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")):
        if not path.exists():
            continue
        try:
            points.append((int(load(path)["global_step"]), path))
        except (UserError, OSError, KeyError, TypeError, ValueError):
            unreadable.append(path)
    names = " and ".join(map(str, unreadable))
    if not points and unreadable:
        raise UserError(
            f"The run cannot be continued: {names} cannot be read. Restore one of them from a copy, or "
            "remove them to start the run again at epoch 1."
        )
    steps, latest = max(points, default=(0, None))
    if unreadable:
        log.warning(f"{names} cannot be read; the run continues from {latest}.")
    return steps, latest


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
