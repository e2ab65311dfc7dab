"""A checkpoint of an untrained network, in the form in which train.py writes it."""

from pathlib import Path

import torch

from mnist_cnn import models
from mnist_cnn.training.classifier import Classifier


def write_checkpoint(
    path: Path,
    model: str = "SimpleCNN",
    channels: int = 1,
    loss: str = "torch.nn.CrossEntropyLoss",
    prepare: str = "digits",
    **settings: int,
) -> Path:
    torch.manual_seed(0)
    network = getattr(models, model)(in_channels=channels, **settings)
    config = {
        "model": {"_target_": f"mnist_cnn.models.{model}", "in_channels": channels, **settings},
        "loss": {"_target_": loss},
        "data": {
            "source": {"_target_": "mnist_cnn.data.MNIST"},
            "mean": 0.5,
            "std": 0.5,
            "in_channels": channels,
            "image_size": 28,
            "prepare": prepare,
            "grey_values": None,
            "num_classes": 10,
            "classes": [str(digit) for digit in range(10)],
        },
    }
    classifier = Classifier(network, torch.nn.CrossEntropyLoss(), 10)
    torch.save({"state_dict": classifier.state_dict(), "config": config, "history": []}, path)
    return path
