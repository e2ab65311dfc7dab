"""A short training on noise with the callbacks and loggers of train.py."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from torch import nn

from mnist_cnn.data import ImageData
from mnist_cnn.models import SimpleCNN
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.schedule import Schedule


class Recorder(Logger):
    """A logger that keeps what it is given, of the kind that has `log_image`."""

    name = version = "recorder"

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[tuple[int | None, dict[str, float]]] = []
        self.images: list[tuple[int, str]] = []

    def log_hyperparams(self, params: Any) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.metrics.append((step, dict(metrics)))

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        assert all(image.ndim == 3 for image in images)
        self.images.append((step, key))


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01)


def make_trainer(
    callbacks: Sequence[L.Callback], loggers: Sequence[Logger] = (), **options: Any
) -> L.Trainer:
    return L.Trainer(
        **({"accelerator": "cpu", "max_epochs": 2, "enable_checkpointing": False} | options),
        callbacks=list(callbacks),
        logger=list(loggers) or False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def make_classifier(
    schedule: Schedule | None = None, network: Callable[[], nn.Module] = SimpleCNN
) -> Classifier:
    L.seed_everything(0, verbose=False)
    return Classifier(network(), nn.CrossEntropyLoss(), 10, sgd, schedule)


def fit(
    data: ImageData,
    callbacks: Sequence[L.Callback],
    loggers: Sequence[Logger] = (),
    schedule: Schedule | None = None,
    network: Callable[[], nn.Module] = SimpleCNN,
    **options: Any,
) -> tuple[Classifier, L.Trainer]:
    classifier = make_classifier(schedule, network)
    trainer = make_trainer(callbacks, loggers, **options)
    trainer.fit(classifier, data)
    return classifier, trainer
