"""Image files in one folder for each class."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_cnn.data import ImageFolder
from mnist_cnn.errors import UserError
from mnist_cnn.preparation.prepare import Preparation
from tests.preparation.drawing import FIVE, ONE, draw


def make_source(test_size: float = 0.25, preparation: Preparation | None = None) -> ImageFolder:
    source = ImageFolder(test_size)
    source.preparation = preparation or Preparation("resize", channels=1, size=8)
    return source


def save(path: Path, image: Image.Image | int = 0) -> None:
    """Save an image, or one that is all of that grey level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.new("L", (8, 8), image) if isinstance(image, int) else image).save(path)


# --- Folders and classes -------------------------------------------------------------------------


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    for name in ("10", "9", "b", "A", "image 2", "image 10", ".hidden"):
        save(tmp_path / name / "a.png")
    assert make_source().classes(tmp_path) == ["9", "10", "A", "b", "image 2", "image 10"]


def test_without_test_folder_a_stratified_share_is_kept(tmp_path: Path) -> None:
    for index in range(12):
        save(tmp_path / "a" / "deeper" / f"{index}.png", index)
    for index in range(4):
        save(tmp_path / "b" / f"{index}.png", 100 + index)
    source = make_source()
    assert source.fetch(tmp_path) == str(tmp_path)
    (train, train_targets), (test, test_targets) = (source.read(tmp_path, part) for part in (True, False))
    assert (train_targets.bincount().tolist(), test_targets.bincount().tolist()) == ([9, 3], [3, 1])
    levels = torch.cat([train, test])[:, 0, 0, 0].sort().values
    assert levels.tolist() == [*range(12), *range(100, 104)]
    assert torch.equal(source.read(tmp_path, False)[0], test)
    assert source.read_validation(tmp_path) is None


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("training", None, "testing"),  # mnist_png
        ("train", "valid", "test"),
        ("Train", "Validation", "Test"),
        ("train", None, "val"),  # ImageNet
    ],
)
def test_folders_of_parts_are_used(
    train: str, val: str | None, test: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    levels = {part: level for part, level in ((train, 50), (val, 100), (test, 150)) if part}
    for part, level in levels.items():
        save(tmp_path / part / "a" / "x.png", level)
    save(tmp_path / train / "b" / "x.png", 60)  # no other image of this class
    save(tmp_path / "more" / "a" / "x.png")
    source = make_source()
    assert source.classes(tmp_path) == ["a", "b"]
    assert f"test: {test}" in source.fetch(tmp_path)
    assert "folders not used: more" in caplog.text
    images, targets = source.read(tmp_path, train=True)
    assert (images[:, 0, 0, 0].tolist(), targets.tolist()) == ([50, 60], [0, 1])
    images, targets = source.read(tmp_path, train=False)
    assert (images[:, 0, 0, 0].tolist(), targets.tolist()) == ([150], [0])
    validation = source.read_validation(tmp_path)
    assert (validation and validation[0][:, 0, 0, 0].tolist()) == ([100] if val else None)


def test_class_may_be_called_test(tmp_path: Path) -> None:
    for name in ("test", "train"):
        save(tmp_path / name / "a.png")
    assert make_source().classes(tmp_path) == ["test", "train"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["a/x.png", "b/x.png", "test/a/x.png", "test/b/x.png"],
            r"test holds the folders a, b: .*Move the class folders for training to",
        ),
        (
            ["part1/a/x.png", "part1/b/x.png", "part2/a/x.png", "part2/b/x.png"],
            "part1 holds the folders a, b: it looks like a part of a data set",
        ),
        (["a.png"], "holds no folders. Put the images into at least two class folders"),
        (["one/a.png"], "holds only the folder one. Put the images"),
    ],
)
def test_folders_that_are_no_classes_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(UserError, match=message):
        make_source().fetch(tmp_path)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.dir=.*/none: there is no such folder.*data\.dir=PATH"):
        make_source().classes(tmp_path / "none")


