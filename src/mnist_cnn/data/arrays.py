"""Images and labels in one file of arrays: Keras' mnist.npz, Kaggle's train.csv."""

import logging
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_cnn.data.source import DataUnavailable, Source
from mnist_cnn.data.split import stratified_split
from mnist_cnn.errors import UserError, one_line
from mnist_cnn.preparation.grey_values import grey_values_of

log = logging.getLogger(__name__)

KEYS = ("x_train", "y_train", "x_test", "y_test")


class ArrayFile(Source):
    """Images and labels in a file of the folder `data.dir`.

    A .npz holds the arrays x_train, y_train, x_test and y_test, as Keras' mnist.npz does: images
    (N, H, W) or (N, H, W, 3), labels (N,). A .csv holds an image in each row: its label, then the pixels of
    a square, row by row; a first line of names is skipped. `test_size` rows, or that fraction of them, are
    kept for the test: each class in proportion, the same ones in every run.

    Values other than bytes are scaled. Black and white are `data.grey_values`, or else 0 and the largest
    number of the fewest bits that hold the values of the training images. False and True are 0 and 1.
    """

    def __init__(self, file: str, test_size: int | float = 0.2) -> None:
        self.file = file
        self.test_size = test_size
        self._loaded: list[NDArray[Any]] = []

    def fetch(self, directory: Path) -> str:
        """Check that the file is there; it is not downloaded."""
        path = directory / self.file
        if not path.is_file():
            raise DataUnavailable(
                f"There is no {path}. Give its folder and its name: data.dir=FOLDER data.source.file=NAME"
            )
        return str(path)

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, 1 or 3, H, W) and int64 labels (N,)."""
        path = directory / self.file
        self._loaded = self._loaded or self._load(path)
        black, white = self.preparation.grey_values or grey_values_of(self._loaded[0])
        if white <= black:
            raise UserError(f"{path}: all values of the training images are {black:g}.")
        if train and white != 255:
            log.info("%s: black is %g, white is %g", path, black, white)
        images, labels = self._loaded[:2] if train else self._loaded[2:]
        if (black, white) != (0, 255) or images.dtype != np.uint8:
            scaled = np.rint((images.astype(np.float32) - black) * (255 / (white - black)))
            images = scaled.clip(0, 255).astype(np.uint8)
        tensor = torch.from_numpy(images)
        tensor = tensor.unsqueeze(1) if tensor.dim() == 3 else tensor.permute(0, 3, 1, 2).contiguous()
        return tensor, torch.from_numpy(labels.astype(np.int64))

    def _load(self, path: Path) -> list[NDArray[Any]]:
        """Return the arrays of KEYS."""
        arrays = _read_npz(path) if path.suffix == ".npz" else self._read_csv(path)
        for images, labels in (arrays[:2], arrays[2:]):
            fits = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
            if not fits or labels.shape != images.shape[:1] or images.dtype.kind not in "uif":
                raise UserError(
                    f"{path} holds images {images.dtype} {images.shape} and labels {labels.shape}. Expected "
                    "images of numbers (N, H, W) or (N, H, W, 3) and labels (N,)."
                )
            if labels.dtype.kind not in "uif" or not (labels == np.rint(labels)).all():
                raise UserError(f"{path}: the labels should be whole numbers, 0 for the first class.")
        # the images of a .csv are of one table
        if path.suffix == ".npz" and self.preparation.grey_values is None and len(arrays[2]):
            _check_ranges(path, arrays[0], arrays[2])
        return arrays

    def _read_csv(self, path: Path) -> list[NDArray[Any]]:
        try:
            with path.open(encoding="utf-8-sig") as file:
                has_names = not _is_number(file.readline().split(",")[0].strip().strip('"'))
            rows = np.loadtxt(
                path,
                np.float32,
                delimiter=",",
                skiprows=int(has_names),
                encoding="utf-8-sig",
                ndmin=2,
                quotechar='"',
            )
        except ValueError as error:
            raise UserError(f"{path} is not a table of numbers: {one_line(error)}") from None
        side = math.isqrt(rows.shape[1] - 1) if rows.size else 0
        if side == 0 or side**2 != rows.shape[1] - 1:
            raise UserError(
                f"{path} has {rows.shape[1]} columns. Expected a label and the pixels of a square in each "
                "row, as in 785 columns of 28x28 pixels."
            )
        _check_finite(rows, f"{path} holds")
        labels, images = rows[:, 0], rows[:, 1:].reshape(-1, side, side)
        targets = torch.from_numpy(labels).long()
        parts = stratified_split(targets, self.test_size, seed=0, setting="data.source.test_size")
        train, test = (part.numpy() for part in parts)
        return [images[train], labels[train], images[test], labels[test]]


def _read_npz(path: Path) -> list[NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file]
            if missing:
                held = ", ".join(file.files[:8])
                raise UserError(f"{path} has no {missing[0]}; it has {held}. Expected {', '.join(KEYS)}.")
            arrays = [file[key] for key in KEYS]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not an .npz file of arrays: {one_line(error)}") from None
    for key, array in zip(KEYS, arrays, strict=True):
        _check_finite(array, f"{path}: {key} holds")
    return [array.astype(np.uint8) if array.dtype == bool else array for array in arrays]


def _check_finite(values: NDArray[Any], subject: str) -> None:
    """Raise `UserError` if a value is NaN or infinite: black and white would be so, too."""
    count = int((~np.isfinite(values)).sum()) if values.dtype.kind == "f" else 0
    if count:
        raise UserError(
            f"{subject} {count:,} of {values.size:,} values that are NaN or infinite. "
            "Replace them, for example with 0."
        )


def _check_ranges(path: Path, train: NDArray[Any], test: NDArray[Any]) -> None:
    """Raise `UserError` if the two arrays have not the same black and white.

    Values of one may lie outside of the other's black and white by half of the range. That tells [0, 1] from
    [-1, 1] and from 0 to 255, and lets pass a test image that is a little brighter.
    """
    for images, others in ((test, train), (train, test)):
        black, white = grey_values_of(others)
        margin = (white - black) / 2
        if images.min() < black - margin or images.max() > white + margin:
            raise UserError(
                f"{path}: the values of x_train are {train.min():g} to {train.max():g}, those of x_test "
                f"{test.min():g} to {test.max():g}. Black and white are the same numbers for both: scale one "
                "of the arrays, or give the numbers if the values are right, as in data.grey_values=[0,255]."
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
