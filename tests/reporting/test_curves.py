"""The curves by step: their values, and that resuming neither loses nor repeats a point."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

from mnist_cnn.data import ImageData
from mnist_cnn.reporting import curves, loggers
from mnist_cnn.reporting.curves import Curves
from mnist_cnn.reporting.tensorboard import RunLogger
from mnist_cnn.training.schedule import Schedule
from tests.reporting.short_run import Recorder, fit, make_classifier, make_trainer
from tests.runs import scalars


class Losses(L.Callback):
    """Records the loss of every batch and stops the process at a global step, as a kill would."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.losses: list[float] = []
        self.kill_at = kill_at

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(outputs["loss"]))
        if trainer.global_step == self.kill_at:
            raise KilledError


class KilledError(BaseException):
    pass


HALVE_EACH_STEP = Schedule("torch.optim.lr_scheduler.StepLR", interval="step", step_size=1, gamma=0.5)


@pytest.fixture(autouse=True)
def two_steps_per_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "STEPS_PER_POINT", 2)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_points_are_loss_and_rate_of_a_step(accumulated: int, small_data: ImageData) -> None:
    small_data.batch_size = 32 // accumulated
    losses, recorder = Losses(), Recorder()
    options = {"max_epochs": 2, "accumulate_grad_batches": accumulated}
    fit(small_data, [losses, Curves()], [recorder], schedule=HALVE_EACH_STEP, **options)
    points = [(step, metrics) for step, metrics in recorder.metrics if "train/lr" in metrics]
    assert [step for step, _ in points] == [2, 4, 6]  # three steps per epoch
    for step, metrics in points:
        # Lightning divides the losses by the number of accumulated batches.
        assert metrics["train/loss_step"] == pytest.approx(
            losses.losses[accumulated * step - 1] * accumulated
        )
        assert metrics["train/lr"] == pytest.approx(0.01 / 2 ** (step - 1))


def run(folder: Path, data: ImageData, kill_at: int | None = None, resumed_at: int | None = None) -> None:
    run_loggers: list[Logger] = [RunLogger(str(folder))]
    loggers.begin(run_loggers, {}, "", resumed_at or 0)
    checkpoints = ModelCheckpoint(folder, "last", enable_version_counter=False, save_on_train_epoch_end=True)
    callbacks = [Losses(kill_at), Curves(), checkpoints]
    trainer = make_trainer(callbacks, run_loggers, max_epochs=3, enable_checkpointing=True)
    path = folder / "last.ckpt" if resumed_at else None
    trainer.fit(make_classifier(), data, ckpt_path=path, weights_only=True)
    loggers.close(run_loggers)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(("kill_at", "resumed_at"), [(2, 0), (5, 3), (8, 6)])
def test_resumed_curves_equal_uninterrupted_ones(
    tmp_path: Path, small_data: ImageData, kill_at: int, resumed_at: int
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole, small_data)
    with pytest.raises(KilledError):
        run(killed, small_data, kill_at=kill_at)
    run(killed, small_data, resumed_at=resumed_at)
    assert set(scalars(whole)) >= {"train/lr", "train/loss_step", "train/loss", "val/acc", "train/epoch"}
    assert scalars(killed) == scalars(whole)