def test_unknown_test_class_is_refused(tmp_path: Path) -> None:
    for path in ("train/a/x.png", "train/b/x.png", "test/c/x.png"):
        save(tmp_path / path)
    with pytest.raises(UserError, match=r"holds the class c, which .* Classes with training images: a, b"):
        make_source().read(tmp_path, train=False)


def test_no_test_images_are_refused(tmp_path: Path) -> None:
    for path in ("a/x.png", "b/x.png"):
        save(tmp_path / path)
    with pytest.raises(UserError, match=r"has no readable test images.*data\.source\.test_size=0"):
        make_source(test_size=0).read(tmp_path, train=False)


# --- Files ---------------------------------------------------------------------------------------


def test_broken_files_are_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(3):
        save(tmp_path / "train" / "a" / f"good {index}.png", 50 + index)
    save(tmp_path / "train" / "b" / "good.png", 60)
    save(tmp_path / "test" / "b" / "good.png")
    whole = (tmp_path / "train" / "b" / "good.png").read_bytes()
    broken = {
        "cut.png": whole[:50],
        "empty.png": b"",
        "notes.txt": b"hello",
        "page.eps": b"%!PS-Adobe-3.0 EPSF",
    }
    for name, content in broken.items():
        (tmp_path / "train" / "a" / name).write_bytes(content)
    Image.new("1", (10_200, 5000)).save(tmp_path / "train" / "a" / "large.png")
    (tmp_path / "train" / "b" / "last.png").write_bytes(b"")

    images, targets = make_source().read(tmp_path, train=True)
    assert images[:, 0, 0, 0].tolist() == [50, 51, 52, 60]
    assert targets.tolist() == [0, 0, 0, 1]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    first, *named = record.getMessage().splitlines()
    assert first == "left out because they cannot be read as images (6):"
    files = [line.strip().split(": ")[0].rpartition("/")[2] for line in named]
    assert files == ["cut.png", "empty.png", "large.png", "notes.txt", "page.eps", "…"]
    assert "larger than the limit of 50 megapixels" in caplog.text


def test_class_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a" / "good.png")
    save(tmp_path / "test" / "a" / "good.png")
    (tmp_path / "train" / "b").mkdir()
    (tmp_path / "train" / "b" / "bad.png").write_bytes(b"bad")
    with pytest.raises(UserError, match=r"No image of the class b .* can be read for training"):
        make_source().read(tmp_path, train=True)


def test_grey_values_are_those_of_the_whole_data_set(tmp_path: Path) -> None:
    for name, level in (("a", 500), ("b", 4000)):
        save(tmp_path / name / "x.tif", Image.fromarray(np.full((8, 8), level, np.uint16)))
    source = make_source(0)
    assert source.grey_values(tmp_path) == (0, 4095)
    source.preparation = Preparation("resize", 1, 8, source.grey_values(tmp_path))
    images, _ = source.read(tmp_path, train=True)
    assert images[:, 0, 0, 0].tolist() == [round(500 / 4095 * 255), round(4000 / 4095 * 255)]


def test_images_of_8_bits_that_are_nearly_black_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        save(tmp_path / name / "x.png", 1)
    make_source(0).read(tmp_path, train=True)
    assert "No pixel of the training images is brighter than 1 of 255" in caplog.text


def test_digits_are_found_in_the_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, strokes in (("1", ONE), ("5", FIVE)):
        ink = np.pad(draw(strokes), 40)
        save(tmp_path / name / "x.png", Image.fromarray(np.rint(255 * (1 - ink)).astype(np.uint8)))
    save(tmp_path / "5" / "blank.png", 255)
    images, targets = make_source(0, Preparation("digits", 1, 28)).read(tmp_path, train=True)
    assert images.shape == (2, 1, 28, 28) and targets.tolist() == [0, 1]
    assert images[:, 0, 0].max() == 0 and images.amax((1, 2, 3)).tolist() == [255, 255]
    assert "blank.png: no digit found" in caplog.text
