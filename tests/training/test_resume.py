"""Runs that are killed or stopped after any batch and continue there, on random images."""

import random
import signal
from collections.abc import Iterator
from contextlib import suppress
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

from mnist_cnn.data import ImageData
from mnist_cnn.data.augment import Warp
from mnist_cnn.errors import Interrupted, UserError
from mnist_cnn.models import CnnNet
from mnist_cnn.reporting.epochs import Progress
from mnist_cnn.training.averaging import EMA
from mnist_cnn.training.checkpoints import find_resume_point, save_epochs
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.loading import load
from mnist_cnn.training.resume import ExactResume, StopAfterSteps
from mnist_cnn.training.schedule import Schedule
from mnist_cnn.training.trainer import build_trainer

pytestmark = [
    # Lightning, as a run is resumed in its folder, and as overfit_batches asks for
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:You requested to overfit but enabled .* dataloader shuffling"),
    # Lightning expects its own protocol of loaders; TrainLoader continues by `first`
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
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
            self.happen()

    def happen(self) -> None:
        raise Killed


class Signal(Kill):
    """Sends this process a signal before a batch."""

    def happen(self) -> None:
        signal.raise_signal(signal.SIGINT)


class TwoSignals(Kill):
    def happen(self) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


class Dropout(CnnNet):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(images, 0.3, self.training))


def noisy(images: torch.Tensor) -> torch.Tensor:
    """A random augmentation that draws from torch, NumPy and Python."""
    return Warp(degrees=10, elastic=1)(images) * float(np.random.uniform(0.5, 1)) * random.uniform(0.5, 1)


def fit(
    run_dir: Path,
    data: ImageData,
    *more: L.Callback,
    every: int | None = None,
    optimizer: Any = torch.optim.Adam,
    schedule: Schedule | None = None,
    network: type[CnnNet] = CnnNet,
    resume: bool = False,
    max_steps: int | None = None,
    **options: Any,
) -> Classifier:
    """Train as train.py does."""
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
    checkpoint = find_resume_point(run_dir)[1] if resume else None
    saving = save_epochs(run_dir, ("val/acc", "max"))
    exact = ExactResume(run_dir, 0, [signal.SIGINT], every_n_steps=every)
    trainer = build_trainer(
        {"accelerator": "cpu", "devices": 1, "max_epochs": EPOCHS, "deterministic": True} | options,
        run_dir,
        [StopAfterSteps(max_steps), Progress(run_dir), *more, *saving, exact],
        [],
    )
    run_dir.mkdir(exist_ok=True)
    trainer.fit(classifier, data, ckpt_path=checkpoint, weights_only=True)
    return classifier


def assert_same(one: Classifier, other: Classifier) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert one.history == other.history


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
    "cosine": {"schedule": Schedule(TORCH + "CosineAnnealingLR", T_max=EPOCHS)},
    "plateau": {"schedule": Schedule(TORCH + "ReduceLROnPlateau", monitor="val/loss", patience=0)},
    "dropout": {"network": Dropout},
    "accumulated gradients": {"accumulate_grad_batches": 2},
    "a validation within the epoch": {"val_check_interval": 0.5},
    "part of an epoch": {"limit_train_batches": 7},
    "the same batches": {"overfit_batches": 5},
    "max_steps": {"max_steps": 17},
    "a schedule of max_steps": {
        "max_steps": 17,
        "schedule": Schedule(TORCH + "OneCycleLR", interval="step", max_lr=0.05, total_steps="auto"),
    },
}


@pytest.mark.parametrize("case", CASES)
def test_run_killed_within_an_epoch_continues_bit_for_bit(
    case: str, tmp_path: Path, small_data: ImageData
) -> None:
    small_data.augment = noisy
    options = CASES[case]
    steps_of_an_epoch = options.get("limit_train_batches", options.get("overfit_batches", BATCHES))
    steps_of_an_epoch //= options.get("accumulate_grad_batches", 1)
    whole, part = fit(tmp_path / "whole", small_data, EMA(0.9), **options), tmp_path / "part"
    with pytest.raises(Killed):
        fit(part, small_data, EMA(0.9), Kill(1, 4), every=2, **options)
    assert find_resume_point(part)[0] > steps_of_an_epoch
    np.random.rand(3), torch.rand(7)  # the process that resumes is in another state
    assert_same(fit(part, small_data, EMA(0.9), every=2, resume=True, **options), whole)


