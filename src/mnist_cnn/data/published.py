"""Data sets whose files are published with checksums: verified, and downloaded if they are missing."""

import gzip
import hashlib
import logging
import os
import pickle
import shutil
import socket
import zlib
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from filelock import FileLock

from mnist_cnn.data.source import DataUnavailable, Source
from mnist_cnn.files import atomic_write

log = logging.getLogger(__name__)

MAX_BYTES = 200_000_000  # of a file, packed or unpacked; the archive of CIFAR-10 has 170,498,071
SILENCE = 5.0  # seconds without an answer after which an address is given up

Download = Callable[[Path], None]  # writes the files to a folder, laid out like data.dir


class Unusable(Exception):
    """A file or a place that cannot be used; the message says why."""


class PublishedSource(Source):
    """A data set whose files have known MD5 checksums and can be downloaded.

    A file is used only if its checksum is right, so every start verifies the data.
    """

    name: ClassVar[str]  # of the class in torchvision.datasets
    folder: ClassVar[str]  # below data.dir, as torchvision has it
    md5: ClassVar[dict[str, str]]  # by file name
    installed: ClassVar[Path | None] = None  # where a package of the system puts the files, as .gz
    hints: ClassVar[tuple[str, ...]] = ()  # other ways to get the files, for the error message

    def places(self, directory: Path) -> Iterator[tuple[str, Download]]:
        """Yield the places to download from, in order, each with its name."""
        yield "torchvision's mirrors", self._download_with_torchvision

    def fetch(self, directory: Path) -> str:
        """Make sure that all files are in the folder and verified.

        Returns a short phrase that says where they came from. Raises `DataUnavailable` if no place has
        them, `OSError` if they cannot be written.
        """
        folder = directory / self.folder
        verified = f"{folder} (checksums verified)"
        # Without the lock, so that a folder without write permission can be used. This is safe: files
        # appear by os.replace, complete.
        if all(_is_intact(folder / file, md5) for file, md5 in self.md5.items()):
            return verified

        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / f".{self.name}.lock"):
            missing = self._use_existing(folder)
            if not missing:
                return verified  # unpacked from .gz, or downloaded by another process in the meantime
            tried = [f"{folder}: no usable {', '.join(missing)}"]
            aside = directory / f".{self.name}.part"
            for place, download in self.places(directory):
                log.info("Getting %s: %s", self.name, place)
                shutil.rmtree(aside, ignore_errors=True)  # left behind by a process that was killed
                try:
                    download(aside)
                    self._take(missing, aside / self.folder, folder)
                    return f"downloaded from {place}"
                except Unusable as reason:
                    tried.append(f"{place}: {reason}")
                    log.info("%s", tried[-1])
                finally:
                    shutil.rmtree(aside, ignore_errors=True)
        raise DataUnavailable(self._advice(folder, tried))

    def _use_existing(self, folder: Path) -> list[str]:
        """Unpack usable .gz files, warn about each unusable file, and return the names of the missing ones.

        Nothing is deleted: an unusable file stays until a good one replaces it.
        """
        missing = []
        for file, md5 in self.md5.items():
            packed = [folder / f"{file}.gz"]
            if self.installed is not None:
                packed.append(self.installed / f"{file}.gz")
            for path in (folder / file, *packed):
                if not path.exists():
                    continue
                try:
                    content = read_file(path, unpack=path in packed)
                    check(content, md5)
                except Unusable as reason:
                    log.warning("%s is not used and will be replaced: %s", path, reason)
                    continue
                if path in packed:
                    with atomic_write(folder / file) as aside:
                        aside.write_bytes(content)
                break
            else:
                missing.append(file)
        return missing

    def _take(self, files: list[str], downloaded: Path, folder: Path) -> None:
        for file in files:
            check(read_file(downloaded / file), self.md5[file])
        for file in files:
            os.replace(downloaded / file, folder / file)

    def _download_with_torchvision(self, folder: Path) -> None:
        import torchvision.datasets  # here, because it takes seconds and is seldom needed

        former = socket.getdefaulttimeout()
        socket.setdefaulttimeout(SILENCE)  # torchvision sets none of its own
        try:
            getattr(torchvision.datasets, self.name)(folder, download=True)
        except (RuntimeError, OSError, HTTPException) as error:
            raise Unusable(" ".join(str(error).split()) or type(error).__name__) from None
        finally:
            socket.setdefaulttimeout(former)

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


def read_file(path: Path, unpack: bool = False) -> bytes:
    """Return the content of a file, unpacked with gzip if asked for.

    Raises `Unusable` unless it is a regular file of at most `MAX_BYTES`, and a whole gzip file.
    """
    if not path.is_file():
        raise Unusable("not a file")  # opening a pipe or a device can block
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise Unusable(f"{size:,} bytes; at most {MAX_BYTES:,} are read")
    if not unpack:
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise Unusable("not a whole gzip file") from None
    if len(content) > MAX_BYTES:
        raise Unusable(f"more than {MAX_BYTES:,} bytes when unpacked")
    return content


def load_arrays(file: IO[bytes] | gzip.GzipFile) -> Any:
    """Load a pickle of numpy arrays and plain values; raises `UnpicklingError` if it names anything else.

    The file must have been verified.
    """
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


def check(content: bytes, md5: str) -> None:
    """Raise `Unusable` unless the checksum of `content` is `md5`."""
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if actual != md5:
        raise Unusable(f"wrong checksum: MD5 {actual} instead of {md5}")


def _is_intact(path: Path, md5: str) -> bool:
    try:
        check(read_file(path), md5)
    except Unusable:
        return False
    return True
