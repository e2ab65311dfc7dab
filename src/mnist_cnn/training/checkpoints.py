"""Checkpoints of tensors and plain values only, and networks rebuilt from them."""

import io
import logging
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, TypeVar

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torchmetrics import Metric

from mnist_cnn.errors import UserError, printable
from mnist_cnn.files import atomic_write
from mnist_cnn.models.ensemble import Ensemble
from mnist_cnn.settings import CheckpointSettings, check
from mnist_cnn.training import within_epoch
from mnist_cnn.training.classifier import Classifier

# Checkpoints are not trusted: of what they name, only classes of these packages are built.
TRUSTED = ("mnist_cnn.", "torch.nn.", "torchmetrics.classification.")
IMAGE_FORM = ("mean", "std", "in_channels", "image_size")  # settings of the data that a network depends on
SLACK = 10_000_000  # numbers that take no notable memory; whether they fit is checked later
MAX_METRIC_NUMBERS = 10_000_000  # of the state of a metric, such as a matrix of 3,000 classes
NETWORKS = "torchvision.models"  # whose networks are built by functions

Kind = TypeVar("Kind")

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under another name and renames it; Lightning copies it from a temporary folder.

    Where it cannot be written, the former one stays, and no partial file is left.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()  # torch reports a full disk as an internal error
        torch.save(checkpoint, buffer)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as aside:
            aside.write_bytes(buffer.getbuffer())


class RunCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that finds its files in the present folder of the run, also after it was moved."""

    @cached_property
    def state_key(self) -> str:
        """The name of its state in a checkpoint; Lightning asks for it several times a step."""
        return super().state_key

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def moved(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = {name: moved(state_dict[name]) for name in ("best_model_path", "kth_best_model_path")}
        paths["dirpath"] = str(self.dirpath)
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"best_k_models": best})


def save_last(run_dir: Path) -> ModelCheckpoint:
    """Return the callback that saves each epoch as `last.ckpt`, from which a run is resumed."""
    return _save(run_dir, "last")


def save_best(run_dir: Path, metric: str, mode: Literal["min", "max"]) -> ModelCheckpoint:
    """Return the callback that saves the epoch with the best value of `metric` as `best.ckpt`."""
    return _save(run_dir, "best", monitor=metric, mode=mode)


def _save(run_dir: Path, name: str, **options: Any) -> ModelCheckpoint:
    # At the end of an epoch and not of its validation, so that a resumed run starts with the next epoch.
    return RunCheckpoint(
        run_dir / "checkpoints",
        filename=name,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
        **options,
    )


@dataclass(frozen=True)
class ResumePoint:
    """Where an interrupted run continues: its latest readable checkpoint, and the epochs completed."""

    path: Path
    epochs: int


def find_resume_point(run_dir: Path) -> ResumePoint | None:
    """Return where the run in `run_dir` continues; None if it was interrupted in its first epoch.

    This is the checkpoint of the latest step that can be read. Raises `UserError` if there are checkpoints
    and none can be read.
    """
    points: dict[int, ResumePoint] = {}
    unreadable: list[Path] = []
    for path in (run_dir / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")):
        if not path.exists():
            continue
        try:
            checkpoint = load(path)
            epochs = int(checkpoint["epoch"]) + (0 if within_epoch.KEY in checkpoint else 1)
            points[int(checkpoint["global_step"])] = ResumePoint(path, epochs)
        except (UserError, OSError, KeyError, TypeError, ValueError):
            unreadable.append(path)
    names = " and ".join(map(str, unreadable))
    if not points and unreadable:
        raise UserError(
            f"The run cannot be continued: {names} cannot be read. Restore one of them from a copy, or "
            "remove them to start the run again at epoch 1."
        )
    if not points:
        return None
    point = points[max(points)]
    if unreadable:
        log.warning(f"{names} cannot be read; the run continues from {point.path}, epoch {point.epochs}.")
    return point


def load_best_weights(classifier: Classifier, checkpoint: ModelCheckpoint) -> int:
    """Load the weights that `checkpoint` saved into `classifier`; return their epoch, from 1.

    Where nothing was saved, as with trainer.fast_dev_run, the weights stay as they are. So they do, with a
    warning, where the file was removed or damaged before the run was resumed.
    """
    if not checkpoint.best_model_path:
        trained = not classifier.trainer.fast_dev_run  # type: ignore[attr-defined]
        if trained and checkpoint.monitor is not None:
            log.warning(f"{checkpoint.monitor} was never measured: the result is that of the last weights.")
        return classifier.current_epoch
    try:
        best = load(Path(checkpoint.best_model_path))
    except (UserError, FileNotFoundError):
        log.warning(
            f"{checkpoint.best_model_path} is missing or damaged: the result is that of the last weights."
        )
        return classifier.current_epoch
    classifier.load_state_dict(best["state_dict"])
    return int(best["epoch"]) + 1


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


def build(settings: Mapping[str, Any], kind: type[Kind], **more: Any) -> Kind:
    """Build the object that `settings` names in `_target_`, with its other items and `more` as arguments.

    Raises `UserError` unless `_target_` is a class of kind `kind` in a trusted package, or a network of
    torchvision, that takes these arguments.
    """
    try:
        return _build(settings, kind, **more)
    except UserError:
        raise
    except Exception as error:  # whatever a class raises of arguments that it was not made for
        raise UserError(
            f"The checkpoint has wrong settings of a {kind.__name__}: {_one_line(error)}"
        ) from error


def _build(settings: Mapping[str, Any], kind: type[Kind], **more: Any) -> Kind:
    arguments = dict(settings) | more
    target = str(arguments.pop("_target_", ""))
    module, _, name = target.rpartition(".")
    if module == NETWORKS and kind is nn.Module:
        import torchvision.models

        if name in torchvision.models.list_models(torchvision.models):
            arguments.pop("weights", None)  # they would be downloaded; the checkpoint holds the weights
            network = torchvision.models.get_model(name, **arguments)
            assert isinstance(network, kind)
            return network
    if target.startswith(TRUSTED):
        found = resolve_name(target)
        if isinstance(found, type) and issubclass(found, kind):
            return found(**arguments)
    raise UserError(
        f"The checkpoint names {target!r} where a {kind.__name__} is needed. Only classes of "
        f"{', '.join(one.rstrip('.') for one in TRUSTED)} and networks of {NETWORKS} are built from a "
        "checkpoint."
    )


def build_within(settings: Mapping[str, Any], kind: type[Kind], numbers: int) -> Kind:
    """Build an object as `build` does, unless its tensors have more than that many numbers.

    They are counted on the meta device, on which tensors take no memory: arguments out of a file can ask
    for any size.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trial = build(settings, kind)
    tensors: list[Any] = []
    if isinstance(trial, nn.Module):
        tensors += [*trial.parameters(), *trial.buffers()]
    if isinstance(trial, Metric):
        tensors += trial.metric_state.values()
    count = sum(one.numel() for one in tensors if isinstance(one, Tensor))
    if count > numbers + SLACK:
        raise UserError(
            f"The checkpoint has wrong settings of a {kind.__name__}: it would have {count:,} numbers, more "
            "than the file can hold."
        )
    return build(settings, kind)


