"""The network of a checkpoint with its normalization: bytes to logits."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hydra_sweeps import METRICS
from mnist_cnn.export.exported import Description, Function, Images, Logits, PerChannel
from mnist_cnn.training import building, loading
from mnist_cnn.training.classifier import Classifier


class ByteNetwork(nn.Module):
    """A network with its normalization, for inference: images uint8 (B, C, H, W) to logits float32 (B, K).

    The pixels are divided by 255 and normalized as (x - mean) / std, as in `ImageData.normalize`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: PerChannel, std: PerChannel) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))
        self.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(torch.float32) / 255
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits


def load_trained(path: Path, trusted: Sequence[str] = ()) -> tuple[ByteNetwork, Description]:
    """Return the network of a checkpoint, with layers of torch, and its description.

    Classes of the packages in `trusted` can be built, too.
    """
    classifier = Classifier.load_from_checkpoint(path, trusted)
    epochs = int(loading.load(path)["epoch"]) + 1
    config = classifier.config
    data, model = config["data"], dict(config["model"])
    network = classifier.network
    if model.get("layers") == "handmade":  # the same parameters, in operations that every format has
        model["layers"] = "torch"
        network = building.build(model, nn.Module, trusted)
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
        data=data["source"]["_target_"].rpartition(".")[2],
        loss=config["loss"]["_target_"].rpartition(".")[2],
        seed=config.get("seed"),
        epochs=epochs,
        metrics=read_metrics(path, epochs),
        mnist_cnn_version=version("mnist-cnn"),
    )
    return ByteNetwork(network, description.mean, description.std), description


def as_function(network: nn.Module) -> Function:
    """Return `network` as a function of NumPy arrays."""

    @torch.inference_mode()
    def run(images: Images) -> Logits:
        return np.asarray(network(torch.from_numpy(images)).numpy())

    return run


def read_metrics(path: Path, epochs: int) -> dict[str, float]:
    """Return the metrics of the run that the checkpoint at `path` belongs to, if they are of its epoch."""
    try:
        metrics = json.loads((path.absolute().parent.parent / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    # The best epoch is another one for last.ckpt; the file of another program can hold anything.
    if not isinstance(metrics, dict) or metrics.get("best_epoch") != epochs:
        return {}
    return {name: float(value) for name, value in metrics.items() if name.startswith(("val/", "test/"))}
