"""What an exported file says about its network. Imports neither torch nor Lightning."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import Self

from mnist_cnn.errors import UserError, printable
from mnist_cnn.schema import Finite
from mnist_cnn.training.loading import ImageSize

PerChannel = Finite | list[Finite]


class Description(BaseModel):
    """The input, the classes and the training of a network: the metadata of every exported file.

    The network maps images uint8 (B, in_channels, image_size, image_size) to logits float32
    (B, len(classes)). `metrics` are those of the checkpoint's epoch, where the run has written its
    metrics.json.
    """

    model_config = ConfigDict(strict=True)

    model: dict[str, Any]  # `_target_` and arguments, from which `loading.build` builds the network
    parameters: int
    classes: Annotated[list[str], Field(min_length=1)]
    in_channels: Literal[1, 3]
    image_size: ImageSize
    mean: PerChannel  # of the pixels divided by 255, as is std
    std: PerChannel
    prepare: Literal["resize", "digits"]  # how image files become images, as in training
    grey_values: list[Finite] | None  # black and white of image files with more than 8 bits
    gives_probabilities: bool  # whether the softmax of the logits is what was trained
    data: str
    loss: str
    seed: int | None
    epochs: int
    metrics: dict[str, float]
    mnist_cnn_version: str

    @field_validator("classes")
    @classmethod
    def _do_not_control_the_terminal(cls, names: list[str]) -> list[str]:
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
        """Read what `to_strings` gave; raises `UserError` that names `path` for anything else."""
        try:
            known = {name: json.loads(strings[name]) for name in cls.model_fields if name in strings}
            return cls.model_validate(known)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path} does not describe its network as a file of export.py does. Export the checkpoint "
                f"again: python export.py ckpt=PATH format={path.suffix.removeprefix('.')}"
            ) from error


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Raise `UserError` that names the extra to install where an import in the block fails."""
    install = f"pip install -e '.[{extra}]'"
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"The format {extra} needs the package {error.name}. Install it with: {install}"
        ) from error
    except ImportError as error:
        raise UserError(
            f"The format {extra} cannot use its packages: {printable(str(error))}. Install them again with: "
            f"{install}"
        ) from error
