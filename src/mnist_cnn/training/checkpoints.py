"""Checkpoints of tensors and plain values only, and networks built again from them."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from mnist_cnn.errors import UserError
from mnist_cnn.training.classifier import Classifier

# A checkpoint may come from a stranger; of what it names, only layers and networks are called.
TRUSTED = ("mnist_cnn.", "torch.nn.")


def checkpoint_callback(run_dir: Path, has_validation: bool) -> ModelCheckpoint:
    """Keep `last.ckpt` every epoch and, where there is a validation split, `best.ckpt` by val/acc.

    Without validation nothing honest can choose an epoch, so that the last one is the result.
    """
    directory = run_dir / "checkpoints"
    # at the end of an epoch, not of its validation, so that resuming starts with the next epoch
    if not has_validation:
        return ModelCheckpoint(directory, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    return ModelCheckpoint(
        directory,
        filename="best",
        monitor="val/acc",
        mode="max",
        save_last=True,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )


@dataclass(frozen=True)
class Resumed:
    """Where an interrupted run goes on: its last whole checkpoint, and the epochs behind it."""

    path: Path
    epochs: int


def latest(run_dir: Path) -> Resumed | None:
    """Return where the run in `run_dir` goes on; None if it was interrupted in its first epoch."""
    path = run_dir / "checkpoints" / "last.ckpt"
    return Resumed(path, load(path)["epoch"] + 1) if path.is_file() else None


def restore(classifier: Classifier, checkpoint: ModelCheckpoint) -> int:
    """Give the classifier the weights of the best checkpoint; return the epoch they are from, from 1.

    Where nothing was saved, as with trainer.fast_dev_run, the weights stay as they are.
    """
    if not checkpoint.best_model_path:
        return classifier.current_epoch
    best = load(Path(checkpoint.best_model_path))
    classifier.load_state_dict(best["state_dict"])
    return int(best["epoch"]) + 1


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint with `weights_only=True`; raises `UserError` where it is none of this project's."""
    if not path.is_file():
        here = sorted(str(found) for found in Path().glob("logs/*/**/checkpoints/*.ckpt"))
        known = "The latest: " + ", ".join(here[-3:]) if here else "There is none under logs/ yet."
        raise UserError(f"ckpt={path} is not a file. {known}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(checkpoint, dict) and {"state_dict", "config"} <= checkpoint.keys():
            return checkpoint
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise UserError(f"ckpt={path} cannot be read as a checkpoint: {error}") from error
    raise UserError(f"ckpt={path} is not a checkpoint of train.py: it holds no network and settings.")


def build(settings: dict[str, Any]) -> nn.Module:
    """Build the network or loss that `settings` names in `_target_`, with its other items as arguments.

    Raises `UserError` unless `_target_` is an nn.Module of this package or of torch.nn.
    """
    arguments = dict(settings)
    target = str(arguments.pop("_target_", ""))
    if target.startswith(TRUSTED):
        found = resolve_name(target)
        if isinstance(found, type) and issubclass(found, nn.Module):
            module: nn.Module = found(**arguments)
            return module
    raise UserError(
        f"The checkpoint names {target!r} as its network or loss. Only networks of mnist_cnn and layers "
        "of torch.nn are built from a checkpoint."
    )


def load_classifier(path: Path) -> Classifier:
    """Build the classifier of a checkpoint from the file alone, on the CPU and ready to evaluate."""
    checkpoint = load(path)
    config = checkpoint["config"]
    classifier = Classifier(
        build(config["model"]), build(config["loss"]), config["data"]["num_classes"], config=config
    )
    classifier.load_state_dict(checkpoint["state_dict"])
    return classifier.eval()
