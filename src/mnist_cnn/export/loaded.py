"""A network out of an exported file, whatever its format."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_cnn.errors import UserError
from mnist_cnn.export.description import Description

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class LoadedNetwork:
    """Maps images uint8 (B, C, S, S) to logits float32 (B, K), K being the number of classes.

    `description` has the classes, and C and S as `in_channels` and `image_size`.
    """

    description: Description
    run: Run

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.run(images)


def load_network(path: Path) -> LoadedNetwork:
    """Return the network of a file that export.py has written as ONNX or safetensors.

    For ONNX, only onnxruntime is imported, not torch. Raises `UserError` for other files, also those of
    torch.export: loading them can run code that the file brings.
    """
    if path.suffix == ".onnx":
        from mnist_cnn.export import onnx

        return onnx.load(path)
    if path.suffix == ".safetensors":
        from mnist_cnn.export import safetensors

        return safetensors.load(path)
    raise UserError(
        f"{path} is not a network to load: give a checkpoint (.ckpt), or a file that export.py wrote "
        "with format=onnx or format=safetensors."
    )
