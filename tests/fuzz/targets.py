"""The readers of untrusted files and arguments, and what they must do with any input.

A reader returns, or it raises an error for the user. Each target gives samples of valid input, and reads one
input in a folder of its own.
"""

import io
import pickle
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict
from PIL import Image

from hydra_sweeps import RESOLVED, SweepError, definition, runs
from hydra_sweeps.report import writing
from mnist_cnn.app import messages, resumed, settings, start
from mnist_cnn.app.overrides import prepare as prepare_overrides
from mnist_cnn.data import ImageFolder
from mnist_cnn.errors import UserError
from mnist_cnn.inference.predictor import Predictor
from mnist_cnn.preparation.finding import NothingFound
from mnist_cnn.preparation.image_files import UnreadableImage
from mnist_cnn.preparation.prepare import Preparation, prepare_file
from mnist_cnn.schema import check
from tests.conftest import REPOSITORY
from tests.export.onnx_network import onnx_network
from tests.fuzz.inputs import hostile
from tests.inference.checkpoint import write_checkpoint

Read = Callable[[bytes, Path], object]


@dataclass(frozen=True)
class Target:
    """A reader: `prepare` makes the inputs, `read` raises one of `refusals` or returns."""

    prepare: Callable[[Path], st.SearchStrategy[bytes]]
    read: Read
    refusals: tuple[type[Exception], ...]
    inputs: int  # of make fuzz


TARGETS: dict[str, Target] = {}


def target(
    prepare: Callable[[Path], st.SearchStrategy[bytes]], *refusals: type[Exception], inputs: int
) -> Callable[[Read], Read]:
    def add(read: Read) -> Read:
        TARGETS[read.__name__.removeprefix("read_")] = Target(prepare, read, refusals, inputs)
        return read

    return add


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- data ----------------------------------------------------------------------------------------


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def image_files(folder: Path) -> st.SearchStrategy[bytes]:
    drawing = Image.fromarray(np.pad(np.full((16, 4), 255, np.uint8), 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a digit"
    samples = [encoded(drawing, name) for name in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")]
    samples += [encoded(drawing.convert("P"), "PNG"), encoded(drawing.convert("RGBA"), "WEBP", lossless=True)]
    samples += [encoded(drawing.convert("RGB"), "JPEG", exif=exif, icc_profile=bytes(200), progressive=True)]
    samples += [encoded(drawing, "PNG", exif=exif), encoded(drawing.convert("I;16"), "PNG")]
    samples += [
        encoded(drawing, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "packbits")
    ]
    samples += [
        encoded(drawing.convert("1"), "TIFF", compression="group4"),
        encoded(drawing, "TIFF", exif=exif),
    ]
    samples += [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"]
    return hostile(samples)


@target(image_files, UnreadableImage, NothingFound, inputs=12_000)
def read_image(content: bytes, folder: Path) -> None:
    prepare_file(written(folder / "digit.png", content), split=True)


@target(image_files, UserError, inputs=6_000)
def read_image_folder(content: bytes, folder: Path) -> None:
    path = written(folder / "train" / "one" / "digit.png", content)
    if not (folder / "train" / "two").exists():
        for name in ("one", "two"):
            (folder / "train" / name).mkdir(exist_ok=True)
            Image.new("L", (8, 8)).save(folder / "train" / name / "good.png")
    source = ImageFolder(0.25)
    source.preparation = Preparation("resize", 1, 28)
    images, targets = source.read(path.parents[2], train=True)
    assert images.shape[1:] == (1, 28, 28) and len(images) == len(targets)


# --- networks ------------------------------------------------------------------------------------


def checkpoint_files(folder: Path) -> st.SearchStrategy[bytes]:
    content = written_checkpoint(folder)
    settings_changed = st.tuples(st.sampled_from(SETTINGS_OF_NETWORKS), VALUES).map(
        lambda change: CHANGE + pickle.dumps((content, change))
    )
    with zipfile.ZipFile(folder / "valid.ckpt") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        pickled = archive.read(name)
    records = hostile([pickled], [b"cos\nsystem\n(S'true'\ntR.", b"\x8c\x02os\x8c\x06system\x93"])
    return st.one_of(
        settings_changed, hostile([content]), records.map(lambda record: packed(folder, name, record))
    )


CHANGE = b"change of the settings: "  # marks an input that is none of a file
SETTINGS_OF_NETWORKS = [
    *("model", "model._target_", "model.in_channels", "model.num_classes", "model.more", "loss", "metrics"),
    *("loss._target_", "metrics.f1._target_", "metrics.f1.num_classes", "data", "data.mean", "data.std"),
    *("data.source", "data.in_channels", "data.image_size", "data.num_classes", "data.classes", "trainer"),
]
CLASSES = [
    *("mnist_cnn.models.CnnNet", "mnist_cnn.models.SimpleCNN", "torch.nn.Linear", "torch.nn.Module"),
    *("torchvision.models.resnet18", "torch.nn.CrossEntropyLoss", "torch.load", "os.system", "torch.nn."),
    *("torchmetrics.classification.MulticlassF1Score", "torchmetrics.classification.Accuracy"),
    *("torchmetrics.classification.MulticlassConfusionMatrix", "torch.nn.Embedding", "torch.nn.Sequential"),
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 3, 10, 2**31, 2**63, 10**30])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(CLASSES)
)
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=12)
    | st.dictionaries(
        st.sampled_from(["_target_", "num_classes", "in_channels", "in_features", "out_features", "name"]),
        SCALARS,
    )
)


