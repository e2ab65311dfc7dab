"""Images and labels in one .npz or .csv file."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mnist_cnn.data import ArrayFile
from mnist_cnn.errors import UserError
from mnist_cnn.preparation.prepare import Preparation

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (20, 28, 28), dtype=np.uint8)
LABELS = np.arange(20) % 10


def make_source(file: str, **options: Any) -> ArrayFile:
    source = ArrayFile(file, **options)
    source.preparation = Preparation("digits", 1, 28)
    return source


@pytest.mark.parametrize("scale", [1, 255, 1 / 16])
def test_keras_file_is_read_with_its_split_and_scaled_to_bytes(
    scale: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    images = IMAGES if scale == 1 else (IMAGES / scale).astype(np.float32)
    parts = {"x_train": images[:15], "y_train": LABELS[:15], "x_test": images[15:], "y_test": LABELS[15:]}
    np.savez(tmp_path / "mnist.npz", **parts)
    source = make_source("mnist.npz")
    assert source.fetch(tmp_path) == str(tmp_path / "mnist.npz")
    for train, rows in ((True, slice(15)), (False, slice(15, 20))):
        read, targets = source.read(tmp_path, train)
        assert read.dtype == torch.uint8 and targets.dtype == torch.int64
        assert np.array_equal(read[:, 0].numpy(), IMAGES[rows]) or scale == 1 / 16
        assert np.array_equal(targets.numpy(), LABELS[rows])
        assert read.max() >= 250
    assert ("black is 0, white is" in caplog.text) == (scale != 1)


@pytest.mark.parametrize("header", [True, False])
def test_table_of_kaggle_is_read_and_split(header: bool, tmp_path: Path) -> None:
    names = ",".join(["label", *(f"pixel{index}" for index in range(784))])
    rows = np.column_stack([LABELS, IMAGES.reshape(20, -1)])
    path = tmp_path / "train.csv"
    np.savetxt(path, rows, "%d", ",", header=names if header else "", comments="")
    source = make_source("train.csv", test_size=0.5)
    (train, train_targets), (test, test_targets) = (source.read(tmp_path, part) for part in (True, False))
    assert train.shape == test.shape == (10, 1, 28, 28)
    assert train_targets.bincount().tolist() == test_targets.bincount().tolist() == [1] * 10
    found = {bytes(image.numpy()) for image in torch.cat([train, test])[:, 0]}
    assert found == {image.tobytes() for image in IMAGES}


@pytest.mark.parametrize("form", ["%.18e", '"%d"'])
def test_table_of_numbers_in_another_form_is_read_whole(form: str, tmp_path: Path) -> None:
    rows = np.column_stack([LABELS, IMAGES.reshape(20, -1)])
    np.savetxt(tmp_path / "train.csv", rows, form, ",")
    source = make_source("train.csv", test_size=0.5)
    (train, _), (test, _) = (source.read(tmp_path, part) for part in (True, False))
    found = {bytes(image.numpy()) for image in torch.cat([train, test])[:, 0]}
    assert found == {image.tobytes() for image in IMAGES}


def save_npz(folder: Path, train: Any, test: Any) -> ArrayFile:
    np.savez(folder / "a.npz", x_train=train, y_train=LABELS, x_test=test, y_test=LABELS)
    return make_source("a.npz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    images = IMAGES / 255
    with_one = images.copy()
    with_one[3, 2, 1] = value
    with pytest.raises(UserError, match=r"x_test holds 1 of 15,680 values that are NaN or infinite"):
        save_npz(tmp_path, images, with_one).read(tmp_path, train=True)
    np.savetxt(tmp_path / "a.csv", np.column_stack([LABELS, with_one.reshape(20, -1)]), delimiter=",")
    with pytest.raises(UserError, match=r"a\.csv holds 1 of 15,700 values that are NaN or infinite"):
        make_source("a.csv").read(tmp_path, train=True)


@pytest.mark.parametrize(
    ("train", "test"), [(IMAGES / 255, IMAGES), (IMAGES, IMAGES / 255), (IMAGES / 127.5 - 1, IMAGES / 255)]
)
def test_training_and_test_images_of_different_ranges_are_refused(
    train: Any, test: Any, tmp_path: Path
) -> None:
    source = save_npz(tmp_path, train, test)
    with pytest.raises(UserError, match=r"the values of x_train are .*, those of x_test .*data\.grey_values"):
        source.read(tmp_path, train=True)
    source.preparation = Preparation("digits", 1, 28, (0, 1))
    source.read(tmp_path, train=True)


def test_values_of_the_test_may_lie_a_little_outside(tmp_path: Path) -> None:
    images, _ = save_npz(tmp_path, IMAGES / 100 - 1, IMAGES / 95 - 1).read(tmp_path, train=False)
    assert images.max() == 255


def test_images_of_one_value_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="all values of the training images are 0"):
        save_npz(tmp_path, IMAGES * 0, IMAGES * 0).read(tmp_path, train=True)


def test_false_is_black_and_true_is_white(tmp_path: Path) -> None:
    images, _ = save_npz(tmp_path, IMAGES > 100, IMAGES > 100).read(tmp_path, train=True)
    assert np.array_equal(images[:, 0].numpy(), 255 * (IMAGES > 100))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"no arrays", "a.npz is not an .npz file of arrays"),
        (
            "a.npz",
            {"images": IMAGES},
            "a.npz has no x_train; it has images. Expected x_train, y_train, x_test",
        ),
        (
            "a.npz",
            {"x_train": IMAGES[0], "y_train": LABELS},
            r"holds images uint8 \(28, 28\) and labels \(20,\)",
        ),
        ("a.csv", b"name,size\na,b\n", "a.csv is not a table of numbers"),
        ("a.csv", b"1,2,3\n4,5,6\n", "a.csv has 3 columns. Expected a label and the pixels of a square"),
        ("a.csv", b"1.5,2\n4,5\n", "the labels should be whole numbers"),
        (
            "b.csv",
            None,
            "There is no .*b.csv. Give its folder and its name: data.dir=FOLDER data.source.file",
        ),
    ],
)
def test_other_files_are_refused_in_a_line(name: str, content: Any, message: str, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content:
        np.savez(
            tmp_path / name,
            **({"x_test": IMAGES, "y_test": LABELS} if "x_train" in content else {}),
            **content,
        )
    source = make_source(name, test_size=0.5)

    def use() -> None:
        source.fetch(tmp_path)
        source.read(tmp_path, train=True)

    with pytest.raises(UserError, match=message) as caught:
        use()
    assert "\n" not in str(caught.value)
