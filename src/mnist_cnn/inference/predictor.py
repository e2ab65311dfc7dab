"""A trained network applied to prepared digits, without a trainer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_cnn.errors import UserError
from mnist_cnn.export import load_network
from mnist_cnn.export.exported import Function
from mnist_cnn.preparation.finding import NothingFound, prepare
from mnist_cnn.preparation.image_files import UnreadableImage
from mnist_cnn.preparation.loading import load_picture

BATCH = 500  # images at a time, fewer where they are large
BATCH_BYTES = 25_000_000
THUMBNAIL = 256  # pixels of the longer side of an original that is kept for the picture


@dataclass
class Reading:
    """What was read in a file: N digits, or `error`, which says why there are none."""

    file: Path
    original: NDArray[Any] = field(default_factory=lambda: np.zeros((1, 1, 3), np.uint8))  # uint8 (H, W, 3)
    digits: NDArray[Any] = field(default_factory=lambda: np.zeros((0, 1, 28, 28), np.uint8))
    scores: NDArray[Any] = field(default_factory=lambda: np.zeros((0, 1), np.float32))  # (N, K)
    others: int = 0  # how many more digits `split` would read
    error: str | None = None


@dataclass(frozen=True)
class Predictor:
    """A network, its classes, and the form in which it takes images.

    `run` maps images uint8 (N, channels, size, size) to logits float32 (N, K), K being the number of classes.
    """

    run: Function
    classes: Sequence[str]
    channels: int
    size: int
    gives_probabilities: bool  # whether the softmax of the logits is what was trained

    @classmethod
    def load(cls, path: Path) -> "Predictor":
        """Return the network of a checkpoint (.ckpt), or of an ONNX or safetensors file of export.py.

        It runs on the CPU. For ONNX, neither torch nor Lightning is imported. Raises `UserError` where the
        file cannot be read.
        """
        if path.suffix == ".ckpt":
            return cls._of_checkpoint(path)
        network = load_network(path)
        about = network.description
        return cls(network.run, about.classes, about.in_channels, about.image_size, about.gives_probabilities)

    @classmethod
    def _of_checkpoint(cls, path: Path) -> "Predictor":
        from mnist_cnn.export.network import ByteNetwork, as_function
        from mnist_cnn.training import loading

        classifier = loading.load_classifier(path)
        data = classifier.config["data"]
        classes = data["classes"] or range(data["num_classes"])
        return cls(
            as_function(ByteNetwork(classifier, data["mean"], data["std"])),
            [str(name) for name in classes],
            data["in_channels"],
            int(getattr(classifier.network, "image_size", data["image_size"])),
            classifier.gives_probabilities,
        )

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the scores of each class (N, K) for images (N, C, H, W), N being at least 1.

        They are probabilities where the network was trained with cross-entropy, otherwise its outputs.
        """
        size = max(1, min(BATCH, BATCH_BYTES // (self.channels * self.size**2)))
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
        if images.shape[1:] == (self.channels, self.size, self.size):
            return images
        import torch

        from mnist_cnn.data.images import convert

        return np.asarray(convert(torch.from_numpy(images), self.channels, self.size).numpy())

    def read(self, files: Sequence[Path], split: bool = False) -> list[Reading]:
        """Return what is read in each file, one digit or with `split` any number of them."""
        readings = list(_prepared(files, split))
        read = [reading for reading in readings if len(reading.digits)]
        if read:
            scores = self.scores(np.concatenate([reading.digits for reading in read]))
            ends = np.cumsum([len(reading.digits) for reading in read])
            for reading, part in zip(read, np.split(scores, ends[:-1]), strict=True):
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
            reading.digits, reading.others = prepare(picture.grey, split)
        except (UnreadableImage, NothingFound) as error:
            reading.error = str(error)
        yield reading