def written_checkpoint(folder: Path) -> bytes:
    # A small one: hypothesis keeps all inputs in memory.
    return write_checkpoint(folder / "valid.ckpt", "CnnNet", image_size=16).read_bytes()


def packed(folder: Path, name: str, record: bytes) -> bytes:
    """Return the checkpoint with another pickle, and the checksums of that."""
    stream = io.BytesIO()
    with zipfile.ZipFile(folder / "valid.ckpt") as valid, zipfile.ZipFile(stream, "w") as archive:
        for member in valid.infolist():
            archive.writestr(member.filename, record if member.filename == name else valid.read(member))
    return stream.getvalue()


@target(checkpoint_files, UserError, inputs=5_000)
def read_checkpoint(content: bytes, folder: Path) -> None:
    path = folder / "read.ckpt"
    if content.startswith(CHANGE):  # a change of the settings, which is quicker to make here
        whole, (key, value) = pickle.loads(content.removeprefix(CHANGE))
        checkpoint = torch.load(io.BytesIO(whole), weights_only=True)
        config = checkpoint["config"] | {"metrics": {"f1": {"_target_": CLASSES[9], "num_classes": 10}}}
        *parents, last = key.split(".")
        for parent in parents:
            config = config[parent]
        config[last] = value
        if not parents:
            checkpoint["config"] |= config
        torch.save(checkpoint, path)
    else:
        path.write_bytes(content)
    predictor = Predictor.load(path)
    predictor.scores(np.zeros((1, 1, 28, 28), np.uint8))


def onnx_files(folder: Path) -> st.SearchStrategy[bytes]:
    return hostile([onnx_network()], [b"Loop", b"If", b"ConstantOfShape", b"Expand", b"Tile", b"Range"])


@target(onnx_files, UserError, inputs=6_000)
def read_onnx(content: bytes, folder: Path) -> None:
    predictor = Predictor.load(written(folder / "read.onnx", content))
    predictor.scores(np.zeros((1, 1, 28, 28), np.uint8))


def safetensors_files(folder: Path) -> st.SearchStrategy[bytes]:
    from mnist_cnn.export import safetensors
    from mnist_cnn.export.network import load_trained

    ckpt = torch.load(write_checkpoint(folder / "valid.ckpt", "CnnNet"), weights_only=True)
    torch.save(ckpt | {"epoch": 0}, folder / "valid.ckpt")
    safetensors.write(*load_trained(folder / "valid.ckpt"), folder / "valid.safetensors")
    return hostile([(folder / "valid.safetensors").read_bytes()], [b"9" * 12, b'"F64"', b'\\"os.system'])


@target(safetensors_files, UserError, inputs=4_000)
def read_safetensors(content: bytes, folder: Path) -> None:
    predictor = Predictor.load(written(folder / "read.safetensors", content))
    predictor.scores(np.zeros((1, 1, 28, 28), np.uint8))


# --- settings ------------------------------------------------------------------------------------

