"""Lightning's own callbacks in train.py: what they do is in the result, or they are refused."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from mnist_cnn.app.settings import REFUSED_CALLBACKS
from mnist_cnn.data import ImageData
from mnist_cnn.models import SimpleCNN
from mnist_cnn.training.checkpoints import save_epochs
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.trainer import build_trainer

SHOWN = {"ModelSummary", "RichModelSummary", "RichProgressBar", "TQDMProgressBar"}  # see test_trainer.py


def trained(folder: Path, data: ImageData, *added: L.Callback) -> Classifier:
    """Train two epochs as train.py does."""
    torch.manual_seed(0)
    classifier = Classifier(
        SimpleCNN(), nn.CrossEntropyLoss(), 10, lambda parameters: torch.optim.SGD(parameters, lr=0.1)
    )
    options = {"max_epochs": 2, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1}
    saving = save_epochs(folder, None)
    trainer = build_trainer(options, folder, [*added, *saving], [CSVLogger(folder, "", "")])
    trainer.fit(classifier, data)
    return classifier


def saved_weights(folder: Path) -> torch.Tensor:
    """Return the weights of last.ckpt, which are those that are tested."""
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return torch.cat([value.flatten() for value in state.values()])


@pytest.mark.parametrize(
    "callback",
    [
        lambda: callbacks.EarlyStopping("val/loss", stopping_threshold=100.0),
        lambda: callbacks.Timer({"seconds": 0}),  # before the first epoch
    ],
    ids=["EarlyStopping", "Timer"],
)
def test_training_ends_early(
    callback: Callable[[], L.Callback], tmp_path: Path, small_data: ImageData
) -> None:
    assert len(trained(tmp_path, small_data, callback()).history) < 2


def test_what_callbacks_write_is_there(tmp_path: Path, small_data: ImageData) -> None:
    ends: list[int] = []
    added = (
        callbacks.ModelCheckpoint(monitor="val/loss", filename="mine"),
        callbacks.DeviceStatsMonitor(cpu_stats=True),
        callbacks.LambdaCallback(on_train_end=lambda trainer, module: ends.append(trainer.global_step)),
    )
    trained(tmp_path, small_data, *added)
    assert (tmp_path / "checkpoints" / "mine.ckpt").is_file()
    assert "DeviceStatsMonitor" in (tmp_path / "metrics.csv").read_text()
    assert ends == [6]


def test_averaged_weights_are_tested(tmp_path: Path, small_data: ImageData) -> None:
    trained(tmp_path / "plain", small_data)
    trained(tmp_path / "averaged", small_data, callbacks.WeightAveraging())
    assert not torch.equal(saved_weights(tmp_path / "plain"), saved_weights(tmp_path / "averaged"))


def test_every_other_callback_is_refused() -> None:
    working = {"EarlyStopping", "Timer", "ModelCheckpoint", "DeviceStatsMonitor", "LambdaCallback"}
    assert {*callbacks.__all__} - {*working, *SHOWN, "WeightAveraging"} == {*REFUSED_CALLBACKS}
