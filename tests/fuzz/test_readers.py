"""Readers of untrusted files and arguments: any input is read, or refused with an error for the user.

The tests try a few inputs, the same each time; `make fuzz` tries many.
"""

import copy
import io
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict
from PIL import Image

from hydra_sweeps import RESOLVED, SweepError, definition, grammar, runs, space, study
from hydra_sweeps.report import writing
from mnist_cnn.app import messages, resumed
from mnist_cnn.app.overrides import prepare as prepare_overrides
from mnist_cnn.app.settings import TrainSettings
from mnist_cnn.data import ImageFolder
from mnist_cnn.errors import UserError
from mnist_cnn.export import safetensors
from mnist_cnn.export.network import load_trained
from mnist_cnn.inference.predictor import Predictor
from mnist_cnn.preparation.finding import NothingFound
from mnist_cnn.preparation.image_files import UnreadableImage
from mnist_cnn.preparation.prepare import Preparation, prepare_file
from mnist_cnn.schema import check
from tests.conftest import REPOSITORY
from tests.export.onnx_network import onnx_network
from tests.fuzz.inputs import hostile, keys_of
from tests.inference.checkpoint import write_checkpoint
from tests.runs import compose_train, settings_of

Input = TypeVar("Input")


def tried(few: int, many: int) -> pytest.MarkDecorator:
    """Give a test the number of its `inputs`: `few`, or `many` with `make fuzz`."""
    with_make_fuzz = pytest.param(many, marks=[pytest.mark.long, pytest.mark.timeout(3600)])
    return pytest.mark.parametrize("inputs", [few, with_make_fuzz])