YAML_TOKENS = [
    *(b"*a", b"&a ", b"!!python/object/apply:os.system ", b"!!binary ", b"${oc.env:HOME}", b"${", b"}"),
    *(
        b"[",
        b"{",
        b"- ",
        b"? ",
        b": ",
        b"\n",
        b"\t",
        b"\0",
        b"9" * 500,
        b".inf",
        b"1:1:1",
        b"<<: ",
        b"%",
        b"#",
    ),
    *(b"_target_: os.system", b"defaults: [x]", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe2\x80\xae", b"\x1b[2J"),
]
RUN_SETTINGS = b"""objective: {metric: val/acc, mode: max}
model:
  _target_: mnist_cnn.models.CnnNet
optim: {_target_: torch.optim.SGD, _partial_: true, lr: 0.1}
scheduler:
  _target_: mnist_cnn.training.schedule.Schedule
  scheduler: torch.optim.lr_scheduler.StepLR
  step_size: 3
callbacks:
  stop: {_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss}
trainer: {max_epochs: 2, devices: auto}
hparams: {lr: 0.1, optim: sgd, seed: 3}
seed: 3
"""


@target(lambda folder: hostile([RUN_SETTINGS], YAML_TOKENS), UserError, inputs=3_000)
def read_run_settings(content: bytes, folder: Path) -> None:
    written(folder / ".hydra" / "resolved.yaml", content)
    resumed.read_settings(folder / RESOLVED, [])


DEFINITION = b"""hydra:
  overrides:
    hydra: [hydra/sweeper=optuna, hydra.sweeper.n_trials=3, hydra.mode=MULTIRUN]
    task:
    - optim=sgd,adam
    - optim.lr=tag(log,interval(1e-4,1e-1))
    - model.num_classes=10
  sweeper: {n_trials: 3}
"""
SWEEP_TOKENS = [
    *(b"- model._target_=os.system\n", b"hydra.job.chdir=true", b"hydra/launcher=ray", b"../../", b"'", b","),
    *(b"hydra.sweeper.params={a: b}", b"{_target_: os.system}", b"trust=[os]", b"~", b"++", b"=", b"@:"),
]


@target(lambda folder: hostile([DEFINITION], YAML_TOKENS + SWEEP_TOKENS), SweepError, inputs=4_000)
def read_sweep_definition(content: bytes, folder: Path) -> None:
    written(folder / definition.FILE, content)
    definition.overrides_to_resume(folder, [])


OVERRIDES = [
    b"optim.lr=0.1\0model=simple\0seed=3",
    b"model=cnnnet\0optim=adam\0optim.betas=[0.9,0.99]\0+trainer.x=1\0~callbacks.pictures",
    b"hydra.run.dir='a b'\0++model.more={a: [1, 2], b: null}\0data.classes=[a,b]",
    b"--multirun\0optim=sgd,adam\0seed=range(1,3)\0optim.lr=tag(log,interval(0.1,1))",
]
KEYS = [
    *("seed", "model", "optim", "loss", "data", "augment", "scheduler", "metrics", "callbacks", "logger"),
    *(
        "trainer",
        "experiment",
        "debug",
        "hparams",
        "objective",
        "trust",
        "resume",
        "init_from",
        "hydra.run.dir",
    ),
    *(
        "optim.lr",
        "optim.betas",
        "optim._target_",
        "model.num_classes",
        "model._target_",
        "model.x",
        "data.dir",
    ),
    *("data.batch_size", "data.val_size", "data.classes", "data.source", "data.source._target_", "data.mean"),
    *(
        "trainer.precision",
        "trainer.devices",
        "trainer.max_epochs",
        "trainer.x",
        "objective.metric",
        "optim@loss",
    ),
    *(
        "callbacks.pictures",
        "callbacks.pictures._target_",
        "logger.tensorboard",
        "checkpoint.every_n_steps",
        "a.b",
    ),
]
STRANGE_VALUES = [
    *(
        "",
        "null",
        "true",
        "0",
        "-1",
        "0.5",
        "nan",
        "inf",
        "-1e999",
        "9" * 500,
        "'a b'",
        "'\\''",
        "é",
        "\x1b[31m",
    ),
    *(
        "[]",
        "[1,2]",
        "[a,[b]]",
        "{}",
        "{a: 1}",
        "{a: {b: null}}",
        "a,b",
        "range(3)",
        "interval(0,1)",
        "[a",
        "'",
    ),
    *(
        "${seed}",
        "${optim.lr}",
        "${x}",
        "${oc.env:HOME}",
        "${oc.decode:x}",
        "${model}",
        "/dev/zero",
        "../..",
        ".",
    ),
    *(
        "sgd",
        "adam",
        "simple",
        "mnist",
        "folder",
        "none",
        "tensorboard",
        "[pictures,ema]",
        "mse",
        "os.system",
    ),
    *(
        "torch.nn.Linear",
        "torch.optim.SGD",
        "{_target_: os.system}",
        "val/loss",
        "bf16-mixed",
        "ddp",
        "smoke",
    ),
]


def overrides(folder: Path) -> st.SearchStrategy[bytes]:
    """Return overrides of known settings by strange values, and one time in four what is no override."""
    prefixes = st.sampled_from(["", "", "", "", "+", "++", "~"])
    override = st.tuples(prefixes, st.sampled_from(KEYS), st.just("="), st.sampled_from(STRANGE_VALUES)).map(
        "".join
    )
    typed = st.lists(override, min_size=1, max_size=3).map(lambda typed: "\0".join(typed).encode())
    return st.one_of(typed, typed, typed, hostile(OVERRIDES, [b"=", b"\0", b"--help", b"${", b"~", b"@:"]))


@target(overrides, UserError, SweepError, inputs=1_000)
def read_arguments(content: bytes, folder: Path) -> None:
    arguments = content.decode("utf-8", "surrogateescape").split("\0")
    before = sys.argv
    sys.argv = [str(REPOSITORY / "train.py"), *arguments]
    try:
        typed = [one for one in prepare_overrides(arguments) if not one.startswith("-")]
        start.register_resolvers()
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            config = compose("train", overrides=typed)
        with open_dict(config):
            config.pop("hparams", None)  # they refer to what Hydra knows of a running job
        check(OmegaConf.to_container(config, resolve=True, throw_on_missing=True), settings.TrainSettings)
    except Exception as error:
        raise_for_user(error)
    finally:
        sys.argv = before


def raise_for_user(error: Exception) -> None:
    """Raise `UserError` with what a command says of `error`, or `error` itself where it is no user's."""
    message = messages.message_for_user(error)
    if message is None:
        raise error
    raise UserError(message) from error


@target(
    lambda folder: hostile(
        [RUN_SETTINGS, b'{"val/acc": 0.9, "epochs": 2}', b"[optim=sgd, seed=3]"], YAML_TOKENS
    ),
    SweepError,
    inputs=1_500,
)
def read_report(content: bytes, folder: Path) -> None:
    file = (".hydra/overrides.yaml", "metrics.json", "history.json", "failed.json", ".hydra/resolved.yaml")
    run = folder / "sweep" / "0_lr-0.1"
    files = dict(zip(file, (b"[optim=sgd]", b'{"val/acc": 0.9}', b"[]", b"{}", RUN_SETTINGS), strict=True))
    files[file[len(content) % len(file)]] = content
    for name, text in files.items():
        written(run / name, text)
    written(folder / "sweep" / "multirun.yaml", content if len(content) % 7 == 0 else DEFINITION)
    found = runs.find_runs([folder / "sweep"])
    goal = runs.goal_of_sweep(folder / "sweep")
    writing.text(found, goal)
    writing.write_csv(folder / "sweep.csv", found, goal)


def journals(folder: Path) -> st.SearchStrategy[bytes]:
    return hostile([journal(folder)], [b"model._target_", b"os.system", b'"op_code": 9', b"1e999", b"null"])


def journal(folder: Path) -> bytes:
    """Return the journal of a search of one job, which was interrupted."""
    path = folder / "valid"
    search_in(path).propose()
    return (path / "study.journal").read_bytes()


def search_in(folder: Path) -> Any:
    from hydra_sweeps import grammar, space, study

    swept = ["optim=sgd,adam", "optim.lr=tag(log,interval(1e-4,1e-1))"]
    return study.StudySearch(
        space.distributions_of(grammar.parse(swept)),
        objectives={"val/acc": "maximize"},
        sampler={"_target_": "optuna.samplers.RandomSampler"},
        pruner={"_target_": "optuna.pruners.NopPruner"},
        folder=folder,
        n_trials=3,
        seed=1,
    )


@target(journals, SweepError, inputs=2_000)
def read_journal(content: bytes, folder: Path) -> None:
    written(folder / "read" / "study.journal", content)
    search = search_in(folder / "read")
    known: Sequence[str] = ("optim=sgd", "optim=adam")
    for job in [*search.left_over(), search.propose()]:
        for override in job.chosen if job else ():
            assert override in known or 1e-4 <= float(override.removeprefix("optim.lr=")) <= 1e-1, override
