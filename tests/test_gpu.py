"""Training on GPUs, on generated images, so that neither a network nor MNIST is needed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Command
from tests.runs import jobs_of, only_run, processes_of, weights

GPUS = torch.cuda.device_count()
gpu = pytest.mark.skipif(GPUS < 1, reason="there is no CUDA GPU")
gpus = pytest.mark.skipif(GPUS < 2, reason="there are fewer than two CUDA GPUs")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder with 200 images of noise in two classes, bright and dark."""
    generator = np.random.default_rng(0)
    for label, brightness in (("bright", 255), ("dark", 80)):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for number in range(100):
            pixels = generator.integers(brightness, size=(28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "images"


@pytest.fixture
def train(new_process: Command, images: Path) -> Command:
    """Run train.py on the generated images; it must succeed."""

    def run(*arguments: str) -> object:
        done = new_process(
            "train.py",
            "data=folder",
            f"data.dir={images}",
            "trainer.max_epochs=2",
            "model=cnnnet",
            *arguments,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run  # type: ignore[return-value]


@pytest.mark.gpu
@gpu
def test_run_on_a_gpu_is_reproducible_and_evaluated_to_the_same_metrics(
    train: Command, new_process: Command, mnist: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        done = train("trainer=gpu", "metrics=f1", f"hydra.run.dir={name}")
        assert "1 x cuda:0" in done.stdout
    assert torch.equal(weights(tmp_path / "one"), weights(tmp_path / "two"))
    trained = json.loads((tmp_path / "one" / "metrics.json").read_text())
    native = torch.cuda.get_device_capability() >= (8, 0)
    assert trained["precision"] == ("bf16-mixed" if native else "32-true")
    new_process("evaluate.py", "ckpt=one/checkpoints/best.ckpt", f"data.dir={mnist}")
    evaluated = json.loads((only_run(tmp_path, "evaluations") / "evaluation.json").read_text())
    assert evaluated["test/acc"] == trained["test/acc"]
    assert evaluated["test/f1"] == pytest.approx(trained["test/f1"])


@pytest.mark.gpu
@gpu
def test_run_on_a_gpu_is_resumed_to_the_same_weights(train: Command, tmp_path: Path) -> None:
    train("trainer=gpu", "trainer.max_epochs=4", "hydra.run.dir=whole")
    train("trainer=gpu", "trainer.max_epochs=2", "hydra.run.dir=part")
    train("resume=part", "trainer.max_epochs=4")
    assert torch.equal(weights(tmp_path / "part"), weights(tmp_path / "whole"))


@pytest.mark.gpu
@gpu
def test_pool_places_its_jobs_on_the_gpus(train: Command, tmp_path: Path) -> None:
    train("-m", "hydra/launcher=pool", "trainer=gpu", "seed=0,1", "hydra.launcher.n_jobs=2")
    for job in jobs_of(only_run(tmp_path, "sweeps")):
        assert "cuda:0" in json.loads((job / "metrics.json").read_text())["device"]


@pytest.mark.gpus
@gpus
def test_two_gpus_train_one_network_alone_and_in_a_sweep(train: Command, tmp_path: Path) -> None:
    two = ("trainer=ddp", "trainer.accelerator=gpu", "trainer.devices=2")
    train(*two, "hydra.run.dir=alone")
    train("-m", *two, "optim=sgd,adam")
    alone = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    assert alone["devices"] == 2
    jobs = jobs_of(only_run(tmp_path, "sweeps"))
    assert torch.equal(weights(jobs[0]), weights(tmp_path / "alone"))
    assert processes_of(tmp_path) == []


@pytest.mark.gpus
@gpus
def test_failing_rank_under_nccl_fails_its_job(new_process: Command, images: Path, tmp_path: Path) -> None:
    two = ("trainer=ddp", "trainer.accelerator=gpu", "trainer.devices=2")
    done = new_process("train.py", "data=folder", f"data.dir={images}", *two, "optim.lr=1e30")
    assert done.returncode == 1
    assert "The loss is" in done.stderr
    assert processes_of(tmp_path) == []
