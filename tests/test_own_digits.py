"""The benchmark of own digits: MNIST's images are not changed on the way, and conditions are as seeded."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.own_digits import CONDITIONS, accuracies, render, through_files
from mnist_cnn.data import MNIST
from mnist_cnn.inference.predictor import Predictor
from tests.inference.checkpoint import write_checkpoint


def test_accuracy_on_images_of_mnist_is_that_without_files(mnist: Path, tmp_path: Path) -> None:
    images = MNIST().read(mnist, train=True)[0]
    predictor = Predictor.load(write_checkpoint(tmp_path / "a.ckpt"))
    digits = images[:2000, 0].numpy()
    labels = predictor.scores(digits[:, None]).argmax(1)  # of an untrained network: any change counts
    direct, read = through_files(predictor, digits, labels)
    assert direct == 1
    assert read >= 1 - 0.0005


@pytest.mark.parametrize("name", ["scan 16x16 binary", "photograph with shadow", "crossed seven"])
def test_condition_is_the_same_each_time(name: str, mnist: Path, tmp_path: Path) -> None:
    digits = MNIST().read(mnist, train=True)[0][:2, 0].numpy()
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        written.append([file.read_bytes() for file in render(name, digits, folder)])
    assert written[0] == written[1]
    assert written[0][0] != written[0][1]


def test_misread_digits_are_kept_to_look_at(mnist: Path, tmp_path: Path) -> None:
    images, targets = MNIST().read(mnist, train=True)
    predictor = Predictor.load(write_checkpoint(tmp_path / "a.ckpt"))
    (name,) = (name for name in CONDITIONS if name == "mnist itself")
    (rate,) = accuracies([predictor], images[:20, 0].numpy(), targets[:20].numpy(), name, tmp_path / "keep")
    assert len(list((tmp_path / "keep").iterdir())) == np.rint(20 * (1 - rate))
