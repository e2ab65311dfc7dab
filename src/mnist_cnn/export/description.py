"""What an exported file says about its network. Imports neither torch nor Lightning."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from mnist_cnn.errors import UserError

PerChannel = float | list[float]


class Description(BaseModel):
    """The input, the classes and the training of a network: the metadata of every exported file.

    The network maps images uint8 (B, in_channels, image_size, image_size) to logits float32
    (B, len(classes)). `metrics` are those of the checkpoint's epoch, where the run has written its
    metrics.json.
    """

    model_config = ConfigDict(strict=True)

    model: dict[str, Any]  # `_target_` and arguments, from which `checkpoints.build` builds the network
    parameters: int
    classes: list[str]
    in_channels: int
    image_size: int
    mean: PerChannel  # of the pixels divided by 255, as is std
    std: PerChannel
    gives_probabilities: bool  # whether the softmax of the logits is what was trained
    data: str
    loss: str
    seed: int | None
    epochs: int
    metrics: dict[str, float]
    mnist_cnn_version: str

    @property
    def network_name(self) -> str:
        """The class of the network."""
        return str(self.model["_target_"]).rpartition(".")[2]

    def to_strings(self) -> dict[str, str]:
        """Return the fields as JSON texts by name, for formats whose metadata are strings."""
        return {name: json.dumps(value) for name, value in self.model_dump().items()}

    @classmethod
    def from_strings(cls, strings: Mapping[str, str], path: Path) -> Self:
        """Read what `to_strings` gave; raises `UserError` that names `path` for anything else."""
        try:
            known = {name: json.loads(strings[name]) for name in cls.model_fields if name in strings}
            return cls.model_validate(known)
        except (json.JSONDecodeError, ValidationError) as error:
            raise UserError(
                f"{path} does not describe its network as a file of export.py does. Export the checkpoint "
                f"again: python export.py ckpt=PATH format={path.suffix.removeprefix('.')}"
            ) from error


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Raise `UserError` that names the extra to install where an import in the block fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"format={extra} needs the package {error.name}. Install it with: pip install -e '.[{extra}]'"
        ) from error
