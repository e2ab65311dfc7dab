"""A trained network applied to image files, without a trainer."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_cnn.errors import UserError
from mnist_cnn.export import load_network
from mnist_cnn.export.exported import Function
from mnist_cnn.preparation.finding import NothingFound
from mnist_cnn.preparation.grey_values import find_grey_values
from mnist_cnn.preparation.image_files import UnreadableImage
from mnist_cnn.preparation.prepare import Preparation

log = logging.getLogger(__name__)

BATCH = 500  # images at a time, fewer where they are large
BATCH_BYTES = 25_000_000
THUMBNAIL = 160  # pixels of the longer side of an original that is kept to be shown


@dataclass
class Reading:
    """What was read in a file: N images for the network, or `error`, which says why there are none."""

    file: Path
    # uint8 (H, W, 3) or (H, W)
    original: NDArray[Any] = field(default_factory=lambda: np.zeros((1, 1, 3), np.uint8))
    images: NDArray[Any] = field(default_factory=lambda: np.zeros((0, 1, 28, 28), np.uint8))  # (N, C, H, W)
    scores: NDArray[Any] = field(default_factory=lambda: np.zeros((0, 1), np.float32))  # (N, K)
    others: int = 0  # how many more digits `split` would read
    error: str | None = None


@dataclass(frozen=True)
class Predictor:
    """A network, its classes, and the preparation of its images.

    `run` maps images uint8 (N, C, S, S) to logits float32 (N, K), K being the number of classes, and C and S
    the channels and the size of the preparation.
    """

    run: Function
    classes: Sequence[str]
    preparation: Preparation
    gives_probabilities: bool  # whether the softmax of the logits is what was trained

    @classmethod
    def load(cls, path: Path, trusted: Sequence[str] = ()) -> "Predictor":
        """Return the network of a checkpoint (.ckpt), or of an ONNX or safetensors file of export.py.

        It runs on the CPU. For ONNX, neither torch nor Lightning is imported. A checkpoint builds only
        classes of this project, its libraries and the packages in `trusted`. Raises `UserError` if the file
        cannot be read.
        """
        if path.suffix == ".ckpt":
            return cls._of_checkpoint(path, trusted)
        network = load_network(path)
        about = network.description
        preparation = Preparation(about.prepare, about.in_channels, about.image_size, about.grey_values)
        return cls(network.run, about.classes, preparation, about.gives_probabilities)

    @classmethod
    def _of_checkpoint(cls, path: Path, trusted: Sequence[str]) -> "Predictor":
        from mnist_cnn.export.network import ByteNetwork, as_function
        from mnist_cnn.training.classifier import Classifier

        classifier = Classifier.load_from_checkpoint(path, trusted)
        data = classifier.config["data"]
        preparation = Preparation(
            data["prepare"],
            data["in_channels"],
            getattr(classifier.network, "image_size", data["image_size"]),
            data["grey_values"],
        )
        run = as_function(ByteNetwork(classifier, data["mean"], data["std"]))
        return cls(run, data["classes"], preparation, classifier.gives_probabilities)

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the scores of each class (N, K) for images (N, C, H, W), N being at least 1.

        They are probabilities where the network was trained with cross-entropy, otherwise its outputs.
        """
        size = max(1, min(BATCH, BATCH_BYTES // (self.preparation.channels * self.preparation.size**2)))
        starts = range(0, len(images), size)
        parts = [self.run(self._converted(images[i : i + size])) for i in starts]
        fits = all(part.shape[1:] == (len(self.classes),) and np.isfinite(part).all() for part in parts)
        if not fits or sum(map(len, parts)) != len(images):
            raise UserError(
                f"Expected finite logits of shape ({len(images)}, {len(self.classes)}) from the network: the "
                "file is damaged or was not written by export.py; export it again."
            )
        logits = np.concatenate(parts)
        if not self.gives_probabilities:
            return logits
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True))

    def _converted(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        channels, size = self.preparation.channels, self.preparation.size
        if images.shape[1:] == (channels, size, size):
            return images
        import torch

        from mnist_cnn.data.images import convert

        return np.asarray(convert(torch.from_numpy(images), channels, size).numpy())

    def read(self, files: Sequence[Path], split: bool = False) -> list[Reading]:
        """Return what is read in each file: a class, or with `split` any number of digits."""
        preparation = self._for_files(files)
        readings = [_prepared(file, preparation, split) for file in files]
        read = [reading for reading in readings if len(reading.images)]
        if read:
            scores = self.scores(np.concatenate([reading.images for reading in read]))
            ends = np.cumsum([len(reading.images) for reading in read])
            for reading, part in zip(read, np.split(scores, ends[:-1]), strict=True):
                reading.scores = part
        return readings

    def _for_files(self, files: Sequence[Path]) -> Preparation:
        """Return the preparation with the grey values of the training, or of files that exceed these."""
        found, trained = find_grey_values(files), self.preparation.grey_values
        if found is None or (trained is not None and trained[0] <= found[0] and found[1] <= trained[1]):
            return self.preparation
        log.info("images of more than 8 bits: black is %g, white is %g", *found)
        return replace(self.preparation, grey_values=found)


def _prepared(file: Path, preparation: Preparation, split: bool) -> Reading:
    reading = Reading(file)
    try:
        prepared = preparation.read(file, split)
    except (UnreadableImage, NothingFound) as error:
        reading.error = str(error)
        return reading
    prepared.original.thumbnail((THUMBNAIL, THUMBNAIL))
    reading.original = np.asarray(prepared.original)
    reading.images, reading.others = prepared.images, prepared.others
    return reading
