"""Fixtures of several tests: the data, small stand-ins for it, and the commands as a user types them."""

import os

# Tests run two at a time. With as many threads as cores each, they would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import multiprocessing
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.forkserver import ensure_running
from pathlib import Path

import pytest
import torch

from mnist_cnn.data import MNIST, ImageData
from mnist_cnn.data.datamodule import ImagesInMemory

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY / "data"
TIMEOUT = 250  # seconds for a command

# The imports of train.py that take seconds. They are done once, in the process that forks the commands.
PRELOADED = (
    "hydra",
    "lightning",
    "mnist_cnn.commands",
    "mnist_cnn.settings",
    "mnist_cnn.reporting.summary",
    "mnist_cnn.reporting.progress",
    "mnist_cnn.reporting.loggers",
    "mnist_cnn.reporting.network_figures",
    "mnist_cnn.training.checkpoints",
    "mnist_cnn.training.trainer",
)

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def forkserver() -> None:
    """Start the process that forks the commands, before a test of the pool starts one with other imports."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    ensure_running()


@pytest.fixture(scope="session")
def mnist() -> Path:
    """Return the folder of real MNIST, which is downloaded once and then kept."""
    MNIST().fetch(DATA)
    return DATA


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a command: that of the tests, without settings of Hydra."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA_", "MNIST_CNN_"))}
    return inherited | changes


@pytest.fixture
def command(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Run a script of the repository in a fresh folder; return what it printed and its exit code.

    The process is forked from one that has imported Lightning, which saves seconds a command.
    """

    streams = tmp_path_factory.mktemp("streams")

    def run(script: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        context = multiprocessing.get_context("forkserver")
        out, err = (Path(tempfile.mkstemp(dir=streams)[1]) for _ in range(2))
        process = context.Process(
            target=_run_script, args=(script, arguments, tmp_path, environment(**changes), out, err)
        )
        process.start()
        process.join(TIMEOUT)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError(f"{script} {' '.join(arguments)}\n{out.read_text()}\n{err.read_text()}")
        assert process.exitcode is not None
        return subprocess.CompletedProcess(
            [script, *arguments], process.exitcode, out.read_text(), err.read_text()
        )

    return run


def _run_script(
    script: str, arguments: Sequence[str], folder: Path, variables: dict[str, str], out: Path, err: Path
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = [str(REPOSITORY / script), *arguments]
    sys.path[:0] = [str(REPOSITORY), *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))]
    runpy.run_path(sys.argv[0], run_name="__main__")


@pytest.fixture
def new_process(tmp_path: Path) -> Command:
    """Run a script like `command`, in a new process that imports everything itself."""

    def run(script: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(REPOSITORY / script), *arguments],
            cwd=tmp_path,
            env=environment(**changes),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )

    return run


@pytest.fixture
def train(command: Command, mnist: Path) -> Command:
    """Run train.py on real MNIST in a fresh folder; it must succeed."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = command("train.py", f"data.dir={mnist}", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def small_data() -> ImageData:
    """Return 96 training, 32 validation and 37 test images of noise, ready to use."""
    data = make_data()
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> ImagesInMemory:
        pixels = torch.randint(256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
        return ImagesInMemory(pixels, torch.randint(10, (count,), generator=generator))

    data.train, data.val, data.test = images(96), images(32), images(37)
    data.prepare_data = lambda: None  # type: ignore[method-assign]
    return data


def make_data(
    directory: Path = DATA, val_size: int = 5000, batch_size: int = 32, image_size: int = 28, seed: int = 0
) -> ImageData:
    """Return the data module of conf/data/mnist.yaml."""
    return ImageData(
        source=MNIST(),
        dir=str(directory),
        batch_size=batch_size,
        val_size=val_size,
        mean=0.5,
        std=0.5,
        in_channels=1,
        num_classes=10,
        classes=[str(digit) for digit in range(10)],
        image_size=image_size,
        seed=seed,
    )
