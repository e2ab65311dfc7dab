"""Training on random images."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from mnist_cnn.data import ImageData
from mnist_cnn.errors import UserError
from mnist_cnn.models import CnnNet, SimpleCNN
from mnist_cnn.training.checkpoints import load_best_weights, save_epochs
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.loading import load
from mnist_cnn.training.losses import OneHotMSELoss
from mnist_cnn.training.resume import ExactResume
from mnist_cnn.training.schedule import Schedule

EPOCHS = 4


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def fit(
    run_dir: Path,
    data: ImageData,
    schedule: Schedule | None = None,
    optimizer: Any = sgd,
    callbacks: tuple[L.Callback, ...] = (),
    resume: bool = False,
    seed: int = 0,
    network: type[nn.Module] = SimpleCNN,
    loss: nn.Module | None = None,
    **options: Any,
) -> tuple[Classifier, L.Trainer]:
    """Train a network as train.py does."""
    L.seed_everything(seed, verbose=False)
    data.seed = seed
    loss = loss or nn.CrossEntropyLoss()
    classifier = Classifier(network(), loss, 10, optimizer, schedule, config={"plain": 1})
    saving = save_epochs(run_dir, ("val/acc", "max"))
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        callbacks=[*callbacks, *saving, ExactResume(run_dir, seed)],
        logger=False,
        deterministic=True,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    last = run_dir / "checkpoints" / "last.ckpt"
    trainer.fit(classifier, data, ckpt_path=last if resume else None, weights_only=True)
    return classifier, trainer


def weights(classifier: Classifier) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in classifier.parameters()])


class Worse(L.Callback):
    """Zeroes the weights before each validation but the first, so that the first epoch is the best."""

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch > 0:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.zero_()


def test_last_epoch_is_saved_when_an_earlier_one_is_the_best(tmp_path: Path, small_data: ImageData) -> None:
    # Zeroed weights always predict the first class.
    small_data.val.targets.clamp_(min=1)
    fit(tmp_path, small_data, callbacks=(Worse(),))
    folder = tmp_path / "checkpoints"
    assert load(folder / "last.ckpt")["epoch"] == EPOCHS - 1
    assert load(folder / "best.ckpt")["epoch"] == 0


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # as it is resumed
def test_moved_run_keeps_its_best_epoch(tmp_path: Path, small_data: ImageData) -> None:
    _, trainer = fit(tmp_path / "here", small_data)
    best = load(tmp_path / "here" / "checkpoints" / "best.ckpt")["epoch"]
    (tmp_path / "here").rename(tmp_path / "there")
    classifier, trainer = fit(tmp_path / "there", small_data, resume=True)
    checkpoint = trainer.checkpoint_callbacks[0]
    assert isinstance(checkpoint, L.pytorch.callbacks.ModelCheckpoint)
    assert checkpoint.best_model_path == str(tmp_path / "there" / "checkpoints" / "best.ckpt")
    assert load_best_weights(classifier, checkpoint) == best + 1


def test_missing_best_epoch_leaves_the_last_weights_with_a_warning(
    tmp_path: Path, small_data: ImageData, caplog: pytest.LogCaptureFixture
) -> None:
    classifier, trainer = fit(tmp_path, small_data)
    (tmp_path / "checkpoints" / "best.ckpt").unlink()
    before = weights(classifier).clone()
    checkpoint = trainer.checkpoint_callbacks[0]
    assert isinstance(checkpoint, L.pytorch.callbacks.ModelCheckpoint)
    assert load_best_weights(classifier, checkpoint) == EPOCHS
    assert torch.equal(weights(classifier), before)
    assert "best.ckpt is missing or damaged" in caplog.text


def test_setting_that_the_optimizer_refuses_is_reported(tmp_path: Path, small_data: ImageData) -> None:
    def nesterov(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1, nesterov=True)

    with pytest.raises(UserError, match="optim: the optimizer refuses these settings: Nesterov"):
        fit(tmp_path, small_data, optimizer=nesterov)
    with pytest.raises(UserError, match="LBFGS is not supported"):
        fit(tmp_path, small_data, optimizer=torch.optim.LBFGS)


def test_loss_that_is_not_one_number_is_refused(tmp_path: Path, small_data: ImageData) -> None:
    with pytest.raises(UserError, match=r"gives a loss of shape \(\d+,\) and not one number"):
        fit(tmp_path, small_data, loss=torch.nn.CrossEntropyLoss(reduction="none"))


# Lightning, after an epoch without validation
@pytest.mark.filterwarnings("ignore:`ModelCheckpoint.* could not find the monitored key")
def test_plateau_waits_for_a_validation(tmp_path: Path, small_data: ImageData) -> None:
    # Patience 0 and a threshold out of reach: the rate is reduced in every epoch but the first.
    schedule = Schedule(
        "torch.optim.lr_scheduler.ReduceLROnPlateau",
        monitor="val/loss",
        patience=0,
        threshold=10.0,
        factor=0.5,
    )
    _, trainer = fit(tmp_path, small_data, schedule=schedule, check_val_every_n_epoch=2)
    # Validated, and reduced, after epochs 2 and 4.
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05 / 4)


def test_weights_are_determined_by_the_seed(tmp_path: Path, small_data: ImageData) -> None:
    first, again, other = (
        weights(fit(tmp_path / str(number), small_data, seed=seed)[0])
        for number, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_metrics_are_logged_by_global_step_with_the_epoch(tmp_path: Path, small_data: ImageData) -> None:
    logged: list[tuple[int | None, dict[str, float]]] = []

    class Recorder(L.pytorch.loggers.logger.DummyLogger):
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            logged.append((step, metrics))

    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=Recorder(),
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    classifier = Classifier(SimpleCNN(), nn.CrossEntropyLoss(), 10, sgd)
    trainer.fit(classifier, small_data)
    trainer.test(classifier, small_data, verbose=False)
    # Those of the test are logged with the results of the run.
    assert [(step, metrics["epoch"], sorted(set(metrics) - {"epoch"})) for step, metrics in logged] == [
        (3, 1, ["val/acc", "val/loss"]),
        (3, 1, ["train/acc", "train/loss"]),
        (6, 2, ["val/acc", "val/loss"]),
        (6, 2, ["train/acc", "train/loss"]),
    ]
    flat = {(step, name): value for step, metrics in logged for name, value in metrics.items()}
    assert flat[6, "val/acc"] == pytest.approx(classifier.history[1]["val/acc"])


@pytest.mark.parametrize("network", [CnnNet, SimpleCNN])
def test_scores_are_probabilities_with_cross_entropy_only(network: type[nn.Module]) -> None:
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


def test_network_with_too_few_outputs_is_refused(tmp_path: Path, small_data: ImageData) -> None:
    class FiveOutputs(SimpleCNN):
        def __init__(self) -> None:
            super().__init__(num_classes=5)

    with pytest.raises(UserError, match=r"FiveOutputs gives outputs of shape .* 10 classes"):
        fit(tmp_path, small_data, network=FiveOutputs)


@pytest.fixture
def compiler() -> None:
    """Skip where there is no C++ compiler, but fail in CI."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        reason = "needs a C++ compiler: apt-get install g++"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def compiled_classifier() -> Classifier:
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    return Classifier(network, nn.CrossEntropyLoss(), num_classes=3, optimizer=sgd, compile="default")


