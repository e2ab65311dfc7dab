"""The interface of a data set: get and verify its files, and read them."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

from filelock import FileLock
from torch import Tensor

from mnist_cnn.data.download import Unusable, gunzip, md5_of, read_bytes
from mnist_cnn.errors import UserError
from mnist_cnn.files import atomic_write

log = logging.getLogger(__name__)


class DataUnavailable(UserError):
    """The files of a data set could not be obtained, or they do not belong together."""


class Source(ABC):
    """A data set on disk.

    To add one, write a subclass and name it as `source._target_` in a file `conf/data/NAME.yaml`.
    `directory` is the setting `data.dir`. Mistakes of the user are raised as `UserError`.
    """

    @abstractmethod
    def fetch(self, directory: Path) -> str:
        """Make sure that the files are in `directory` and intact; return a phrase that says from where.

        Called once on each machine before `read`.
        """

    @abstractmethod
    def read(self, directory: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Return the training or the test images.

        Images are uint8 (N, C, H, W) with one (grey) or three (RGB) channels, targets int64 (N,).
        """

    @property
    def parts(self) -> list[str]:
        """Names of equally long consecutive parts of the test images that evaluate.py reports apart."""
        return []

    def classes(self, directory: Path) -> list[str] | None:
        """Return the class names by target where the files tell them, otherwise None. Must be cheap."""
        return None


class Offer(NamedTuple):
    """A place from which files can be obtained."""

    place: str  # for messages
    phrase: str  # the return value of `fetch` if this place was used
    fetch: Callable[[list[str]], Iterator[tuple[str, bytes]]]  # file names -> (name, unverified content)


class PublishedSource(Source):
    """A data set whose files have known MD5 checksums and can be downloaded.

    A file in the folder is used only if its checksum is right, so that every start verifies the data.
    """

    folder: ClassVar[str]  # below data.dir, as torchvision has it
    md5: ClassVar[dict[str, str]]  # by file name
    hints: ClassVar[tuple[str, ...]] = ()  # other ways to get the files, for the error message

    @abstractmethod
    def offers(self, directory: Path) -> Iterator[Offer]:
        """Yield the places to try, in order."""

    def check_format(self, content: bytes, file: str) -> None:
        """Raise `Unusable` where `content` is not in the format of `file`: this says more than a checksum."""

    def fetch(self, directory: Path) -> str:
        """Make sure that all files are in the folder and verified.

        Returns a short phrase that says where they came from. Raises `DataUnavailable` if no place has
        them, `OSError` if they cannot be written.
        """
        folder = directory / self.folder
        verified = f"{folder} (checksums verified)"
        # Without the lock, so that a folder without write permission can be used. This is safe: files
        # appear only by os.replace, complete.
        if all(_matches(folder / file, md5) for file, md5 in self.md5.items()):
            return verified

        name = type(self).__name__
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / f".{name}.lock"):
            missing = self._use_existing(folder)
            if not missing:
                return verified  # unpacked from .gz, or downloaded by another process in the meantime
            tried = [f"{folder}: no usable {', '.join(missing)}"]
            phrases = []
            for offer in self.offers(directory):
                log.info("Getting %d files of %s: %s", len(missing), name, offer.place)
                before = len(missing)
                try:
                    for file, content in offer.fetch(list(missing)):
                        self._check(content, file)
                        _write(folder / file, content)
                        missing.remove(file)
                except Unusable as reason:
                    tried.append(f"{offer.place}: {reason}")
                    log.info("%s", tried[-1])
                if len(missing) < before:
                    phrases.append(offer.phrase)
                if not missing:
                    return " and ".join(phrases)
        raise DataUnavailable(self._advice(folder, tried))

    def _check(self, content: bytes, file: str) -> None:
        self.check_format(content, file)
        if md5_of(content) != self.md5[file]:
            raise Unusable(f"wrong checksum: MD5 {md5_of(content)} instead of {self.md5[file]}")

    def _use_existing(self, folder: Path) -> list[str]:
        """Unpack usable .gz files, warn about each unusable file, and return the names of the missing ones.

        An unusable file stays until `_write` replaces it; an unusable .gz stays for good, and is not
        looked at again once the file next to it is right.
        """
        missing = []
        for file in self.md5:
            for path in (folder / file, folder / f"{file}.gz"):
                if not path.is_file():
                    continue
                try:
                    content = read_bytes(path)
                    if path.name != file:
                        content = gunzip(content)
                    self._check(content, file)
                except Unusable as reason:
                    log.warning("%s is not used and will be replaced: %s", path, reason)
                    continue
                if path.name != file:
                    _write(folder / file, content)
                break
            else:
                missing.append(file)
        return missing

    def _advice(self, folder: Path, tried: list[str]) -> str:
        lines = [
            f"{type(self).__name__} could not be obtained. Tried:",
            *(f"  - {line}" for line in tried),
            *self.hints,
            f"Or put these files, as they are or with .gz, into {folder.resolve()}:",
            *(f"  {file}" for file in self.md5),
            "Their checksums are verified at the next start.",
        ]
        return "\n".join(lines)


def _matches(path: Path, md5: str) -> bool:
    try:
        return path.is_file() and md5_of(read_bytes(path)) == md5
    except Unusable:
        return False


def _write(path: Path, content: bytes) -> None:
    """Let a complete file appear at `path`; the caller holds the lock, so one temporary name suffices."""
    with atomic_write(path) as aside:
        aside.write_bytes(content)
