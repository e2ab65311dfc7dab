"""Reporting to a search, and stopping a run that it prunes."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mnist_cnn.errors import UserError
from mnist_cnn.training.pruning import Pruning

EPOCHS = 5


class Scripted:
    """A trial that stops a run after a given epoch, and keeps what is reported."""

    metric = "val/acc"

    def __init__(self, stop_after: int = 99) -> None:
        self.reports: dict[int, float] = {}
        self._stop_after = stop_after

    def report(self, value: float, epoch: int) -> bool:
        assert isinstance(value, float)
        self.reports[epoch] = value
        return epoch >= self._stop_after


class Counting(L.LightningModule):
    """Its val/acc is the number of the epoch divided by ten."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(batch).sum()
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/acc", (self.current_epoch + 1) / 10)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(trial: Any, folder: Path, resumed: Path | None = None, **options: Any) -> tuple[Pruning, L.Trainer]:
    pruning = Pruning(trial)
    trainer = L.Trainer(
        accelerator="cpu",
        **({"max_epochs": EPOCHS, "num_sanity_val_steps": 2} | options),
        default_root_dir=folder,
        callbacks=[pruning],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches: DataLoader[Any] = DataLoader(torch.ones(4, 1), batch_size=2)  # type: ignore[arg-type]
    trainer.fit(Counting(), batches, batches, ckpt_path=resumed, weights_only=True)
    return pruning, trainer


def test_every_epoch_is_reported(tmp_path: Path) -> None:
    trial = Scripted()
    pruning, trainer = fit(trial, tmp_path)
    assert trial.reports == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4, 5: 0.5})
    assert (pruning.pruned, pruning.epoch, trainer.current_epoch) == (False, 5, 5)


def test_hopeless_run_stops_after_its_epoch(tmp_path: Path) -> None:
    trial = Scripted(stop_after=2)
    pruning, trainer = fit(trial, tmp_path)
    assert list(trial.reports) == [1, 2]
    assert (pruning.pruned, pruning.epoch, trainer.current_epoch) == (True, 2, 2)


def test_run_is_not_pruned_after_its_last_epoch(tmp_path: Path) -> None:
    pruning, trainer = fit(Scripted(stop_after=EPOCHS), tmp_path)
    assert (pruning.pruned, trainer.current_epoch) == (False, EPOCHS)


def test_only_epochs_with_a_validation_are_reported(tmp_path: Path) -> None:
    trial = Scripted()
    fit(trial, tmp_path, check_val_every_n_epoch=2)
    assert trial.reports == pytest.approx({2: 0.2, 4: 0.4})


def test_unknown_metric_is_reported(tmp_path: Path) -> None:
    trial = Scripted()
    trial.metric = "val/f1"
    with pytest.raises(UserError, match=r"by val/f1 after each epoch, but there are only val/acc"):
        fit(trial, tmp_path)


def test_pruned_run_continues_only_outside_its_search(
    tmp_path: Path,
) -> None:
    _, trainer = fit(Scripted(stop_after=2), tmp_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trial = Scripted()
    pruning, trainer = fit(trial, tmp_path, resumed=tmp_path / "last.ckpt")
    assert (pruning.pruned, trainer.current_epoch, trial.reports) == (True, 2, {})
    pruning, trainer = fit(None, tmp_path, resumed=tmp_path / "last.ckpt")
    assert (pruning.pruned, trainer.current_epoch) == (False, EPOCHS)
