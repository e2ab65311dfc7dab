"""A trained network applied to prepared digits, without a trainer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mnist_cnn.data.images import convert
from mnist_cnn.training import checkpoints
from mnist_cnn.training.classifier import Classifier

BATCH = 500  # images at a time


@dataclass
class Predictor:
    """A classifier and the form in which it takes images."""

    classifier: Classifier
    classes: Sequence[str]
    channels: int
    size: int
    mean: Tensor
    std: Tensor

    @classmethod
    def load(cls, path: Path) -> "Predictor":
        """Build the network of a checkpoint, on the CPU; raises `UserError` where it cannot be read."""
        classifier = checkpoints.load_classifier(path)
        data = classifier.config["data"]
        size = int(getattr(classifier.network, "image_size", data["image_size"]))
        mean, std = (torch.tensor(data[name], dtype=torch.float32).view(-1, 1, 1) for name in ("mean", "std"))
        classes = data["classes"] or [str(label) for label in range(data["num_classes"])]
        return cls(classifier, [str(name) for name in classes], data["in_channels"], size, mean, std)

    @torch.inference_mode()
    def scores(self, images: Tensor) -> Tensor:
        """Return the scores of each class (N, K) for uint8 images (N, C, H, W).

        They are probabilities where the network was trained with cross-entropy, otherwise its outputs.
        """
        converted = convert(images, self.channels, self.size)
        parts = []
        for batch in converted.split(BATCH):
            normalized = (batch.float() / 255 - self.mean) / self.std
            parts.append(self.classifier(normalized.contiguous(memory_format=torch.channels_last)))
        return self.classifier.scores(torch.cat(parts))