def read_all(
    read: Callable[[Input], object],
    contents: st.SearchStrategy[Input],
    inputs: int,
    *refusals: type[Exception],
) -> None:
    """Read that many inputs, each within 20 seconds; `read` may raise nothing but `refusals`."""

    @settings(
        max_examples=inputs,
        derandomize=inputs < 100,
        deadline=timedelta(seconds=20),
        suppress_health_check=list(HealthCheck),
    )
    @given(contents)
    def read_one(content: Input) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow and torch, about the input
            with suppress(*refusals):
                read(content)

    read_one()


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- Images --------------------------------------------------------------------------------------


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def image_files() -> st.SearchStrategy[bytes]:
    drawing = Image.fromarray(np.pad(np.full((16, 4), 255, np.uint8), 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a digit"
    samples = [encoded(drawing, name) for name in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")]
    samples += [encoded(drawing.convert("P"), "PNG"), encoded(drawing.convert("RGBA"), "WEBP", lossless=True)]
    samples += [encoded(drawing.convert("RGB"), "JPEG", exif=exif, icc_profile=bytes(200), progressive=True)]
    samples += [encoded(drawing, "PNG", exif=exif), encoded(drawing.convert("I;16"), "PNG")]
    for compression in ("tiff_lzw", "tiff_deflate", "packbits"):
        samples.append(encoded(drawing, "TIFF", compression=compression))
    samples += [encoded(drawing.convert("1"), "TIFF", compression="group4")]
    samples += [encoded(drawing, "TIFF", exif=exif)]
    samples += [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"]
    return hostile(samples)


@tried(60, 12_000)
def test_image(inputs: int, tmp_path: Path) -> None:
    def read(content: bytes) -> None:
        prepare_file(written(tmp_path / "digit.png", content), split=True)

    read_all(read, image_files(), inputs, UnreadableImage, NothingFound)


@tried(60, 6_000)
def test_folder_of_images(inputs: int, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "train" / name / "good.png")
    source = ImageFolder(0.25)
    source.preparation = Preparation("resize", 1, 28)

    def read(content: bytes) -> None:
        written(tmp_path / "train" / "one" / "digit.png", content)
        images, targets = source.read(tmp_path, train=True)
        assert images.shape[1:] == (1, 28, 28) and len(images) == len(targets)

    read_all(read, image_files(), inputs, UserError)


# --- Networks ------------------------------------------------------------------------------------


def predict(path: Path) -> None:
    Predictor.load(path).scores(np.zeros((1, 1, 28, 28), np.uint8))


@tried(30, 2_500)
def test_checkpoint(inputs: int, tmp_path: Path) -> None:
    # A small one: hypothesis keeps all inputs in memory.
    valid = write_checkpoint(tmp_path / "valid.ckpt", "CnnNet", image_size=16)
    with zipfile.ZipFile(valid) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in members if name.endswith("data.pkl"))

    def with_checksums_of(record: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as changed:
            for name, content in members.items():
                changed.writestr(name, record if name == pickled else content)
        return stream.getvalue()

    records = hostile([members[pickled]], [b"cos\nsystem\n(S'true'\ntR.", b"\x8c\x02os\x8c\x06system\x93"])
    contents = hostile([valid.read_bytes()]) | records.map(with_checksums_of)
    read_all(lambda content: predict(written(tmp_path / "read.ckpt", content)), contents, inputs, UserError)


F1 = "torchmetrics.classification.MulticlassF1Score"
CLASSES = [
    "mnist_cnn.models.SimpleCNN",
    "torchvision.models.resnet18",
    "torch.nn.Module",
    "torch.nn.Linear",
    "torch.nn.CrossEntropyLoss",
    "torch.nn.Sequential",
    "torch.nn.Embedding",
    "torch.nn.",
    "torch.load",
    F1,
    "torchmetrics.classification.MulticlassConfusionMatrix",
    "os.system",
]
ARGUMENTS = ["_target_", "num_classes", "in_channels", "in_features", "out_features", "name"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 3, 10, 2**63, 10**30]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(CLASSES),
)
VALUES = SCALARS | st.lists(SCALARS, max_size=12) | st.dictionaries(st.sampled_from(ARGUMENTS), SCALARS)


@tried(30, 2_500)
def test_settings_in_a_checkpoint(inputs: int, tmp_path: Path) -> None:
    valid = torch.load(write_checkpoint(tmp_path / "valid.ckpt", "CnnNet"), weights_only=True)
    valid["config"]["metrics"] = {"f1": {"_target_": F1, "num_classes": 10}}
    keys = [*keys_of(valid["config"]), "model.more", "trainer"]

    def read(change: tuple[str, Any]) -> None:
        changed = copy.deepcopy(valid)
        node = changed["config"]
        *parents, last = change[0].split(".")
        for parent in parents:
            node = node[parent]
        node[last] = change[1]
        torch.save(changed, tmp_path / "read.ckpt")
        predict(tmp_path / "read.ckpt")

    read_all(read, st.tuples(st.sampled_from(keys), VALUES), inputs, UserError)


@tried(60, 6_000)
def test_onnx(inputs: int, tmp_path: Path) -> None:
    contents = hostile([onnx_network()], [b"Loop", b"If", b"ConstantOfShape", b"Expand", b"Tile", b"Range"])
    read_all(lambda content: predict(written(tmp_path / "read.onnx", content)), contents, inputs, UserError)


@tried(60, 4_000)
def test_safetensors(inputs: int, tmp_path: Path) -> None:
    checkpoint, valid = tmp_path / "valid.ckpt", tmp_path / "valid.safetensors"
    torch.save(
        torch.load(write_checkpoint(checkpoint, "CnnNet"), weights_only=True) | {"epoch": 0}, checkpoint
    )
    safetensors.write(*load_trained(checkpoint), valid)
    contents = hostile([valid.read_bytes()], [b"9" * 12, b'"F64"', b'\\"os.system'])
    file = tmp_path / "read.safetensors"
    read_all(lambda content: predict(written(file, content)), contents, inputs, UserError)


# --- Settings ------------------------------------------------------------------------------------

YAML_TOKENS = [
    b"!!python/object/apply:os.system ",
    b"!!binary ",
    b"${oc.env:HOME}",
    b"_target_: os.system",
    b"defaults: [x]",
    b"${ } [ { - ? :",
    b": ",
    b"- ",
    b"\n",
    b"\t",
    b"\0",
    b"9" * 500,
    b".inf",
    b"1:1:1",
    b"<<: ",
    b"%",
    b"#",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xe2\x80\xae",
    b"\x1b[2J",
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


@tried(30, 3_000)
def test_settings_of_a_run(inputs: int, tmp_path: Path) -> None:
    def read(content: bytes) -> None:
        resumed.read_settings(written(tmp_path / RESOLVED, content), [])

    read_all(read, hostile([RUN_SETTINGS], YAML_TOKENS), inputs, UserError)


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
    b"- model._target_=os.system\n",
    b"hydra.job.chdir=true",
    b"hydra/launcher=ray",
    b"../../",
    b"'",
    b",",
    b"hydra.sweeper.params={a: b}",
    b"{_target_: os.system}",
    b"trust=[os]",
    b"~",
    b"++",
    b"=",
    b"@:",
]


@tried(60, 4_000)
def test_definition_of_a_sweep(inputs: int, tmp_path: Path) -> None:
    def read(content: bytes) -> None:
        written(tmp_path / definition.FILE, content)
        definition.overrides_to_resume(tmp_path, [])

    read_all(read, hostile([DEFINITION], YAML_TOKENS + SWEEP_TOKENS), inputs, SweepError)


MORE_KEYS = ["experiment", "debug", "hydra.run.dir", "optim@loss", "model.x", "trainer.x", "a.b"]
TEXTS = ["", "'a b'", "'\\''", "'", "é", "\x1b[31m", "/dev/zero", "../..", ".", "os.system", "val/loss"]
NUMBERS = ["null", "true", "0", "-1", "0.5", "nan", "inf", "-1e999", "9" * 500]
NESTED = ["[]", "[1,2]", "[a,[b]]", "[a", "{}", "{a: {b: null}}", "{_target_: os.system}"]
SWEPT = ["a,b", "range(3)", "interval(0,1)"]
INTERPOLATIONS = ["${seed}", "${optim.lr}", "${x}", "${oc.env:HOME}", "${oc.decode:x}", "${model}"]
CHOICES = ["sgd", "simple", "mnist", "folder", "none", "tensorboard", "[pictures,ema]", "mse", "smoke", "ddp"]
STRANGE_VALUES = TEXTS + NUMBERS + NESTED + SWEPT + INTERPOLATIONS + CHOICES
OVERRIDES = [
    b"optim.lr=0.1\0model=simple\0seed=3",
    b"model=cnnnet\0optim=adam\0optim.betas=[0.9,0.99]\0+trainer.x=1\0~callbacks.pictures",
    b"hydra.run.dir='a b'\0++model.more={a: [1, 2], b: null}\0data.classes=[a,b]",
    b"--multirun\0optim=sgd,adam\0seed=range(1,3)\0optim.lr=tag(log,interval(0.1,1))",
]


def arguments() -> st.SearchStrategy[bytes]:
    """Return overrides of known settings by strange values, and one time in four what is no override."""
    prefixes = st.sampled_from(["", "", "", "", "+", "++", "~"])
    keys = st.sampled_from([*keys_of(settings_of(compose_train())), *MORE_KEYS])
    parts = st.tuples(prefixes, keys, st.just("="), st.sampled_from(STRANGE_VALUES))
    typed = st.lists(parts.map("".join), min_size=1, max_size=3).map(lambda all_: "\0".join(all_).encode())
    return st.one_of(typed, typed, typed, hostile(OVERRIDES, [b"=", b"\0", b"--help", b"${", b"~", b"@:"]))


@tried(6, 1_000)
def test_arguments(inputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(content: bytes) -> None:
        typed = content.decode("utf-8", "surrogateescape").split("\0")
        monkeypatch.setattr(sys, "argv", [str(REPOSITORY / "train.py"), *typed])
        GlobalHydra.instance().clear()
        try:
            overrides = [one for one in prepare_overrides(typed) if not one.startswith("-")]
            with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
                config = compose("train", overrides=overrides)
            with open_dict(config):
                config.pop("hparams", None)  # they refer to what Hydra knows of a running job
            check(OmegaConf.to_container(config, resolve=True, throw_on_missing=True), TrainSettings)
        except Exception as error:
            message = messages.message_for_user(error)
            if message is None:
                raise
            raise UserError(message) from error

    read_all(read, arguments(), inputs, UserError, SweepError)


# --- Sweeps --------------------------------------------------------------------------------------


@tried(20, 1_500)
def test_folder_of_a_sweep(inputs: int, tmp_path: Path) -> None:
    sweep, run = tmp_path / "sweep", tmp_path / "sweep" / "0_lr-0.1"
    valid = {
        run / ".hydra" / "overrides.yaml": b"[optim=sgd]",
        run / "metrics.json": b'{"val/acc": 0.9}',
        run / "history.json": b"[]",
        run / "failed.json": b"{}",
        run / RESOLVED: RUN_SETTINGS,
        sweep / "multirun.yaml": DEFINITION,
    }

    def read(change: tuple[Path, bytes]) -> None:
        for path, content in (*valid.items(), change):
            written(path, content)
        found, goal = runs.find_runs([sweep]), runs.goal_of_sweep(sweep)
        writing.text(found, goal)
        writing.write_csv(sweep / "sweep.csv", found, goal)

    samples = [RUN_SETTINGS, DEFINITION, b'{"val/acc": 0.9, "epochs": 2}', b"[optim=sgd, seed=3]"]
    changes = st.tuples(st.sampled_from(list(valid)), hostile(samples, YAML_TOKENS))
    read_all(read, changes, inputs, SweepError)


def search_in(folder: Path) -> study.StudySearch:
    swept = ["optim=sgd,adam", "optim.lr=tag(log,interval(1e-4,1e-1))"]
    return study.StudySearch(
        space.distributions_of(grammar.parse(swept)),
        objectives={"val/acc": "maximize"},
        sampler={"_target_": "optuna.samplers.RandomSampler"},
        pruner={"_target_": "optuna.pruners.NopPruner"},
        folder=folder,
        sweep="s",
        n_trials=3,
        seed=1,
    )


@tried(60, 2_000)
def test_journal_of_a_search(inputs: int, tmp_path: Path) -> None:
    search_in(tmp_path / "valid").propose()  # a job that was interrupted
    journal = (tmp_path / "valid" / "study.journal").read_bytes()
    known: Sequence[str] = ("optim=sgd", "optim=adam")

    def read(content: bytes) -> None:
        written(tmp_path / "read" / "study.journal", content)
        search = search_in(tmp_path / "read")
        for proposal in [*search.left_over(), search.propose()]:
            for override in proposal.chosen if proposal else ():
                assert override in known or 1e-4 <= float(override.removeprefix("optim.lr=")) <= 1e-1

    tokens = [b"model._target_", b"os.system", b'"op_code": 9', b"1e999", b"null"]
    read_all(read, hostile([journal], tokens), inputs, SweepError)
