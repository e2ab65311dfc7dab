"""Training and resuming, on noise: what is the same, what is logged."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from mnist_cnn.data import ImageData
from mnist_cnn.models import CnnNet, SimpleCNN
from mnist_cnn.training.checkpoints import checkpoint_callbacks, latest, load, restore
from mnist_cnn.training.classifier import Classifier, Schedule
from mnist_cnn.training.losses import OneHotMSELoss

EPOCHS = 4


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.001)


def onecycle(optimizer: torch.optim.Optimizer, total_steps: int) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=total_steps)


def cosine(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS)


def step(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)


def plateau(optimizer: torch.optim.Optimizer) -> Any:
    # patience 0 and an unreachable threshold: the rate falls at every epoch but the first
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0, factor=0.5)


SCHEDULES = {
    "none": None,
    "onecycle": Schedule(onecycle, interval="step", whole_run=True),
    "cosine": Schedule(cosine),
    "step": Schedule(step),
    "plateau": Schedule(plateau, monitor="val/loss"),
}


class Interrupt(L.Callback):
    """Stops the process in the middle of an epoch, as a kill would."""

    class Killed(BaseException):
        pass

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            raise self.Killed


class Rates(L.Callback):
    """Remembers the learning rate of every step."""

    def __init__(self) -> None:
        self.rates: dict[int, float] = {}

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]


def fit(
    run_dir: Path,
    data: ImageData,
    schedule: Schedule | None = None,
    optimizer: Any = sgd,
    callbacks: tuple[L.Callback, ...] = (),
    resume: bool = False,
    seed: int = 0,
) -> tuple[Classifier, L.Trainer]:
    """Train SimpleCNN as train.py would."""
    L.seed_everything(seed, verbose=False)
    data.seed = seed
    classifier = Classifier(SimpleCNN(), nn.CrossEntropyLoss(), 10, optimizer, schedule, {"plain": 1})
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        callbacks=[*callbacks, *checkpoint_callbacks(run_dir, bool(data.val))],
        logger=False,
        deterministic=True,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = run_dir / "checkpoints" / "last.ckpt"
    trainer.fit(classifier, data, ckpt_path=last if resume else None, weights_only=True)
    return classifier, trainer


def weights(classifier: Classifier) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in classifier.parameters()])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # it is resumed
@pytest.mark.parametrize("optimizer", [sgd, adam])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    schedule: str, optimizer: Any, tmp_path: Path, small_data: ImageData
) -> None:
    whole_rates, part_rates = Rates(), Rates()
    whole, _ = fit(tmp_path / "whole", small_data, SCHEDULES[schedule], optimizer, (whole_rates,))
    with pytest.raises(Interrupt.Killed):
        fit(tmp_path / "part", small_data, SCHEDULES[schedule], optimizer, (part_rates, Interrupt(2)))
    resumed, _ = fit(
        tmp_path / "part", small_data, SCHEDULES[schedule], optimizer, (part_rates,), resume=True
    )
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.history == whole.history
    assert part_rates.rates == whole_rates.rates
    assert len(set(whole_rates.rates.values())) > 1 or schedule == "none"


class Worse(L.Callback):
    """Makes every epoch after the first the worse by spoiling the weights before its validation."""

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch > 0:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.zero_()


def test_the_last_epoch_is_kept_also_when_the_best_is_an_earlier_one(
    tmp_path: Path, small_data: ImageData
) -> None:
    assert small_data.val is not None
    # zeroed weights answer with the first class always
    small_data.val.targets.clamp_(min=1)
    fit(tmp_path, small_data, callbacks=(Worse(),))
    folder = tmp_path / "checkpoints"
    assert load(folder / "last.ckpt")["epoch"] == EPOCHS - 1
    assert load(folder / "best.ckpt")["epoch"] == 0


def test_half_a_last_checkpoint_is_passed_over_for_the_best(tmp_path: Path, small_data: ImageData) -> None:
    fit(tmp_path, small_data)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    resumed = latest(tmp_path)
    assert resumed is not None
    assert resumed.path.name == "best.ckpt"


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # it is resumed
def test_a_run_that_was_moved_keeps_its_best_epoch(tmp_path: Path, small_data: ImageData) -> None:
    _, trainer = fit(tmp_path / "here", small_data)
    best = load(tmp_path / "here" / "checkpoints" / "best.ckpt")["epoch"]
    (tmp_path / "here").rename(tmp_path / "there")
    classifier, trainer = fit(tmp_path / "there", small_data, resume=True)
    (checkpoint, _) = trainer.checkpoint_callbacks
    assert isinstance(checkpoint, L.pytorch.callbacks.ModelCheckpoint)
    assert checkpoint.best_model_path == str(tmp_path / "there" / "checkpoints" / "best.ckpt")
    assert restore(classifier, checkpoint) == best + 1


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    tmp_path: Path, small_data: ImageData
) -> None:
    first, again, other = (
        weights(fit(tmp_path / str(number), small_data, seed=seed)[0])
        for number, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_metrics_are_logged_by_split_with_the_epoch_from_one(tmp_path: Path, small_data: ImageData) -> None:
    logged: list[tuple[int | None, dict[str, float]]] = []

    class Recorder(L.pytorch.loggers.logger.DummyLogger):
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            logged.append((step, metrics))

    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=Recorder(),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    classifier = Classifier(SimpleCNN(), nn.CrossEntropyLoss(), 10, sgd)
    trainer.fit(classifier, small_data)
    trainer.test(classifier, small_data, verbose=False)
    assert [(step, sorted(metrics)) for step, metrics in logged] == [
        (1, ["val/acc", "val/loss"]),
        (1, ["train/acc", "train/loss"]),
        (2, ["val/acc", "val/loss"]),
        (2, ["train/acc", "train/loss"]),
        (2, ["test/acc", "test/loss"]),
    ]
    flat = {(step, name): value for step, metrics in logged for name, value in metrics.items()}
    assert flat[2, "test/acc"] == pytest.approx(classifier.history[1]["test/acc"])


def test_training_reduces_the_loss(tmp_path: Path, small_data: ImageData) -> None:
    classifier, _ = fit(tmp_path, small_data, optimizer=adam)
    assert classifier.history[-1]["train/loss"] < classifier.history[0]["train/loss"]


@pytest.mark.parametrize("network", [CnnNet, SimpleCNN])
def test_only_cross_entropy_outputs_are_shown_as_probabilities(network: type[nn.Module]) -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0]])
    with_ce = Classifier(network(), nn.CrossEntropyLoss(), 10)
    with_mse = Classifier(network(), OneHotMSELoss(), 10)
    assert float(with_ce.scores(logits).sum()) == pytest.approx(1)
    assert torch.equal(with_mse.scores(logits), logits)


def test_logits_are_float32_under_autocast() -> None:
    classifier = Classifier(SimpleCNN(), nn.CrossEntropyLoss(), 10)
    with torch.autocast("cpu", torch.bfloat16):
        assert classifier.network(torch.zeros(1, 1, 28, 28)).dtype == torch.bfloat16
        assert classifier(torch.zeros(1, 1, 28, 28)).dtype == torch.float32
