"""Checkpoints of tensors and plain values only, and networks built again from them."""

import contextlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from mnist_cnn.data import upgrade_settings
from mnist_cnn.errors import UserError
from mnist_cnn.training.classifier import Classifier

# A checkpoint may come from a stranger; of what it names, only layers and networks are called.
TRUSTED = ("mnist_cnn.", "torch.nn.")

Kind = TypeVar("Kind")


class RunCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that finds its files where the run's folder is now, not where it once was."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        moved = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path")}
        moved["dirpath"] = str(self.dirpath)
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | moved | {"best_k_models": best})


def checkpoint_callbacks(run_dir: Path, has_validation: bool) -> list[ModelCheckpoint]:
    """Return what keeps the result of a run, and then what keeps `last.ckpt` to go on from.

    The result is `best.ckpt` by val/acc. Without validation nothing honest can choose an epoch, so that
    the last one is the result, and there is only `last.ckpt`.
    """
    # At the end of an epoch, not of its validation, so that resuming starts with the next epoch. The
    # state of the first is in the file of the second.
    names = {"best": "val/acc", "last": None} if has_validation else {"last": None}
    return [
        RunCheckpoint(
            run_dir / "checkpoints",
            filename=name,
            monitor=monitor,
            mode="max",
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        for name, monitor in names.items()
    ]


@dataclass(frozen=True)
class Resumed:
    """Where an interrupted run goes on: its last whole checkpoint, and the epochs behind it."""

    path: Path
    epochs: int


def latest(run_dir: Path) -> Resumed | None:
    """Return where the run in `run_dir` goes on; None if it was interrupted in its first epoch."""
    for name in ("last.ckpt", "best.ckpt"):  # the second where a crash left half of the first
        path = run_dir / "checkpoints" / name
        if path.is_file():
            with contextlib.suppress(UserError):
                return Resumed(path, load(path)["epoch"] + 1)
    return None


def restore(classifier: Classifier, checkpoint: ModelCheckpoint) -> int:
    """Give the classifier the weights that `checkpoint` kept; return the epoch they are from, from 1.

    Where nothing was saved, as with trainer.fast_dev_run, the weights stay as they are.
    """
    if not checkpoint.best_model_path:
        return classifier.current_epoch
    best = load(Path(checkpoint.best_model_path))
    classifier.load_state_dict(best["state_dict"])
    return int(best["epoch"]) + 1


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint with `weights_only=True`; raises `UserError` where it is none of this project's."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(checkpoint, dict) and {"state_dict", "config"} <= checkpoint.keys():
            return checkpoint
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        # torch's own message advises to load it unsafely
        raise UserError(f"{path} cannot be read as a checkpoint of tensors and plain values.") from error
    raise UserError(f"{path} is not a checkpoint of train.py: it holds no network and settings.")


def build(settings: Mapping[str, Any], kind: type[Kind], **more: Any) -> Kind:
    """Build what `settings` names in `_target_`, with its other items and `more` as arguments.

    Raises `UserError` unless `_target_` is a `kind` of this package or of torch.nn.
    """
    arguments = dict(settings) | more
    target = str(arguments.pop("_target_", ""))
    if target.startswith(TRUSTED):
        found = resolve_name(target)
        if isinstance(found, type) and issubclass(found, kind):
            return found(**arguments)
    raise UserError(
        f"The checkpoint names {target!r} where a {kind.__name__} is needed. Only classes of mnist_cnn "
        "and of torch.nn are built from a checkpoint."
    )


def load_classifier(path: Path) -> Classifier:
    """Build the classifier of a checkpoint from the file alone, on the CPU and ready to evaluate."""
    checkpoint = load(path)
    config = checkpoint["config"]
    config["data"] = upgrade_settings(config["data"])
    network, loss = build(config["model"], nn.Module), build(config["loss"], nn.Module)
    classifier = Classifier(network, loss, config["data"]["num_classes"], config=config)
    classifier.load_state_dict(checkpoint["state_dict"])
    return classifier.eval()