def test_run_without_a_checkpoint_within_the_epoch_continues_after_the_epoch_before(
    tmp_path: Path, small_data: ImageData
) -> None:
    whole, part = fit(tmp_path / "whole", small_data), tmp_path / "part"
    with pytest.raises(Killed):
        fit(part, small_data, Kill(1, 4))
    assert find_resume_point(part)[0] == BATCHES
    assert_same(fit(part, small_data, resume=True), whole)
    again = fit(part, small_data, resume=True)
    assert again.history == whole.history  # nothing is left to train


@pytest.mark.parametrize(
    ("options", "epochs"), [({"patience": 1, "min_delta": 100.0}, 2), ({"stopping_threshold": 100.0}, 1)]
)
def test_run_ended_by_early_stopping_does_not_train_on(
    options: dict[str, Any], epochs: int, tmp_path: Path, small_data: ImageData
) -> None:
    def stop() -> L.Callback:
        return EarlyStopping("train/loss", check_on_train_epoch_end=True, **options)

    whole = fit(tmp_path, small_data, stop(), max_epochs=5)
    assert len(whole.history) == epochs
    assert_same(fit(tmp_path, small_data, stop(), resume=True, max_epochs=5), whole)
    longer = fit(tmp_path, small_data, stop(), resume=True, max_epochs=6)
    assert len(longer.history) == epochs + 1


def test_run_that_early_stopping_has_not_ended_continues(tmp_path: Path, small_data: ImageData) -> None:
    def stop() -> L.Callback:
        return EarlyStopping("train/loss", patience=0, check_on_train_epoch_end=True)

    whole, part = fit(tmp_path / "whole", small_data, stop()), tmp_path / "part"
    with pytest.raises(Killed):
        fit(part, small_data, stop(), Kill(1, 4), every=2)
    assert_same(fit(part, small_data, stop(), every=2, resume=True), whole)


moments = st.tuples(st.integers(0, EPOCHS - 1), st.integers(0, BATCHES - 1))


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(moments, min_size=1, max_size=3), every=st.integers(1, 15))
def test_run_may_be_killed_at_any_batches(
    tmp_path_factory: pytest.TempPathFactory,
    small_data: ImageData,
    kills: list[tuple[int, int]],
    every: int,
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    whole = fit(folder / "whole", small_data)
    for epoch, batch in sorted(kills):
        with suppress(Killed):  # not where the run has been continued after this batch
            fit(folder / "part", small_data, Kill(epoch, batch), every=every, resume=True)
    assert_same(fit(folder / "part", small_data, every=every, resume=True), whole)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Handle SIGINT in the test as a command does."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted(number)

    before = signal.signal(signal.SIGINT, interrupt)
    yield
    assert signal.getsignal(signal.SIGINT) is interrupt
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("batch", [5, BATCHES - 1])
def test_signal_stops_after_the_batch_or_the_epoch_with_a_checkpoint(
    batch: int, tmp_path: Path, small_data: ImageData, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = fit(tmp_path / "whole", small_data)
    with pytest.raises(Interrupted, match="SIGINT"):
        fit(tmp_path / "part", small_data, Signal(0, batch))
    assert capfd.readouterr().err == "\nstopping with a checkpoint; interrupt again to stop at once\n"
    assert load(tmp_path / "part" / "checkpoints" / "last.ckpt")["global_step"] == batch + 1
    assert_same(fit(tmp_path / "part", small_data, resume=True), whole)


@pytest.mark.usefixtures("interrupts")
def test_run_stopped_within_two_epochs_continues_bit_for_bit(tmp_path: Path, small_data: ImageData) -> None:
    whole, part = fit(tmp_path / "whole", small_data, max_epochs=3), tmp_path / "part"
    with pytest.raises(Interrupted):
        fit(part, small_data, Signal(0, 5), max_epochs=3)
    with pytest.raises(Killed):  # before anything is saved in this epoch
        fit(part, small_data, Kill(1, 4), resume=True, max_epochs=3)
    assert_same(fit(part, small_data, resume=True, max_epochs=3), whole)


@pytest.mark.usefixtures("interrupts")
def test_second_signal_stops_at_once(tmp_path: Path, small_data: ImageData) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path, small_data, TwoSignals(0, 5))
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_run_of_two_processes_is_not_continued_by_one(tmp_path: Path, small_data: ImageData) -> None:
    with pytest.raises(Killed):
        fit(tmp_path, small_data, Kill(0, 6), every=3)
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = load(path)
    checkpoint["callbacks"]["ExactResume"]["processes"] = 2
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=r"by 2 processes.*trainer\.devices=2"):
        fit(tmp_path, small_data, resume=True)
