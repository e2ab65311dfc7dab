"""Images of one's own: trained on, evaluated and read with one preparation."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_cnn.data import MNIST
from tests.conftest import Command
from tests.runs import only_run


def save_digits(folder: Path, mnist: Path, train: bool, count: int) -> None:
    """Save digits of MNIST as people draw them: black on white, anywhere, in a folder for each class."""
    images, targets = MNIST().read(mnist, train)
    rng = np.random.default_rng(0)
    for index in range(count):
        digit = Image.fromarray(255 - images[index, 0].numpy()).resize((60, 60), Image.Resampling.BICUBIC)
        canvas = Image.new("L", (100, 100), 255)
        canvas.paste(digit, tuple(int(place) for place in rng.integers(0, 41, 2)))
        path = folder / str(int(targets[index])) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.save(path)


def accuracy_in(output: str) -> float:
    (line,) = (line for line in output.splitlines() if line.startswith("test accuracy"))
    return float(line.split(": ")[1].split("%")[0]) / 100


@pytest.mark.parametrize("prepare", ["resize", "digits"])
def test_predictions_are_as_accurate_as_the_test(
    prepare: str, command: Command, mnist: Path, tmp_path: Path
) -> None:
    save_digits(tmp_path / "digits" / "training", mnist, True, 200)
    save_digits(tmp_path / "digits" / "testing", mnist, False, 100)
    options = ["optim=adam", "optim.lr=0.003", "trainer.max_epochs=4", "logger=none", "callbacks=none"]
    done = command("train.py", "data=folder", "data.dir=digits", f"data.prepare={prepare}", *options)
    assert done.returncode == 0, done.stderr
    assert "test: testing" in done.stdout and "classes    10: 0 (" in done.stdout
    ckpt = next((tmp_path / "logs" / "runs").glob("*/checkpoints/best.ckpt"))
    done_again = command("predict.py", f"ckpt='{ckpt}'", "images='digits/testing/*/*.png'")
    assert done_again.returncode == 0, done_again.stderr
    with (only_run(tmp_path, "predictions") / "predictions.csv").open(newline="") as file:
        right = [Path(row["file"]).parent.name == row["digit"] for row in csv.DictReader(file)]
    assert len(right) == 100
    assert np.mean(right) == pytest.approx(accuracy_in(done.stdout), abs=0.02)


def test_digits_of_ones_own_are_evaluated_as_they_are_predicted(
    command: Command, mnist: Path, tmp_path: Path
) -> None:
    save_digits(tmp_path / "digits", mnist, False, 200)
    options = ["optim=adam", "trainer.limit_train_batches=300", "trainer.max_epochs=1", "logger=none"]
    limits = ["trainer.limit_val_batches=2", "trainer.limit_test_batches=2"]
    done = command("train.py", f"data.dir={mnist}", "callbacks=none", *limits, *options)
    assert done.returncode == 0, done.stderr
    ckpt = next((tmp_path / "logs" / "runs").glob("*/checkpoints/best.ckpt"))
    evaluated = command("evaluate.py", f"ckpt='{ckpt}'", "data=folder", "data.dir=digits")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "images are prepared as for the training: data.prepare=digits" in evaluated.stdout
    assert accuracy_in(evaluated.stdout) > 0.9
    (tmp_path / "digits" / "0").rename(tmp_path / "digits" / "zero")
    refused = command("evaluate.py", f"ckpt='{ckpt}'", "data=folder", "data.dir=digits")
    assert refused.returncode == 1
    assert (
        "The data holds the class zero, which is none of those of the checkpoint: 0, 1, 2" in refused.stderr
    )
