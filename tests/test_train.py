"""train.py and evaluate.py as a user types them, on real MNIST, in processes of their own."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_cnn.training.checkpoints import load
from tests.conftest import REPOSITORY, Command
from tests.runs import CPU, SHORT, jobs_of, only_run, processes_of, scalars, weights


def test_a_run_says_what_it_does_and_leaves_everything_in_its_folder(train: Command, tmp_path: Path) -> None:
    done = train(*SHORT, "trainer.max_epochs=2")
    run_dir = only_run(tmp_path)

    assert re.search(r"network +CnnNet, 61,706 parameters", done.stdout)
    assert re.search(r"optimizer +SGD, lr 0.01, momentum 0.9", done.stdout)
    assert re.search(r"loss +CrossEntropyLoss", done.stdout)
    assert re.search(r"data +mnist: 55,000 train, 5,000 validation, 10,000 test; .*verified", done.stdout)
    assert re.search(r"device +1 x cpu.*precision (bf16-mixed|32-true)", done.stdout)
    for epoch in (1, 2):
        line = (
            rf"epoch {epoch}/2 +train loss [\d.]+, [\d.]+% +validation loss [\d.]+, [\d.]+% +[\d,]+ images/s"
        )
        assert re.search(line, done.stdout)
    assert re.search(r"^Test accuracy: \d+\.\d\d%$", done.stdout, re.MULTILINE)
    assert f"run folder: {run_dir.relative_to(tmp_path)}" in done.stdout
    assert "tensorboard --logdir logs" in done.stdout
    # no bar outside a terminal, no warning, tip or deprecation
    assert done.stderr == ""
    assert load(run_dir / "checkpoints" / "last.ckpt")["epoch"] == 1

    names = {str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file()}
    assert names - {name for name in names if name.startswith("events.out.tfevents")} == {
        ".hydra/config.yaml",
        ".hydra/hydra.yaml",
        ".hydra/overrides.yaml",
        ".hydra/resolved.yaml",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "history.json",
        "loss_curve.png",
        "metrics.json",
        "predictions.png",
        "train.log",
    }
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert set(metrics) >= {
        f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "acc")
    }
    assert set(metrics) >= {"images_per_second", "seconds", "precision", "device"}
    assert metrics["epochs"] == 2
    assert 0 < metrics["test/acc"] < 1

    checkpoint = load(run_dir / "checkpoints" / "best.ckpt")
    assert checkpoint["config"]["model"]["_target_"] == "mnist_cnn.models.CnnNet"

    logged = scalars(run_dir)
    assert [step for step, _ in logged["val/acc"]] == [1, 2]
    assert [step for step, _ in logged["train/loss"]] == [1, 2]
    assert logged["test/acc"] == [(2, pytest.approx(metrics["test/acc"]))]
    assert set(logged) == {name for name in metrics if "/" in name} | {"train/loss_step", "lr"}


def test_evaluate_finds_the_test_accuracy_of_the_run_to_the_last_digit(
    train: Command, command: Command, mnist: Path, tmp_path: Path
) -> None:
    train(*SHORT, "trainer.max_epochs=1", "loss=mse", "optim=adam")
    run_dir = only_run(tmp_path)
    done = command("evaluate.py", f"ckpt={run_dir}/checkpoints/best.ckpt", CPU)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    trained = json.loads((run_dir / "metrics.json").read_text())
    folder = only_run(tmp_path, "evaluations")
    evaluated = json.loads((folder / "evaluation.json").read_text())
    assert evaluated["test/acc"] == trained["test/acc"]
    assert evaluated["test/loss"] == trained["test/loss"]
    assert sum(row["images"] for row in evaluated["classes"]) == 10_000
    assert sum(row["correct"] for row in evaluated["classes"]) == round(10_000 * trained["test/acc"])
    assert f"Test accuracy: {trained['test/acc']:.2%}" in done.stdout
    assert {"confusion_matrix.png", "class_accuracy.png"} <= {path.name for path in folder.iterdir()}


def test_a_job_has_the_same_weights_alone_and_in_a_sweep_after_others(train: Command, tmp_path: Path) -> None:
    train(*SHORT, "trainer.max_epochs=1", "seed=0")
    train("-m", *SHORT, "trainer.max_epochs=1", "seed=1,0", "optim=sgd,adam")
    sweep = only_run(tmp_path, "sweeps")
    jobs = jobs_of(sweep)
    assert [path.name.split("_", 1)[0] for path in jobs] == ["0", "1", "2", "3"]
    assert "optim=sgd" in jobs[2].name
    assert "seed=0" in jobs[2].name
    alone = weights(only_run(tmp_path))
    assert [torch.equal(weights(job), alone) for job in jobs] == [False, False, True, False]


def test_a_sweep_goes_through_every_combination_each_in_its_own_folder(
    train: Command, tmp_path: Path
) -> None:
    train(
        "-m",
        "trainer=smoke",
        CPU,
        "logger=csv",
        "model=cnnnet,simple",
        "optim=sgd,adam,rmsprop",
        "loss=ce,mse",
    )
    jobs = jobs_of(only_run(tmp_path, "sweeps"))
    assert len(jobs) == 12
    for job in jobs:
        checkpoint = load(job / "checkpoints" / "best.ckpt")
        chosen = checkpoint["config"]["hparams"]
        assert all(f"{group}={chosen[group]}" in job.name for group in ("model", "optim", "loss"))
        assert (job / "metrics.csv").read_text().count("\n") == 2


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    train: Command, command: Command, mnist: Path, tmp_path: Path
) -> None:
    # long enough that the kill comes in the middle
    arguments = [*SHORT, "trainer.limit_train_batches=150", "trainer.max_epochs=6", "scheduler=onecycle"]
    whole, killed = tmp_path / "whole", tmp_path / "killed,optim=sgd"
    train(*arguments, f"hydra.run.dir='{whole}'")

    process = subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "train.py"),
            *arguments,
            f"hydra.run.dir='{killed}'",
            f"data.dir={mnist}",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2/6"):
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "metrics.json").exists()
    assert load(killed / "checkpoints" / "last.ckpt")["epoch"] < 5

    refused = command("train.py", f"resume={killed}", "optim.lr=0.5")
    assert refused.returncode == 1
    assert "optim.lr cannot be changed" in refused.stderr
    refused = command("train.py", f"resume={killed}", "trainer.max_epochs=7")
    assert "planned to its end" in refused.stderr
    refused = command("train.py", f"hydra.run.dir='{killed}'", f"data.dir={mnist}", *SHORT)
    assert "holds a run already" in refused.stderr

    done = train(f"resume={killed}")
    assert "resumed    after epoch" in done.stdout
    assert torch.equal(weights(killed), weights(whole))
    assert torch.equal(weights(killed, "best"), weights(whole, "best"))
    assert scalars(killed) == scalars(whole)
    same = [
        {k: v for k, v in json.loads((folder / "metrics.json").read_text()).items() if "/" in k}
        for folder in (whole, killed)
    ]
    assert same[0] == same[1]


def test_an_interrupted_run_says_how_to_go_on(train: Command, mnist: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "train.py"),
            *SHORT,
            "trainer.max_epochs=9999",
            f"data.dir={mnist}",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch    2/9999"):
            process.send_signal(signal.SIGINT)
            break
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"python train.py resume={only_run(tmp_path).relative_to(tmp_path)}" in output
    assert errors == ""


def test_two_runs_started_together_have_folders_of_their_own(mnist: Path, tmp_path: Path) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, str(REPOSITORY / "train.py"), "trainer=smoke", CPU, f"data.dir={mnist}"],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert [run.wait() for run in runs] == [0, 0]
    folders = list((tmp_path / "logs" / "runs").iterdir())
    assert len(folders) == 2
    assert all((folder / "metrics.json").exists() for folder in folders)


def test_a_terminal_shows_a_bar_with_images_a_second(mnist: Path, tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "train.py"),
            "trainer=smoke",
            CPU,
            "trainer.limit_train_batches=300",
            f"data.dir={mnist}",
        ],
        cwd=tmp_path,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(main, 4096):
            shown += part
    assert process.wait() == 0
    assert re.search(rb"epoch 1/1: .*[\dk] images/s", shown)
    assert b"Test accuracy" in shown


@pytest.mark.parametrize("multirun", [False, True], ids=["single", "multirun"])
def test_two_ranks_train_one_network_and_leave_nothing_behind(
    multirun: bool, train: Command, command: Command, tmp_path: Path
) -> None:
    two = (*SHORT, "trainer.max_epochs=2", "trainer=ddp", "trainer.devices=2", "data.val_size=5001")
    if multirun:
        # a job of one process between two of two, of which each must be started afresh
        train("-m", *two[:-2], "trainer.devices=2,1,2", two[-1])
        jobs = jobs_of(only_run(tmp_path, "sweeps"))
        assert len(jobs) == 3
        assert torch.equal(weights(jobs[0]), weights(jobs[2]))
        assert not torch.equal(weights(jobs[0]), weights(jobs[1]))
    else:
        done = train(*two)
        jobs = [only_run(tmp_path)]
        # rank 0 alone speaks
        assert done.stdout.count("Test accuracy") == 1
        assert "2 x cpu" in done.stdout
        assert done.stderr == ""
    for job, ranks in zip(jobs, (2, 1, 2), strict=False):
        metrics = json.loads((job / "metrics.json").read_text())
        assert metrics["devices"] == ranks
        assert len(list(job.glob("events.out.tfevents*"))) == 1
    assert len(list((tmp_path / "logs").iterdir())) == 1
    assert processes_of(tmp_path) == []

    # every test image was counted, once
    done = command("evaluate.py", f"ckpt={jobs[0]}/checkpoints/best.ckpt", CPU)
    evaluated = json.loads((only_run(tmp_path, "evaluations") / "evaluation.json").read_text())
    trained = json.loads((jobs[0] / "metrics.json").read_text())
    assert evaluated["test/acc"] == trained["test/acc"]
    assert evaluated["test/loss"] == pytest.approx(trained["test/loss"], rel=1e-4)


def test_a_rank_that_fails_fails_its_job_and_leaves_no_process(
    command: Command, mnist: Path, tmp_path: Path
) -> None:
    done = command(
        "train.py", *SHORT, "trainer=ddp", "trainer.devices=2", "optim.lr=1e30", f"data.dir={mnist}"
    )
    assert done.returncode == 1
    assert "The loss became" in done.stderr
    time.sleep(0.5)
    assert processes_of(tmp_path) == []


def test_fast_dev_run_and_no_logger_and_no_validation_go_through(train: Command, tmp_path: Path) -> None:
    train(*SHORT, "trainer.fast_dev_run=true")
    done = train(*SHORT, "trainer.max_epochs=1", "logger=none", "experiment=tutorial", "model=cnnnet")
    assert "60,000 train, 10,000 test" in done.stdout
    run_dir = max((tmp_path / "logs" / "runs").iterdir())
    assert not list(run_dir.glob("events*"))
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["last.ckpt"]
    metrics: dict[str, Any] = json.loads((run_dir / "metrics.json").read_text())
    assert "val/acc" not in metrics
    assert metrics["best_epoch"] == 1
