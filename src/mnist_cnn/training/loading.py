"""Checkpoints, which are not trusted: their content, and the settings of their data."""

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mnist_cnn.errors import UserError, one_line, printable
from mnist_cnn.files import data_folder
from mnist_cnn.schema import Finite, ImageSize, Positive, Section, check

# Settings of the data that a network depends on.
IMAGE_FORM = ("mean", "std", "in_channels", "image_size", "prepare")

log = logging.getLogger(__name__)


class _Data(Section):
    source: dict[str, Any]
    mean: Finite | list[Finite]
    std: Positive | list[Positive]
    in_channels: Literal[1, 3]
    image_size: ImageSize
    num_classes: Annotated[int, Field(ge=1, le=1_000_000)]
    classes: list[str]
    prepare: Literal["resize", "digits"] = "resize"
    grey_values: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = None


class _Trainer(Section):
    precision: str | int = "auto"


class _CheckpointSettings(Section):
    """The settings in a checkpoint that its network is built from and its images are read by."""

    model: dict[str, Any]
    loss: dict[str, Any]
    metrics: dict[str, dict[str, Any]] = Field(default_factory=dict)
    data: _Data
    trainer: _Trainer = _Trainer()


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint of train.py with `weights_only=True`; raises `UserError` for any other file.

    A file that was changed after it was written is found by its checksums.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file.")  # to open a pipe can block
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not compare its checksums
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("wrong checksum")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.filename is not None:
            raise
        raise UserError(f"{path} cannot be read as a checkpoint: {error}.") from error
    except Exception as error:  # torch's unpickler raises whatever the broken bytes lead to
        # torch's own message advises to load it unsafely.
        raise UserError(
            f"{path} is not a readable checkpoint: it is damaged, or holds objects other than tensors and "
            "plain values. Give best.ckpt or last.ckpt of a run of train.py."
        ) from error
    if isinstance(checkpoint, dict):
        state, config = checkpoint.get("state_dict"), checkpoint.get("config")
        if isinstance(state, dict) and isinstance(config, dict):
            return checkpoint
    raise UserError(f"{path} is not a checkpoint of train.py: it holds no network and settings.")


def load_complete(path: Path) -> dict[str, Any]:
    """Read a checkpoint from which a classifier can be built, with all settings of its data.

    Raises `UserError` if they are not complete. Characters of class names that do not print are replaced.
    """
    checkpoint = load(path)
    config = checkpoint["config"]
    try:
        check(config, _CheckpointSettings)
    except UserError as error:
        raise UserError(f"{path} has no complete settings: {one_line(error)}") from error
    # Settings of one's own data may lack these.
    config["data"] = {"prepare": "resize", "grey_values": None} | config["data"]
    config["data"]["classes"] = [printable(name) for name in config["data"]["classes"]]
    return checkpoint


def data_dir(trained: Mapping[str, Any], given: str | None) -> str:
    """Return the folder of the images of a checkpoint with the data settings `trained`: `given`, or the
    one that data sets are downloaded to.

    The folder in the checkpoint may be that of another machine, and is not trusted. Raises `UserError` if
    none is given for images that are not downloaded.
    """
    kind = str(trained["source"].get("_target_")).rpartition(".")[2]
    if given is None and kind in ("ImageFolder", "ArrayFile"):
        raise UserError(
            f"The checkpoint was trained on images of your own ({kind}): give their folder, data.dir=PATH."
        )
    return given or data_folder()


def image_form(trained: Mapping[str, Any], given: Mapping[str, Any], other_classes: bool) -> dict[str, Any]:
    """Return the settings of the data that the network of a checkpoint depends on.

    Among them are its classes, unless `other_classes` allows data with classes of other names; otherwise such
    data is refused with `UserError`. If images of the data that is given would be prepared in another way, a
    message says so.
    """
    if given.get("prepare", trained["prepare"]) != trained["prepare"]:
        log.info("images are prepared as for the training: data.prepare=%s", trained["prepare"])
    form = {name: trained[name] for name in IMAGE_FORM}
    unknown = [name for name in given.get("classes", []) if name not in trained["classes"]]
    if not unknown:
        return form | {name: trained[name] for name in ("classes", "num_classes")}
    if not other_classes:
        raise UserError(
            f"The data holds the class {printable(unknown[0])}, which is none of those of the checkpoint: "
            f"{', '.join(trained['classes'])}. Give data of the same classes, train a network for these with "
            "init_from=PATH, or compare the classes by their numbers with other_classes=true."
        )
    if len(given["classes"]) != len(trained["classes"]):
        raise UserError(
            f"other_classes=true: the checkpoint was trained for {len(trained['classes'])} classes, but the "
            f"data has {len(given['classes'])}."
        )
    return form


def initialize_from(network: nn.Module, path: Path, data: Mapping[str, Any]) -> None:
    """Copy the weights of a checkpoint into `network`, to train it on `data`, the settings of the data.

    If the classes differ, in their names or their order, the last layer keeps its initial values, with a
    warning. Another warning names settings by which the images look different to the network. Raises
    `UserError` if other layers differ, since it is another network then.
    """
    prefix = "network."
    checkpoint = load(path)
    state = checkpoint["state_dict"]
    defaults = {"prepare": "resize", "classes": None}  # settings of one's own data may lack these
    trained, data = defaults | checkpoint["config"].get("data", {}), defaults | dict(data)
    changed = [
        f"data.{name}={trained[name]}"
        for name in ("prepare", "mean", "std")
        if name in trained and trained[name] != data[name]
    ]
    if changed:
        log.warning(
            f"init_from={path} was trained with {' '.join(changed)}: with other settings the images look "
            "different to the network."
        )
    saved: dict[str, Tensor] = {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
    own = network.state_dict()
    outputs = [name for name, value in own.items() if value.ndim > 1 and len(value) == data["num_classes"]]
    last_layer = (outputs or list(own))[-1].rpartition(".")[0]  # a layer may be made before it is used
    same_classes = trained["classes"] == data["classes"]
    fits = {
        name: saved[name]
        for name in own
        if name in saved
        and saved[name].shape == own[name].shape
        and (same_classes or name.rpartition(".")[0] != last_layer)
    }
    new = [name for name in own if name not in fits]
    others = [name for name in new if name.rpartition(".")[0] != last_layer]
    if others or saved.keys() != own.keys():
        differing = others or sorted(saved.keys() ^ own.keys())
        raise UserError(
            f"init_from={path} holds another network: {', '.join(differing[:4])} differ. Choose the "
            "model and the image size that it was trained with; only the last layer may differ."
        )
    network.load_state_dict(own | fits)
    if new:
        log.warning(f"init_from={path} has other classes: the last layer, {last_layer}, starts anew.")