def load_classifier(path: Path) -> Classifier:
    """Build the classifier of a checkpoint from the file alone, on the CPU and in evaluation mode.

    Raises `UserError` where the file has no complete settings, where its weights do not fit the network, and
    where they are not finite. Characters of class names that do not print are replaced.
    """
    checkpoint = load(path)
    config, state = checkpoint["config"], checkpoint["state_dict"]
    try:
        check(config, CheckpointSettings)
    except (LookupError, TypeError, ValueError, AttributeError, UserError) as error:
        raise UserError(f"{path} has no complete settings: {_one_line(error)}") from error
    if config["data"]["classes"] is not None:
        config["data"]["classes"] = [printable(name) for name in config["data"]["classes"]]
    # a number of a checkpoint takes at least a byte
    network, loss = (build_within(config[name], nn.Module, path.stat().st_size) for name in ("model", "loss"))
    metrics = {
        name: build_within(metric, Metric, MAX_METRIC_NUMBERS)  # type: ignore[type-abstract]
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
    """Return the folder of the images of a checkpoint with the data settings `trained`: `given`, or data.

    The folder in the checkpoint may be that of another machine, and is not trusted. Raises `UserError` if
    none is given for a folder of images, which are not downloaded.
    """
    if given is None and str(trained["source"].get("_target_")).endswith(".ImageFolder"):
        raise UserError(
            "The checkpoint was trained with data=folder: give the folder of the images, data.dir=PATH."
        )
    return given or "data"


def load_ensemble(paths: Sequence[Path], shifts: bool) -> Classifier:
    """Build the classifier of a checkpoint, or one that averages the predictions of several.

    With `shifts` predictions on images shifted by a pixel to each side are averaged, too. The settings
    are those of the first. Raises `UserError` unless all were trained on images of the same
    form and on the same classes.
    """
    classifiers = [load_classifier(path) for path in paths]
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


def check_classes(classifier: Classifier, classes: Sequence[str]) -> None:
    """Raise `UserError` unless the classifier was trained for as many classes as the data has."""
    trained = classifier.config["data"]["classes"]
    if len(trained) != len(classes):
        raise UserError(
            f"The checkpoint was trained for {len(trained)} classes ({', '.join(trained)}), but the data has "
            f"{len(classes)} ({', '.join(classes)}). Give data of the same classes, or train a network for "
            "these with init_from=PATH."
        )


def initialize_from(network: nn.Module, path: Path) -> None:
    """Copy the weights of a checkpoint into `network`.

    Where the number of classes differs, the last layer keeps its initial values, and a warning says so.
    Raises `UserError` where other layers differ, since it is another network then.
    """
    prefix = "network."
    state = load(path)["state_dict"]
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
