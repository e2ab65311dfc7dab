"""Networks and classifiers built from checkpoints, which are not trusted."""

import inspect
import logging
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args

import torch
import torchvision.models
from pydantic import Field
from torch import Tensor, nn
from torchmetrics import Metric

from mnist_cnn.data import Source
from mnist_cnn.errors import UserError, printable
from mnist_cnn.files import data_folder
from mnist_cnn.models.ensemble import Ensemble
from mnist_cnn.schema import Finite, ImageSize, Positive, Section, check
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.trust import check_target, is_trusted

# Settings of the data that a network depends on.
IMAGE_FORM = ("mean", "std", "in_channels", "image_size", "prepare")
SLACK = 10_000_000  # numbers that take no notable memory; whether they fit is checked later
MAX_METRIC_NUMBERS = 10_000_000  # of the state of a metric, such as a matrix of 3,000 classes
PARTS = (nn.Module, Tensor, Source)  # what may be built as an argument
HYDRA_KEYS = ("_target_", "_args_", "_partial_", "_convert_", "_recursive_")  # that are no arguments

Kind = TypeVar("Kind")

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
        raise UserError(
            f"{path} is not a regular file."
        )  # to open a pipe can block, and a device may never end
    try:
        _check_archive(path)
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


def _check_archive(path: Path) -> None:
    """Raise `BadZipFile` unless `path` is what torch.save writes, with the CRC-32 of each member right.

    torch.load does not compare them. Members are not compressed, so that they need no more memory than the
    file has.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise zipfile.BadZipFile("compressed")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise zipfile.BadZipFile("members overlap")
        if archive.testzip() is not None:
            raise zipfile.BadZipFile("wrong checksum")


def build(
    settings: Mapping[str, Any],
    kind: type[Kind],
    trusted: Sequence[str] = (),
    setting: str | None = None,
    **more: Any,
) -> Kind:
    """Build the object that `settings` names in `_target_`, with its other items and `more` as arguments.

    Networks, layers and tensors among the arguments are built from their own `_target_`. Numbers in a list
    become a float32 tensor where a tensor is wanted, as for the weights of a loss.
    Raises `UserError` unless `_target_` is a class of kind `kind` of this project, its libraries or a package
    in `trusted`, a function of such a package, or a network of torchvision, that takes these arguments.
    Settings that the user has chosen, as `setting`, may name any class.
    """
    built: Kind = _Builder(trusted, setting).build(settings, kind, more)
    return built


def build_metrics(settings: Mapping[str, Mapping[str, Any]], trusted: Sequence[str]) -> dict[str, Metric]:
    """Build the metrics that the user has chosen, by their names; raises `UserError` as `build` does."""
    return {
        name: build(metric, Metric, trusted, f"metrics.{name}")  # type: ignore[type-abstract]
        for name, metric in settings.items()
    }


class _Builder:
    """Builds an object and those among its arguments; `built` has all of them."""

    def __init__(self, trusted: Sequence[str], setting: str | None = None) -> None:
        self.trusted = trusted
        self.setting = setting
        self.source = setting or "The checkpoint"
        self.built: list[Any] = []

    def build(self, settings: Mapping[str, Any], kind: Any, more: Mapping[str, Any]) -> Any:
        target = str(settings.get("_target_", ""))
        if self.setting is None:
            check_target(target, self.source, self.trusted)
        try:
            found = self._find(target, kind)
            given = {key: one for key, one in settings.items() if key not in (*HYDRA_KEYS, *more)}
            if self.setting is None and _is_network(target):
                given.pop("weights", None)  # they would be downloaded; the checkpoint holds the weights
            named = {key: self._argument(value, _wants_tensor(found, key)) for key, value in given.items()}
            unnamed = [self._argument(value) for value in settings.get("_args_", ())]
            if settings.get("_partial_"):
                return partial(found, *unnamed, **named, **more)
            self.built.append(found(*unnamed, **named, **more))
        except UserError:
            raise
        except Exception as error:  # whatever a class raises of arguments that it was not made for
            name = target.rpartition(".")[2]
            raise UserError(f"{self.source}: wrong settings of {name}: {_one_line(error)}") from error
        if not isinstance(self.built[-1], kind):
            raise UserError(f"{self.source} names {target!r}, but a {_name(kind)} is needed.")
        return self.built[-1]

    def _find(self, target: str, kind: Any) -> Any:
        found = resolve_name(target)
        if isinstance(found, type):
            if issubclass(found, kind):
                return found
        elif found is torch.tensor or _is_network(target) or is_trusted(target, self.trusted):
            return found
        raise UserError(
            f"{self.source} names {target!r}, but a {_name(kind)} is needed: a class, or a function of a "
            "package in trust=[PACKAGE]."
        )

    def _argument(self, value: Any, is_tensor: bool = False) -> Any:
        if isinstance(value, Mapping):
            if "_target_" in value:
                return self.build(value, PARTS, {})
            return {key: self._argument(one) for key, one in value.items()}
        if isinstance(value, list):
            return torch.tensor(value, dtype=torch.float32) if is_tensor else list(map(self._argument, value))
        return value


def _is_network(target: str) -> bool:
    module, _, name = target.rpartition(".")
    return module == "torchvision.models" and name in torchvision.models.list_models(torchvision.models)


def _wants_tensor(found: Any, name: str) -> bool:
    """Return whether a class or function declares an argument as a tensor, and not also as a sequence."""
    if not isinstance(found, type):
        return False
    parameter = inspect.signature(found).parameters.get(name)
    declared = parameter and parameter.annotation
    return declared is Tensor or set(get_args(declared)) == {Tensor, NoneType}


def _name(kind: Any) -> str:
    return "Module" if kind is PARTS else str(kind.__name__)


def build_within(
    settings: Mapping[str, Any], kind: type[Kind], numbers: int, trusted: Sequence[str] = ()
) -> Kind:
    """Build an object as `build` does, unless its tensors have more than that many numbers.

    They are counted on the meta device, on which tensors take no memory: arguments out of a file can ask
    for any size.
    """
    builder = _Builder(trusted)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        builder.build(settings, kind, {})
    modules = [module for one in builder.built if isinstance(one, nn.Module) for module in one.modules()]
    tensors: list[Any] = []
    for module in modules:
        tensors += [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if isinstance(module, Metric):
            tensors += module.metric_state.values()
    count = sum({id(one): one.numel() for one in tensors if isinstance(one, Tensor)}.values())
    if count > numbers + SLACK:
        raise UserError(
            f"The checkpoint: wrong settings of a {kind.__name__}: it would have {count:,} numbers, more "
            "than the file can hold."
        )
    return build(settings, kind, trusted)


def load_classifier(path: Path, trusted: Sequence[str] = ()) -> Classifier:
    """Build the classifier of a checkpoint from the file alone, on the CPU and in evaluation mode.

    Only classes of this project, its libraries and the packages in `trusted` are built. Raises `UserError`
    if the file has no complete settings, if its weights do not fit the network, or are not finite.
    Characters of class names that do not print are replaced.
    """
    checkpoint = load(path)
    config, state = checkpoint["config"], checkpoint["state_dict"]
    try:
        check(config, _CheckpointSettings)
    except UserError as error:
        raise UserError(f"{path} has no complete settings: {_one_line(error)}") from error
    # Settings of one's own data may lack these.
    config["data"] = {"prepare": "resize", "grey_values": None} | config["data"]
    config["data"]["classes"] = [printable(name) for name in config["data"]["classes"]]
    size = path.stat().st_size  # a number of a checkpoint takes at least a byte
    network = build_within(config["model"], nn.Module, size, trusted)
    loss = build_within(config["loss"], nn.Module, size, trusted)
    metrics = {
        name: build_within(metric, Metric, MAX_METRIC_NUMBERS, trusted)  # type: ignore[type-abstract]
        for name, metric in config.get("metrics", {}).items()
    }
    try:
        classifier = Classifier(network, loss, config["data"]["num_classes"], metrics=metrics, config=config)
        classifier.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"The weights in {path} do not fit its network: {_one_line(error)}") from error
    for name, value in classifier.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{path} holds weights that are not finite numbers, in {name}.")
    return classifier.eval()


def _one_line(error: Exception) -> str:
    text = f"{type(error).__name__} {error}" if isinstance(error, LookupError) else str(error)
    return printable(" ".join(text.split())[:300])


def data_dir(trained: Mapping[str, Any], given: str | None) -> str:
    """Return the folder of the images of a checkpoint with the data settings `trained`: `given`, or the
    one that data sets are downloaded to.

    The folder in the checkpoint may be that of another machine, and is not trusted. Raises `UserError` if
    none is given for a folder of images, which are not downloaded.
    """
    if given is None and str(trained["source"].get("_target_")).endswith(".ImageFolder"):
        raise UserError(
            "The checkpoint was trained with data=folder: give the folder of the images, data.dir=PATH."
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


def load_ensemble(paths: Sequence[Path], shifts: bool, trusted: Sequence[str] = ()) -> Classifier:
    """Build the classifier of a checkpoint, or one that averages the predictions of several.

    With `shifts` predictions on images shifted by a pixel to each side are averaged, too. The settings
    are those of the first. Raises `UserError` unless all were trained on images of the same
    form and on the same classes.
    """
    classifiers = [load_classifier(path, trusted) for path in paths]
    first = classifiers[0]
    for path, other in zip(paths, classifiers, strict=True):
        for key in ("classes", *IMAGE_FORM):
            wanted, found = first.config["data"][key], other.config["data"][key]
            if wanted != found or _image_size(first) != _image_size(other):
                raise UserError(
                    f"{path} cannot be averaged with {paths[0]}: it was trained with other data.{key}. "
                    "The checkpoints of an ensemble take the same images and know the same classes."
                )
    if len(classifiers) > 1 or shifts:
        networks = [classifier.network for classifier in classifiers]
        ensemble = Ensemble(networks, first.gives_probabilities, shifts)
        ensemble.image_size = getattr(first.network, "image_size", first.config["data"]["image_size"])
        first.network = ensemble
    return first.eval()


def _image_size(classifier: Classifier) -> object:
    return getattr(classifier.network, "image_size", None)


def initialize_from(network: nn.Module, path: Path, prepare: str) -> None:
    """Copy the weights of a checkpoint into `network`.

    If the number of classes differs, the last layer keeps its initial values, with a warning. Another warning
    says if the images of the checkpoint were not prepared by `prepare`. Raises `UserError` if other layers
    differ, since it is another network then.
    """
    prefix = "network."
    checkpoint = load(path)
    state = checkpoint["state_dict"]
    trained = checkpoint["config"].get("data", {}).get("prepare", "resize")
    if trained != prepare:
        log.warning(
            f"init_from={path} was trained with data.prepare={trained}, this run has data.prepare={prepare}: "
            "the images look different to the network."
        )
    saved: dict[str, Tensor] = {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
    own = network.state_dict()
    fits = {name: saved[name] for name in own if name in saved and saved[name].shape == own[name].shape}
    new = [name for name in own if name not in fits]
    last_layer = list(own)[-1].rpartition(".")[0]
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
