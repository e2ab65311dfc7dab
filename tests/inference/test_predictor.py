"""The network of a checkpoint applied to files, in the form that it was trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_cnn.data import ImageData, ImageFolder
from mnist_cnn.data.images import convert
from mnist_cnn.export.formats import MODULES
from mnist_cnn.export.network import load_trained
from mnist_cnn.inference.predictor import Predictor
from mnist_cnn.preparation.digits import to_mnist_form
from mnist_cnn.training.classifier import Classifier
from tests.conftest import make_data
from tests.export.checkpoint import save
from tests.inference.checkpoint import write_checkpoint
from tests.preparation.drawing import FIVE, ONE, draw


@pytest.mark.parametrize(
    ("model", "channels", "size", "given"),
    [("SimpleCNN", 1, 28, (1, 28)), ("CnnNet", 1, 32, (1, 32)), ("CnnNet", 3, 32, (3, 32))],
)
def test_scores_are_those_of_the_network_on_normalized_images(
    model: str, channels: int, size: int, given: tuple[int, int], tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path / "a.ckpt", model, channels)
    images = torch.randint(256, (7, 1, 28, 28), dtype=torch.uint8)
    scores = Predictor.load(path).scores(images.numpy())
    classifier = Classifier.load_from_checkpoint(path)
    normalized = make_data(image_size=size).normalize(convert(images, *given))
    with torch.no_grad():
        expected = classifier(normalized).softmax(1)
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("format_", ["onnx", "safetensors"])
def test_exported_file_gives_the_scores_of_its_checkpoint(format_: str, tmp_path: Path) -> None:
    ckpt = save(tmp_path, "cnnnet")
    path = tmp_path / f"network.{format_}"
    MODULES[format_].write(*load_trained(ckpt), path)
    images = np.random.default_rng(0).integers(256, size=(3, 1, 28, 28), dtype=np.uint8)
    exported, original = Predictor.load(path), Predictor.load(ckpt)
    assert exported.classes == original.classes
    np.testing.assert_allclose(exported.scores(images), original.scores(images), rtol=1e-3, atol=1e-5)


def test_many_images_are_scored_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor.load(write_checkpoint(tmp_path / "a.ckpt"))
    images = np.random.default_rng(0).integers(256, size=(5, 1, 28, 28), dtype=np.uint8)
    together = predictor.scores(images)
    monkeypatch.setattr("mnist_cnn.inference.predictor.BATCH", 2)
    np.testing.assert_allclose(predictor.scores(images), together, rtol=1e-4, atol=1e-6)


def test_outputs_of_a_regression_are_not_made_probabilities(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a.ckpt", loss="mnist_cnn.training.losses.OneHotMSELoss")
    scores = Predictor.load(path).scores(np.zeros((2, 1, 28, 28), np.uint8))
    assert not np.allclose(scores.sum(1), 1)


def test_files_are_read_in_order_and_errors_belong_to_their_file(tmp_path: Path) -> None:
    for name, strokes in (("1.png", ONE), ("5.png", FIVE)):
        Image.fromarray(np.rint(255 * draw(strokes)).astype(np.uint8)).save(tmp_path / name)
    (tmp_path / "none.png").write_text("no image")
    files = [tmp_path / name for name in ("5.png", "none.png", "1.png")]
    predictor = Predictor.load(write_checkpoint(tmp_path / "a.ckpt"))
    five, none, one = predictor.read(files)
    np.testing.assert_allclose(five.images[0, 0], to_mnist_form(draw(FIVE)), atol=1)  # the file has 8 bits
    np.testing.assert_allclose(one.scores, predictor.scores(one.images), rtol=1e-4)
    assert none.error is not None and "not an image" in none.error
    assert len(none.images) == len(none.scores) == 0
    assert five.error is None
    assert predictor.read([]) == []


@pytest.mark.parametrize(("prepare", "channels"), [("resize", 1), ("resize", 3), ("digits", 1)])
@pytest.mark.parametrize("model", ["SimpleCNN", "CnnNet"])
def test_files_are_prepared_as_in_training(model: str, prepare: str, channels: int, tmp_path: Path) -> None:
    for label, strokes in (("1", ONE), ("5", FIVE)):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for number in range(2):
            ink = np.pad(draw(strokes, 100 + number), ((20, 30 + number), (10, 60)))[..., None]
            pixels = 255 * (1 - ink) * [1, 0.9, 0.7]
            Image.fromarray(np.rint(pixels).astype(np.uint8)).save(folder / f"{number}.png")
    ckpt = write_checkpoint(tmp_path / "a.ckpt", model, channels, prepare=prepare)
    size = Classifier.load_from_checkpoint(ckpt).network.image_size if model == "CnnNet" else 28
    form = {"mean": 0.5, "std": 0.5, "in_channels": channels, "image_size": size, "prepare": prepare}
    data = ImageData(
        ImageFolder(0.5), str(tmp_path / "images"), 64, 0, **form, num_classes=None, classes=["1", "5"]
    )
    data.setup()
    predictor = Predictor.load(ckpt)
    files = sorted((tmp_path / "images").rglob("*.png"))
    read = [reading.scores for reading in predictor.read(files)]
    trained = torch.cat([part.images for part in (data.train, data.test)]).numpy()
    expected = predictor.scores(trained)
    for scores in read:  # each file gives what one of the images of the training gives
        assert np.abs(expected - scores).max(1).min() < 1e-6
    assert len(np.unique(trained.reshape(len(trained), -1), axis=0)) == 4


@pytest.mark.parametrize(
    ("trained", "highest", "expected"),
    [([0, 4095], 900, 4095), ([0, 4095], 60_000, 65_535), (None, 900, 1023)],
)
def test_grey_values_are_those_of_the_training_unless_files_exceed_them(
    trained: list[int] | None, highest: int, expected: int, tmp_path: Path
) -> None:
    Image.fromarray(np.full((9, 9), highest, np.uint16)).save(tmp_path / "a.png")
    predictor = Predictor.load(write_checkpoint(tmp_path / "a.ckpt", prepare="resize"))
    predictor = replace(predictor, preparation=replace(predictor.preparation, grey_values=trained))
    (reading,) = predictor.read([tmp_path / "a.png"])
    assert reading.images.max() == round(255 * highest / expected)
