"""The network of a checkpoint together with its normalization: bytes to logits."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hydra_sweeps import METRICS
from mnist_cnn.export.description import Description, PerChannel
from mnist_cnn.export.loaded import Run
from mnist_cnn.training import loading


class ByteNetwork(nn.Module):
    """Maps images uint8 (B, C, H, W) to logits float32 (B, K): a network after its normalization.

    The pixels are divided by 255 and normalized as (x - mean) / std, as in `ImageData.normalize`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: PerChannel, std: PerChannel) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(torch.float32) / 255
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits


def load_trained(path: Path) -> tuple[ByteNetwork, Description]:
    """Return the network of a checkpoint, in evaluation mode with layers of torch, and its description."""
    classifier = loading.load_classifier(path)
    epochs = int(loading.load(path)["epoch"]) + 1
    config = classifier.config
    data, model = config["data"], dict(config["model"])
    network = classifier.network
    if model.get("layers") == "handmade":  # the same parameters, in operations that every format has
        model["layers"] = "torch"
        network = loading.build(model, nn.Module)
        network.load_state_dict(classifier.network.state_dict())
    description = Description(
        model=model,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        classes=list(data["classes"]),
        in_channels=data["in_channels"],
        image_size=getattr(network, "image_size", data["image_size"]),
        mean=data["mean"],
        std=data["std"],
        prepare=data["prepare"],
        grey_values=data["grey_values"],
        gives_probabilities=classifier.gives_probabilities,
        data=_class_name(data["source"]),
        loss=_class_name(config["loss"]),
        seed=config.get("seed"),
        epochs=epochs,
        metrics=_metrics(path, epochs),
        mnist_cnn_version=version("mnist-cnn"),
    )
    return byte_network(network, description), description


def byte_network(network: nn.Module, description: Description) -> ByteNetwork:
    """Return `network` after the normalization of `description`, in evaluation mode."""
    whole = ByteNetwork(network, description.mean, description.std)
    return whole.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def runner(network: nn.Module) -> Run:
    """Return `network` as a function of arrays: images uint8 (B, C, S, S) -> logits float32 (B, K)."""

    @torch.inference_mode()
    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(network(torch.from_numpy(images)).numpy())

    return run


def _class_name(settings: dict[str, str]) -> str:
    return settings["_target_"].rpartition(".")[2]


def _metrics(path: Path, epochs: int) -> dict[str, float]:
    """Return the metrics in the run's metrics.json if they are those of the checkpoint's epoch."""
    try:
        metrics = json.loads((path.absolute().parent.parent / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    # Another epoch: last.ckpt of a run whose best epoch was an earlier one. No dict: of another program.
    if not isinstance(metrics, dict) or metrics.get("best_epoch") != epochs:
        return {}
    return {name: float(value) for name, value in metrics.items() if name.startswith(("val/", "test/"))}
