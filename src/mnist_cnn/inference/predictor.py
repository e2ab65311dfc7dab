"""A trained network applied to prepared digits, without a trainer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mnist_cnn.data.images import convert
from mnist_cnn.inference.finding import NothingFound, prepare
from mnist_cnn.inference.loading import UnreadableImage, load_picture
from mnist_cnn.training import checkpoints
from mnist_cnn.training.classifier import Classifier

BATCH = 500  # images at a time


THUMBNAIL = 256  # pixels of the longer side of an original that is kept for the picture


@dataclass
class Reading:
    """What was read in a file: N digits, or `error`, which says why there are none."""

    file: Path
    original: NDArray[Any] = field(default_factory=lambda: np.zeros((1, 1, 3), np.uint8))  # uint8 (H, W, 3)
    digits: NDArray[Any] = field(default_factory=lambda: np.zeros((0, 1, 28, 28), np.uint8))
    scores: Tensor = field(default_factory=lambda: torch.zeros(0, 1))  # (N, K)
    error: str | None = None


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

    def read(self, files: Sequence[Path], split: bool = False) -> list[Reading]:
        """Return what is read in each file, one digit or with `split` any number of them."""
        readings = list(_prepared(files, split))
        read = [reading for reading in readings if len(reading.digits)]
        if read:
            scores = self.scores(torch.from_numpy(np.concatenate([reading.digits for reading in read])))
            for reading, part in zip(read, scores.split([len(r.digits) for r in read]), strict=True):
                reading.scores = part
        return readings


def _prepared(files: Sequence[Path], split: bool) -> Iterator[Reading]:
    for file in files:
        reading = Reading(file)
        try:
            picture = load_picture(file)
            small = Image.fromarray(picture.rgb)
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            reading.original = np.asarray(small)
            reading.digits = prepare(picture.grey, split)
        except (UnreadableImage, NothingFound) as error:
            reading.error = str(error)
        yield reading
