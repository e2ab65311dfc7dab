"""What is reported to a search, when a training stops, and that all its ranks do."""

from pathlib import Path
from typing import Any

import lightning as L
import optuna
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from mnist_cnn.sweeps.pruning import Pruning
from torch import Tensor, nn
from torch.utils.data import DataLoader

EPOCHS = 5


class Scripted:
    """A trial that says what it was told to say, and keeps what it was told."""

    def __init__(self, stop_after: int = 99) -> None:
        self.reports: dict[int, float] = {}
        self.asked: list[int] = []
        self._stop_after = stop_after

    def report(self, value: float, step: int) -> None:
        assert isinstance(value, float)
        self.reports[step] = value

    def should_prune(self) -> bool:
        self.asked.append(max(self.reports))
        return max(self.reports) >= self._stop_after


class Counting(L.LightningModule):
    """Its val/acc is the number of the epoch in tenths."""

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


class OtherRank(SingleDeviceStrategy):
    """A rank that is told by the first one that the second epoch was the last."""

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        if not isinstance(obj, bool):  # of Lightning's own
            return obj
        assert not obj
        return self.lightning_module is not None and self.lightning_module.current_epoch == 1


def fit(trial: Any, folder: Path, resumed: Path | None = None, **options: Any) -> tuple[Pruning, L.Trainer]:
    pruning = Pruning(trial)
    trainer = L.Trainer(
        accelerator="auto" if "strategy" in options else "cpu",
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


def test_every_epoch_is_reported_and_the_last_is_not_asked_about(tmp_path: Path) -> None:
    trial = Scripted()
    pruning, trainer = fit(trial, tmp_path)
    assert trial.reports == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4, 5: 0.5})
    assert trial.asked == [1, 2, 3, 4]
    assert (pruning.pruned, pruning.epoch, trainer.current_epoch) == (False, 5, 5)


def test_a_hopeless_training_stops_after_its_epoch(tmp_path: Path) -> None:
    trial = Scripted(stop_after=2)
    pruning, trainer = fit(trial, tmp_path)
    assert list(trial.reports) == [1, 2]
    assert (pruning.pruned, pruning.epoch, trainer.current_epoch) == (True, 2, 2)


def test_a_training_that_is_through_is_not_pruned_any_more(tmp_path: Path) -> None:
    pruning, trainer = fit(Scripted(stop_after=EPOCHS), tmp_path)
    assert (pruning.pruned, trainer.current_epoch) == (False, EPOCHS)


def test_only_epochs_with_a_validation_are_reported(tmp_path: Path) -> None:
    trial = Scripted()
    fit(trial, tmp_path, check_val_every_n_epoch=2)
    assert trial.reports == pytest.approx({2: 0.2, 4: 0.4})


def test_the_other_ranks_stop_with_the_first(tmp_path: Path) -> None:
    pruning, trainer = fit(None, tmp_path, strategy=OtherRank(device=torch.device("cpu")))
    assert (pruning.pruned, pruning.epoch, trainer.current_epoch) == (True, 2, 2)


def test_what_was_reported_before_a_kill_may_be_reported_again(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    trial = study.ask()
    trial.report(0.1, 1)
    fit(trial, tmp_path)
    assert study.trials[0].intermediate_values == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4, 5: 0.5})


@pytest.mark.parametrize(
    "pruner", [optuna.pruners.MedianPruner(2, 1), optuna.pruners.HyperbandPruner(1, 9, 3)]
)
def test_a_worse_trial_is_stopped(pruner: optuna.pruners.BasePruner, tmp_path: Path) -> None:
    study = optuna.create_study(study_name="s", direction="maximize", pruner=pruner)
    for _ in range(12):  # in every bracket of Hyperband's
        better = study.ask()
        for epoch in range(1, 10):
            better.report(0.9, epoch)
            better.should_prune()
        study.tell(better, 0.9)
    for _ in range(6):  # in one of Hyperband's three brackets none is stopped
        pruning, trainer = fit(study.ask(), tmp_path, max_epochs=9)
        if pruning.pruned:
            break
    assert pruning.pruned
    assert pruning.epoch == trainer.current_epoch < 9


def test_a_run_that_was_killed_after_it_was_given_up_goes_on_only_outside_of_its_search(
    tmp_path: Path,
) -> None:
    _, trainer = fit(Scripted(stop_after=2), tmp_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trial = Scripted()
    pruning, trainer = fit(trial, tmp_path, resumed=tmp_path / "last.ckpt")
    assert (pruning.pruned, trainer.current_epoch, trial.reports) == (True, 2, {})
    pruning, trainer = fit(None, tmp_path, resumed=tmp_path / "last.ckpt")
    assert (pruning.pruned, trainer.current_epoch) == (False, EPOCHS)
