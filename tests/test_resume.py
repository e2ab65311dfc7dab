"""Runs of train.py that are killed or stopped at any moment, and resumed, on real MNIST."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_cnn.training.loading import load
from tests.conftest import Command, Start
from tests.runs import SHORT, jobs_of, only_run, processes_of, scalars, weights

RUN = (
    *SHORT,
    "trainer.limit_train_batches=40",
    "trainer.max_epochs=4",
    "trainer.limit_val_batches=2",
    "checkpoint.every_n_steps=7",
    "callbacks=ema",
    "augment=elastic",
    "optim=adam",
    "scheduler=onecycle",
)


def assert_same_result(one: Path, other: Path) -> None:
    for name in ("last", "best"):
        assert torch.equal(weights(one, name), weights(other, name))
    assert scalars(one) == scalars(other)
    assert (one / "history.json").read_bytes() == (other / "history.json").read_bytes()
    results: list[dict[str, Any]] = [
        {key: value for key, value in json.loads((run / "metrics.json").read_text()).items() if "/" in key}
        for run in (one, other)
    ]
    assert results[0] == results[1]


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_run_killed_at_random_moments_ends_as_the_uninterrupted_one(
    kills: int, train: Command, command: Command, start: Start, mnist: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed,optim=sgd"
    began = time.monotonic()
    train(*RUN, f"hydra.run.dir={whole}")
    duration = time.monotonic() - began
    moments = random.Random(0)
    for _ in range(kills):
        if (killed / ".hydra" / "resolved.yaml").exists():
            arguments = [f"resume={killed}"]
        else:  # killed before it had begun
            arguments = [*RUN, f"hydra.run.dir='{killed}'", f"data.dir={mnist}"]
        process = start("train.py", *arguments)
        process.process.join(moments.uniform(0.3, 0.8) * duration)
        if process.process.exitcode is None:
            process.send_signal(signal.SIGKILL)
        assert process.wait() in (0, -signal.SIGKILL), process.errors
        if (killed / "metrics.json").exists():
            break
    else:
        train(f"resume={killed}")
    assert_same_result(killed, whole)

    done = train(f"resume={killed}")
    assert f"{killed} has finished" in done.stdout
    refused = command("train.py", *RUN, f"hydra.run.dir='{killed}'", f"data.dir={mnist}")
    assert f"{killed} already holds a run" in refused.stderr
    assert_same_result(killed, whole)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)],
)
def test_stopped_run_saves_its_epoch_and_prints_how_to_continue(
    number: signal.Signals, code: int, start: Start, mnist: Path, tmp_path: Path
) -> None:
    started = start("train.py", *SHORT, "logger=none", "trainer.max_epochs=9999", f"data.dir={mnist}")
    started.wait_for("epoch    1/9999")
    started.send_signal(number)
    assert started.wait() == code
    run = only_run(tmp_path)
    assert f"python train.py resume={run.relative_to(tmp_path)}" in started.output
    assert started.errors == "\nstopping with a checkpoint; interrupt again to stop at once\n"
    assert load(run / "checkpoints" / "last.ckpt")["global_step"] >= 12


def test_two_ranks_stopped_within_an_epoch_continue_to_the_result_of_a_pool(
    train: Command, start: Start, mnist: Path, tmp_path: Path
) -> None:
    arguments = [*RUN, "trainer=ddp", "trainer.limit_train_batches=30", "trainer.max_epochs=2"]
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    pool = ("hydra.sweep.dir=pool", "hydra/launcher=pool", "hydra.launcher.n_jobs=2")
    done = train("-m", *arguments, "trainer.devices=1,2", *pool, "hydra.launcher.threads=1")
    assert done.stderr == ""
    # Only the console has the numbers of the jobs, but for the lines of ranks.
    assert "#0  epoch 2/2" in done.stdout and "\nepoch 2/2" in done.stdout
    of_one, of_two = jobs_of(tmp_path / "pool")
    assert "#" not in (of_one / "train.log").read_text()
    train(*arguments, f"hydra.run.dir={alone}", "trainer.devices=1")
    assert_same_result(of_one, alone)

    started = start(
        "train.py", *arguments, f"hydra.run.dir={stopped}", "trainer.devices=2", f"data.dir={mnist}"
    )
    last = stopped / "checkpoints" / "last.ckpt"
    while not last.exists():
        time.sleep(0.05)
    started.send_signal(signal.SIGTERM)
    assert started.wait() == 143
    assert started.errors == "\nstopping with a checkpoint; interrupt again to stop at once\n"
    assert started.output.count("interrupted; resume with: python train.py resume=") == 1
    assert processes_of(tmp_path) == []
    assert 7 <= load(last)["global_step"] < 30
    done = train(f"resume={stopped}", "trainer.devices=2")
    assert "resumed    in epoch 1, after" in done.stdout
    assert "2 x cpu" in done.stdout
    assert done.stdout.count("test accuracy") == 1
    assert done.stderr == ""
    assert_same_result(stopped, of_two)
