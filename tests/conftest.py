"""What several tests need: the data, small stand-ins for it, and the commands as a user types them."""

import os

# Tests run two at a time. With as many threads as cores each, they would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mnist_cnn.data import MNIST, ImageData
from mnist_cnn.data.datamodule import ImagesInMemory

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY / "data"

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def mnist() -> Path:
    """Return the folder of real MNIST, which is fetched once and then kept."""
    MNIST().fetch(DATA)
    return DATA


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run a script of the repository in a fresh folder, and return what it printed and its exit code."""

    def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA_", "MNIST_CNN_"))}
        return subprocess.run(
            [sys.executable, str(REPOSITORY / script), *arguments],
            cwd=tmp_path,
            env=inherited | environment,
            capture_output=True,
            text=True,
            timeout=250,
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
