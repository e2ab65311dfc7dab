"""Runs that are stopped within an epoch and continue there, on random images."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torchmetrics.classification import MulticlassF1Score

from mnist_cnn import entry
from mnist_cnn.data import ImageData
from mnist_cnn.data.augment import Warp
from mnist_cnn.errors import UserError
from mnist_cnn.models import CnnNet
from mnist_cnn.reporting.curves import Curves
from mnist_cnn.reporting.progress import Progress
from mnist_cnn.training import within_epoch
from mnist_cnn.training.averaging import EMA
from mnist_cnn.training.checkpoints import find_resume_point, load, save_best, save_last
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.schedule import Schedule
from mnist_cnn.training.seeding import ReseedEachEpoch
from mnist_cnn.training.trainer import build_trainer
from mnist_cnn.training.within_epoch import SaveWithinEpoch

pytestmark = [
    # Lightning, as a run is resumed in its folder, and as overfit_batches asks for
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:You requested to overfit but enabled .* dataloader shuffling"),
]

EPOCHS = 2
BATCHES = 12  # an epoch
TORCH = "torch.optim.lr_scheduler."


class Killed(BaseException):
    pass


class Kill(L.Callback):
    """Ends training before a batch, as a kill would."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.moment = (epoch, batch)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == self.moment:
            raise Killed


class Signal(Kill):
    """Sends this process a signal before a batch."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == self.moment:
            signal.raise_signal(signal.SIGINT)


class Dropout(CnnNet):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(images, 0.3, self.training))


def noisy(images: torch.Tensor) -> torch.Tensor:
    """A random augmentation that draws from torch and from NumPy."""
    return Warp(degrees=10, elastic=1)(images) * float(np.random.uniform(0.5, 1))


def fit(
    run_dir: Path,
    data: ImageData,
    *more: L.Callback,
    every: int | None = None,
    optimizer: Any = torch.optim.Adam,
    schedule: Schedule | None = None,
    network: type[CnnNet] = CnnNet,
    resume: bool = False,
    **options: Any,
) -> tuple[Classifier, list[Any]]:
    """Train as train.py does; return the classifier and what the curves by step show."""
    L.seed_everything(0, verbose=False)
    data.batch_size = 8
    classifier = Classifier(
        network(image_size=28),
        nn.CrossEntropyLoss(),
        10,
        lambda parameters: optimizer(parameters, lr=0.01),
        schedule,
        metrics={"f1": MulticlassF1Score(10)},
    )
    point = find_resume_point(run_dir) if resume else None
    curves = Curves()
    saving = [save_best(run_dir, "val/acc", "max"), save_last(run_dir)]
    parts = {"metrics": classifier.train_metrics, "curves": curves}
    within = SaveWithinEpoch(run_dir / "checkpoints" / "last.ckpt", parts, every_n_steps=every)
    trainer = build_trainer(
        {"accelerator": "cpu", "devices": 1, "max_epochs": EPOCHS, "deterministic": True} | options,
        run_dir,
        [ReseedEachEpoch(0), curves, Progress(run_dir), *more, *saving, within],
        [],
        [],
    )
    run_dir.mkdir(exist_ok=True)
    trainer.fit(classifier, data, ckpt_path=point.path if point else None, weights_only=True)
    return classifier, curves.points


def assert_same(one: tuple[Classifier, list[Any]], other: tuple[Classifier, list[Any]]) -> None:
    for name, value in one[0].state_dict().items():
        assert torch.equal(value, other[0].state_dict()[name]), name
    assert one[0].history == other[0].history
    assert one[1] == other[1]


CASES: dict[str, dict[str, Any]] = {
    "adam": {},
    "sgd, step by step": {
        "optimizer": torch.optim.SGD,
        "schedule": Schedule(TORCH + "OneCycleLR", interval="step", max_lr=0.05, total_steps="auto"),
    },
    "rmsprop, by epoch": {
        "optimizer": torch.optim.RMSprop,
        "schedule": Schedule(TORCH + "StepLR", step_size=1, gamma=0.5),
    },
    "plateau": {"schedule": Schedule(TORCH + "ReduceLROnPlateau", monitor="val/loss", patience=0)},
    "dropout": {"network": Dropout},
    "accumulated gradients": {"accumulate_grad_batches": 2},
    "a validation within the epoch": {"val_check_interval": 0.5},
    "part of an epoch": {"limit_train_batches": 7},
    "the same batches": {"overfit_batches": 5},
    "max_steps": {"max_steps": 17},
}


@pytest.mark.parametrize("every", [2, None], ids=["within the epoch", "at the end of the epoch before"])
@pytest.mark.parametrize("case", CASES)
def test_run_killed_within_an_epoch_continues_bit_for_bit(
    case: str, every: int | None, tmp_path: Path, small_data: ImageData
) -> None:
    small_data.augment = noisy
    options = CASES[case]
    whole = fit(tmp_path / "whole", small_data, EMA(0.9), **options)
    with pytest.raises(Killed):
        fit(tmp_path / "part", small_data, EMA(0.9), Kill(1, 4), every=every, **options)
    checkpoint = load(tmp_path / "part" / "checkpoints" / "last.ckpt")
    assert (within_epoch.KEY in checkpoint) == (every is not None)
    point = find_resume_point(tmp_path / "part")
    assert point is not None and point.epochs == 1
    np.random.rand(3), torch.rand(7)  # the process that resumes is in another state
    assert_same(fit(tmp_path / "part", small_data, EMA(0.9), every=every, resume=True, **options), whole)


def test_run_ended_by_early_stopping_does_not_train_on(tmp_path: Path, small_data: ImageData) -> None:
    def stop() -> L.Callback:
        return EarlyStopping("train/loss", patience=1, min_delta=100.0, check_on_train_epoch_end=True)

    options = {"max_epochs": 5}
    whole = fit(tmp_path, small_data, stop(), **options)
    assert len(whole[0].history) == 2
    assert_same(fit(tmp_path, small_data, stop(), resume=True, **options), whole)
    longer = fit(tmp_path, small_data, stop(), resume=True, max_epochs=6)
    assert len(longer[0].history) == 3


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(epoch=st.integers(0, EPOCHS - 1), batch=st.integers(0, BATCHES - 1), every=st.integers(1, 15))
def test_run_may_be_killed_at_any_batch(
    tmp_path_factory: pytest.TempPathFactory, small_data: ImageData, epoch: int, batch: int, every: int
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    whole = fit(folder / "whole", small_data)
    with pytest.raises(Killed):
        fit(folder / "part", small_data, Kill(epoch, batch), every=every)
    assert_same(fit(folder / "part", small_data, every=every, resume=True), whole)


@pytest.fixture
def interrupts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Handle SIGINT in the test as a command does."""
    monkeypatch.setattr(entry, "_received", None)
    monkeypatch.setattr(entry, "_raised", False)
    before = signal.signal(signal.SIGINT, entry._interrupt)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("batch", [0, 5, BATCHES - 1])
