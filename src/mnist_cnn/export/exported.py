"""A network in an exported file, and its description. Imports neither torch nor Lightning."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import Self

from mnist_cnn.errors import UserError, printable
from mnist_cnn.schema import Finite

PerChannel = Finite | list[Finite]  # one number for all channels, or one for each

Images = NDArray[np.uint8]  # (B, C, S, S)
Logits = NDArray[np.float32]  # (B, K), K being the number of classes
Function = Callable[[Images], Logits]


class Description(BaseModel):
    """The input, the classes and the training of a network: the metadata of every exported file.

    The network maps images uint8 (B, in_channels, image_size, image_size) to logits float32
    (B, len(classes)). `metrics` are those of the checkpoint's epoch; there are none if the run has not
    written its metrics.json.
    """

    model_config = ConfigDict(strict=True)

    model: dict[str, Any]  # `_target_` and arguments of the network
    parameters: int
    classes: Annotated[list[str], Field(min_length=1)]
    in_channels: Literal[1, 3]
    image_size: Annotated[int, Field(ge=1, le=2048)]
    mean: PerChannel  # of the pixels divided by 255, as is std
    std: PerChannel
    prepare: Literal["resize", "digits"]  # how image files become images, as in training
    grey_values: list[Finite] | None  # black and white of image files with more than 8 bits
    gives_probabilities: bool  # whether the network was trained on the softmax of its logits
    data: str
    loss: str
    seed: int | None
    epochs: int
    metrics: dict[str, float]
    mnist_cnn_version: str

    @field_validator("classes")
    @classmethod
    def make_printable(cls, names: list[str]) -> list[str]:
        """Replace characters that would control the terminal."""
        return [printable(name) for name in names]

    @property
    def network_name(self) -> str:
        """The class of the network."""
        return str(self.model.get("_target_", "")).rpartition(".")[2]

    def to_strings(self) -> dict[str, str]:
        """Return the fields as JSON texts by name, for formats whose metadata are strings."""
        return {name: json.dumps(value) for name, value in self.model_dump().items()}

    @classmethod
    def from_strings(cls, strings: Mapping[str, str], path: Path) -> Self:
        """Read what `to_strings` returned; raises `UserError` that names `path` for anything else."""
        try:
            known = {name: json.loads(strings[name]) for name in cls.model_fields if name in strings}
            return cls.model_validate(known)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path} does not describe its network as a file of export.py does. Export the checkpoint "
                f"again: python export.py ckpt=PATH format={path.suffix.removeprefix('.')}"
            ) from error


@dataclass(frozen=True)
class ExportedNetwork:
    """The network of an exported file as a function, whatever the format, and its description."""

    description: Description
    run: Function
