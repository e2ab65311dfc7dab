"""Checkpoints of small runs, made without training."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn

from mnist_cnn.training import building
from mnist_cnn.training.classifier import Classifier

MODELS: dict[str, dict[str, Any]] = {
    "simple": {"_target_": "mnist_cnn.models.SimpleCNN"},
    "cnnnet": {"_target_": "mnist_cnn.models.CnnNet", "num_classes": 3, "layers": "handmade"},
    "resnet18": {"_target_": "torchvision.models.resnet18", "num_classes": 10},
    "mobilenet": {"_target_": "torchvision.models.mobilenet_v3_small", "num_classes": 10},
}


def save(
    folder: Path,
    model: str,
    network: nn.Module | None = None,
    loss: str = "torch.nn.CrossEntropyLoss",
    **data: Any,
) -> Path:
    """Write a checkpoint and return its path.

    It holds `network`, or an untrained one with statistics in its batch norms. `data` are changes of the
    settings of the data.
    """
    settings = MODELS[model]
    classes = settings.get("num_classes", 10)
    colours = settings["_target_"].startswith("torchvision")
    config = {
        "model": settings,
        "loss": {"_target_": loss},
        "seed": 3,
        "data": {
            "_target_": "mnist_cnn.data.ImageData",
            "source": {"_target_": "mnist_cnn.data.MNIST"},
            "dir": str(folder / "nowhere"),
            "batch_size": 4,
            "val_size": 0,
            "mean": 0.25,
            "std": [0.5, 0.25, 0.125] if colours else 0.5,
            "in_channels": 3 if colours else 1,
            "image_size": 28,
            "prepare": "digits",
            "grey_values": None,
            "num_classes": classes,
            "classes": [f"class {label}" for label in range(classes)],
        }
        | data,
    }
    torch.manual_seed(0)
    network = network or building.build(settings, nn.Module)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    classifier = Classifier(network, nn.CrossEntropyLoss(), classes, config=config)
    path = folder / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"state_dict": classifier.state_dict(), "config": config, "epoch": 1, "history": []}
    torch.save(state | {"pytorch-lightning_version": L.__version__}, path)
    return path
