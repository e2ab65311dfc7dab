"""The curves by step: their values, and that resuming neither loses nor repeats a point."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_cnn.data import ImageData
from mnist_cnn.reporting import curves
from mnist_cnn.reporting.csv import CSVLogger
from mnist_cnn.reporting.curves import Curves
from mnist_cnn.reporting.tensorboard import RunLogger
from mnist_cnn.training.schedule import Schedule
from tests.reporting.short_run import fit, make_classifier, make_trainer


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
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "WINDOW", 2)


def test_points_are_window_means_and_rates_of_last_steps(small_data: ImageData) -> None:
    losses, recorded = Losses(), Curves()  # three batches of 32 per epoch
    fit(small_data, [losses, recorded], schedule=HALVE_EACH_STEP)
    expected = {2: losses.losses[0:2], 3: losses.losses[2:3], 5: losses.losses[3:5], 6: losses.losses[5:6]}
    assert [step for step, _ in recorded.points] == list(expected)
    for step, metrics in recorded.points:
        mean = sum(expected[step]) / len(expected[step])
        assert metrics == {
            "train/loss_step": pytest.approx(mean),
            "lr": pytest.approx(0.01 / 2 ** (step - 1)),
        }


def test_accumulated_batches_form_one_step(small_data: ImageData) -> None:
    small_data.batch_size = 16
    losses, recorded = Losses(), Curves()
    fit(small_data, [losses, recorded], max_epochs=1, accumulate_grad_batches=2)
    assert [step for step, _ in recorded.points] == [2, 3]
    # Lightning divides the losses by the number of accumulated batches
    assert recorded.points[0][1]["train/loss_step"] == pytest.approx(sum(losses.losses[:4]) / 4 * 2)


def run(
    folder: Path, data: ImageData, max_epochs: int, kill_at: int | None = None, resume_epoch: int = 0
) -> None:
    loggers = [
        RunLogger(folder, first_epoch=resume_epoch + 1),
        CSVLogger(folder, first_epoch=resume_epoch + 1),
    ]
    checkpoints = ModelCheckpoint(folder, "last", enable_version_counter=False, save_on_train_epoch_end=True)
    callbacks = [Losses(kill_at), Curves(), checkpoints]
    trainer = make_trainer(callbacks, loggers, max_epochs=max_epochs, enable_checkpointing=True)
    path = folder / "last.ckpt" if resume_epoch else None
    trainer.fit(make_classifier(), data, ckpt_path=path, weights_only=True)
    loggers[0].close()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(("kill_at", "resume_epoch"), [(2, 0), (5, 1), (8, 2)])
def test_resumed_curves_equal_uninterrupted_ones(
    tmp_path: Path, small_data: ImageData, kill_at: int, resume_epoch: int
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole, small_data, max_epochs=3)
    with pytest.raises(KilledError):
        run(killed, small_data, max_epochs=3, kill_at=kill_at)
    run(killed, small_data, max_epochs=3, resume_epoch=resume_epoch)
    assert set(scalars(whole)) >= {"lr", "train/loss_step", "train/loss", "val/acc"}
    assert scalars(killed) == scalars(whole)
    for name in ("metrics.csv", "steps.csv"):
        assert (killed / name).read_text() == (whole / name).read_text()