def test_signal_stops_after_the_batch_or_the_epoch_with_a_checkpoint(
    batch: int, tmp_path: Path, small_data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(tmp_path / "whole", small_data)
    with pytest.raises(SystemExit):  # as which Lightning raises KeyboardInterrupt again
        fit(tmp_path / "part", small_data, Signal(0, batch))
    done = load(tmp_path / "part" / "checkpoints" / "last.ckpt")["global_step"]
    assert done == batch + 1
    monkeypatch.setattr(entry, "_received", None)  # the run is resumed in another process
    assert_same(fit(tmp_path / "part", small_data, resume=True), whole)


@pytest.mark.usefixtures("interrupts")
def test_signal_that_was_lost_before_the_training_stops_it(
    tmp_path: Path, small_data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "_received", signal.SIGINT)
    with pytest.raises(SystemExit):
        fit(tmp_path, small_data)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


class TwoSignals(Signal):
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)


@pytest.mark.usefixtures("interrupts")
def test_second_signal_stops_at_once(tmp_path: Path, small_data: ImageData) -> None:
    with pytest.raises(SystemExit):
        fit(tmp_path, small_data, TwoSignals(0, 5))
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_checkpoint_of_two_processes_is_not_continued_by_one(tmp_path: Path, small_data: ImageData) -> None:
    with pytest.raises(Killed):
        fit(tmp_path, small_data, Kill(0, 6), every=3)
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = load(path)
    checkpoint[within_epoch.KEY]["ranks"] *= 2
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=r"with 2 processes.*trainer\.devices=2"):
        fit(tmp_path, small_data, resume=True)
