"""Training with the loop of this project is training with Lightning's."""

from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from mnist_cnn.data import ImageData
from mnist_cnn.models import SimpleCNN
from mnist_cnn.training.averaging import EMA
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.loop import EpochLoop, NoProfiler, shorten_steps
from mnist_cnn.training.schedule import Schedule

Calls = list[tuple[Any, ...]]
HOOKS = sorted(name for name in vars(L.Callback) if name.startswith("on_") and "checkpoint" not in name)


def spy(calls: Calls) -> L.Callback:
    """Return a callback that records its hooks, the name that self.log would use, and the progress."""

    def recorder(name: str) -> Any:
        def hook(self: L.Callback, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
            progress = trainer.fit_loop.epoch_loop.batch_progress.current
            calls.append((name, module._current_fx_name, trainer.global_step, str(progress), *summary(args)))

        return hook

    return type("Spy", (L.Callback,), {name: recorder(name) for name in HOOKS if name != "on_exception"})()


def summary(args: tuple[Any, ...]) -> list[Any]:
    """Return what can be compared of the arguments of a hook."""
    numbers = []
    for value in args:
        if isinstance(value, dict):
            value = value.get("loss")
        if isinstance(value, list | tuple):
            value = value[0]
        if isinstance(value, torch.Tensor):
            value = float(value.detach().sum())
        numbers.append(value if isinstance(value, int | float) else type(value).__name__)
    return numbers


class Recording(Classifier):
    """A module with hooks of its own, which may log in each step."""

    calls: Calls
    logs_steps = True

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.calls.append(("training_step", self._current_fx_name, batch_idx))
        if self.logs_steps:
            self.log("both", loss.detach(), on_step=True, on_epoch=True)
        return loss

    def on_before_zero_grad(self, optimizer):
        self.calls.append(("module", self._current_fx_name))

    def on_after_backward(self):
        self.calls.append(("module", self._current_fx_name))
        self.log("gradient", self.network.fc2.bias.grad.norm(), on_step=False, on_epoch=True)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.calls.append(("module", self._current_fx_name, batch_idx, float(outputs["loss"])))


def trained(
    data: ImageData,
    short: bool,
    onecycle: bool = False,
    ema: bool = False,
    logs_steps: bool = True,
    **options: Any,
) -> tuple[torch.Tensor, list[Any], L.Trainer]:
    """Return what a training leaves: weights, history, logged values, calls, and the state of the loops."""
    torch.manual_seed(0)
    calls: Calls = []
    classifier = Recording(
        SimpleCNN(),
        nn.CrossEntropyLoss(),
        10,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        schedule=Schedule(
            "torch.optim.lr_scheduler.OneCycleLR", interval="step", max_lr=0.2, total_steps="auto"
        )
        if onecycle
        else None,
    )
    classifier.calls, classifier.logs_steps = calls, logs_steps
    trainer = L.Trainer(
        **{"max_epochs": 2} | options,
        accelerator="cpu",
        callbacks=[spy(calls), *([EMA(every_n_steps=2)] if ema else [])],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        profiler=NoProfiler() if short else None,
    )
    if short:
        shorten_steps(trainer)
    trainer.fit(classifier, data)
    weights = torch.cat([parameter.detach().flatten() for parameter in classifier.parameters()])
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return weights, [classifier.history, metrics, calls, trainer.fit_loop.state_dict()], trainer


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"logs_steps": False},
        {"onecycle": True, "gradient_clip_val": 0.1},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        {"ema": True, "precision": "bf16-mixed"},
        {"accumulate_grad_batches": 2},
        {"val_check_interval": 1},
        {"val_check_interval": 2, "check_val_every_n_epoch": None},
        {"check_val_every_n_epoch": 2},
        {"max_steps": 4, "max_epochs": -1},
        {"limit_train_batches": 2, "limit_val_batches": 0},
    ],
    ids=lambda options: ",".join(options) or "defaults",
)
def test_short_loop_does_what_lightnings_does(small_data, options):
    weights, left, _ = trained(small_data, short=False, **options)
    own_weights, own_left, trainer = trained(small_data, short=True, **options)
    assert isinstance(trainer.fit_loop.epoch_loop, EpochLoop)
    assert torch.equal(own_weights, weights)
    for own, lightnings in zip(own_left, left, strict=True):
        assert own == lightnings
    names = {call[0] for call in own_left[2]}
    assert {"on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end", "module"} <= names


def test_module_ends_the_epoch(small_data, monkeypatch):
    monkeypatch.setattr(
        Recording, "on_train_batch_start", lambda self, batch, batch_idx: -1 if batch_idx else None, False
    )
    weights, left, _ = trained(small_data, short=False)
    own_weights, own_left, _ = trained(small_data, short=True)
    assert torch.equal(own_weights, weights)
    assert own_left == left
    assert [call[2] for call in left[2] if call[0] == "training_step"] == [0, 0]


def test_module_steps_the_optimizer_itself(small_data, monkeypatch):
    def optimizer_step(self, epoch, batch_idx, optimizer, closure):
        self.calls.append(("optimizer_step", epoch, batch_idx))
        optimizer.step(closure)

    monkeypatch.setattr(Recording, "optimizer_step", optimizer_step)
    weights, left, _ = trained(small_data, short=False)
    own_weights, own_left, _ = trained(small_data, short=True)
    assert torch.equal(own_weights, weights)
    assert own_left == left
    assert ("optimizer_step", 1, 2) in left[2]
