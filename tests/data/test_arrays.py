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
