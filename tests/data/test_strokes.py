"""The drawn ones and sevens have MNIST's form, and are the same each time."""

from pathlib import Path

import numpy as np
import torch

from mnist_cnn.data.strokes import EuropeanDigits


def test_digits_have_the_form_of_mnist_and_are_the_same_each_time() -> None:
    source = EuropeanDigits(count=50)
    images, targets = source.read(Path(), train=True)
    assert (images.dtype, tuple(images.shape)) == (torch.uint8, (100, 1, 28, 28))
    assert torch.equal(images, source.read(Path(), train=True)[0])
    assert len(images.unique(dim=0)) == 100
    assert [source.classes(Path())[target] for target in targets[[0, 49, 50, 99]]] == ["1", "1", "7", "7"]
    for image in images[:, 0].numpy():
        rows, columns = np.nonzero(image > 127)
        assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
        assert (
            np.abs([np.average(axis, weights=image[rows, columns]) - 14 for axis in (rows, columns)]).max()
            < 2
        )