class Mismatched(nn.Module):
    """A network of a user whose layers do not fit together."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(700, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(images.flatten(1))
        return output


def test_layers_that_do_not_fit_are_reported_with_their_line() -> None:
    classifier = Classifier(Mismatched(), nn.CrossEntropyLoss(), 10)
    with pytest.raises(UserError) as refused:
        classifier(torch.zeros(2, 1, 28, 28))
    lines = str(refused.value).splitlines()
    assert lines[0] == "Mismatched fails with inputs of shape (2, 1, 28, 28):"
    assert "(2x784 and 700x10)" in lines[1]
    assert re.fullmatch(r".*test_classifier\.py:\d+, in forward:", lines[2])
    assert "self.layer(images.flatten(1))" in lines[3]
    assert len(lines) == 5


@pytest.mark.usefixtures("compiler")
def test_compiled_network_has_the_gradients_and_the_state_of_the_network_itself() -> None:
    classifier = compiled_classifier()
    images, network = torch.rand(5, 1, 6, 6), classifier.network
    logits = classifier.train()(images)
    gradients = torch.autograd.grad(logits.square().sum(), list(network.parameters()))
    torch.testing.assert_close(logits, network(images))
    expected = torch.autograd.grad(network(images).square().sum(), list(network.parameters()))
    torch.testing.assert_close(gradients, expected)
    assert set(classifier.state_dict()) == {f"network.{name}" for name in network.state_dict()}
