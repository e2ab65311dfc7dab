"""train.py and evaluate.py as a user types them, on real MNIST."""

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
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_cnn.training.loading import load
from tests.conftest import REPOSITORY, Command, Start, environment
from tests.runs import (
    ALL_TEST_IMAGES,
    CPU,
    SHORT,
    SMOKE,
    jobs_of,
    only_run,
    scalars,
    weights,
)


def test_run_prints_what_it_does_and_writes_everything_into_its_folder(
    train: Command, tmp_path: Path
) -> None:
    done = train(*SHORT, "trainer.max_epochs=2")
    run_dir = only_run(tmp_path)

    assert re.search(r"network +CnnNet, 61,706 parameters", done.stdout)
    assert re.search(r"optimizer +SGD, lr 0.01, momentum 0.9", done.stdout)
    assert re.search(r"loss +CrossEntropyLoss", done.stdout)
    assert re.search(r"data +MNIST: 55,000 train, 5,000 validation, 10,000 test; [^;]*verified", done.stdout)
    assert re.search(r"device +1 x cpu.*precision (bf16-mixed|32-true)", done.stdout)
    for epoch in (1, 2):
        line = (
            rf"epoch {epoch}/2 +train loss [\d.]+, [\d.]+% +validation loss [\d.]+, [\d.]+% +[\d,]+ images/s"
        )
        assert re.search(line, done.stdout)
    assert re.search(r"^test accuracy: \d+\.\d\d% of 1,000 images$", done.stdout, re.MULTILINE)
    assert f"run folder: {run_dir.relative_to(tmp_path)}" in done.stdout
    assert "tensorboard --logdir logs" in done.stdout
    # No progress bar outside a terminal, no warning, tip or deprecation.
    assert done.stderr == ""
    assert load(run_dir / "checkpoints" / "last.ckpt")["epoch"] == 1

    names = {str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file()}
    assert names - {name for name in names if name.startswith("events.out.tfevents")} == {
        ".hydra/config.yaml",
        ".hydra/hydra.yaml",
        ".hydra/overrides.yaml",
        ".hydra/resolved.yaml",
        ".lock",
        "checkpoints/README.md",
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
    assert [step for step, _ in logged["val/acc"]] == [12, 24]
    assert [step for step, _ in logged["train/loss"]] == [12, 24]
    assert logged["test/acc"] == [(24, pytest.approx(metrics["test/acc"]))]
    assert set(logged) == {name for name in metrics if "/" in name} - {"test/images"} | {"train/epoch"}


def test_evaluate_reproduces_the_test_metrics_of_the_run_exactly(
    train: Command, command: Command, mnist: Path, tmp_path: Path
) -> None:
    train(
        *SHORT, ALL_TEST_IMAGES, "trainer.max_epochs=1", "loss=mse", "optim=adam", "metrics=[f1,calibration]"
    )
    run_dir = only_run(tmp_path)
    done = command("evaluate.py", f"ckpt={run_dir}/checkpoints/best.ckpt", f"data.dir={mnist}", CPU)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    trained = json.loads((run_dir / "metrics.json").read_text())
    folder = only_run(tmp_path, "evaluations")
    evaluated = json.loads((folder / "evaluation.json").read_text())
    assert evaluated["test/acc"] == trained["test/acc"]
    assert evaluated["test/loss"] == trained["test/loss"]
    assert evaluated["test/f1"] == trained["test/f1"]
    assert {"train/f1", "val/f1", "test/calibration_error"} <= trained.keys()
    assert sum(row["images"] for row in evaluated["classes"]) == 10_000
    assert sum(row["correct"] for row in evaluated["classes"]) == round(10_000 * trained["test/acc"])
    assert f"test accuracy: {trained['test/acc']:.2%}" in done.stdout
    assert (folder / "confusion_matrix.png").is_file()


def test_run_that_still_runs_is_not_resumed(
    start: Start, command: Command, mnist: Path, tmp_path: Path
) -> None:
    started = start("train.py", *SHORT, "trainer.max_epochs=9999", f"data.dir={mnist}")
    started.wait_for("epoch    1/9999")
    run = only_run(tmp_path)
    for arguments in ([f"resume={run}"], [*SHORT, f"data.dir={mnist}", f"hydra.run.dir={run}"]):
        refused = command("train.py", *arguments)
        assert refused.returncode == 1
        assert (
            refused.stderr
            == f"train.py: {run} is the folder of a run that is still running; stop it first.\n"
        )
    assert not (run / "failed.json").exists()
    started.send_signal(signal.SIGKILL)
    started.wait()
    done = command("train.py", f"resume={run}", "optim.lr=1", "trainer.max_epochs=9999")
    assert "optim.lr cannot be changed" in done.stderr


def test_runs_started_together_have_their_own_folders(start: Start, mnist: Path, tmp_path: Path) -> None:
    runs = [start("train.py", *SMOKE, "logger=none", f"data.dir={mnist}") for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    folders = list((tmp_path / "logs" / "runs").iterdir())
    assert len(folders) == 2
    assert all((folder / "metrics.json").exists() for folder in folders)


def test_terminal_shows_a_progress_bar(mnist: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    # As from a notebook, whose backend is not installed here, and without a folder for temporary files.
    variables = {"MPLBACKEND": "module://ipympl.backend_nbagg", "TMPDIR": str(tmp_path / "file")}
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    arguments = (*SMOKE, "logger=none", "trainer.limit_train_batches=200", f"data.dir={mnist}")
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), *arguments],
        cwd=tmp_path,
        env=environment(**variables),
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # raised on Linux when the other end is closed
        while part := os.read(main, 4096):
            shown += part
    assert process.wait() == 0
    assert re.search(rb"epoch 1/1: .*[\dk] images/s", shown)
    assert b"test accuracy" in shown


def test_fast_dev_run_succeeds(train: Command) -> None:
    train(*SHORT, "logger=none", "trainer.fast_dev_run=true")


def test_run_without_validation_and_logger_saves_the_last_epoch(train: Command, tmp_path: Path) -> None:
    done = train(*SHORT, "trainer.max_epochs=1", "logger=none", "experiment=tutorial", "model=cnnnet")
    assert "60,000 train, 10,000 test" in done.stdout
    run_dir = only_run(tmp_path)
    assert not list(run_dir.glob("events*"))
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} == {"last.ckpt", "README.md"}
    metrics: dict[str, Any] = json.loads((run_dir / "metrics.json").read_text())
    assert "val/acc" not in metrics
    assert metrics["best_epoch"] == 1


def test_every_precision_trains_and_evaluates(
    train: Command, command: Command, mnist: Path, tmp_path: Path
) -> None:
    precisions = ["32-true", "bf16-true", "16-true", "64-true"]
    training = (*SMOKE, "logger=none", "trainer.limit_train_batches=2", "trainer.limit_test_batches=1")
    train("-m", *training, f"trainer.precision={','.join(precisions)}", "hydra.sweep.dir=trained")
    jobs = jobs_of(tmp_path / "trained")
    checkpoints = ",".join(f"'{job}/checkpoints/best.ckpt'" for job in jobs)
    evaluation = (f"data.dir={mnist}", CPU, "trainer.limit_test_batches=1", "hydra.sweep.dir=evaluated")
    done = command("evaluate.py", "-m", f"ckpt={checkpoints}", *evaluation)
    assert done.returncode == 0, done.stderr
    for number, (precision, job) in enumerate(zip(precisions, jobs, strict=True)):
        trained = json.loads((job / "metrics.json").read_text())
        assert trained["precision"] == precision
        evaluated = json.loads((tmp_path / "evaluated" / str(number) / "evaluation.json").read_text())
        assert evaluated["test/acc"] == trained["test/acc"]


def test_overfitting_five_batches_reaches_a_training_accuracy_of_100_percent(
    train: Command, tmp_path: Path
) -> None:
    done = train(
        CPU,
        "model=cnnnet",
        "callbacks=none",
        "debug=overfit",
        "optim=adam",
        "trainer.limit_test_batches=2",
    )
    assert done.stderr == ""
    history = json.loads((only_run(tmp_path) / "metrics.json").read_text())
    assert history["epochs"] == 30
    assert "train loss 0.0" in done.stdout.split("epoch 30/30")[1]


def test_profiler_writes_into_the_run_folder_and_data_is_found_where_the_command_was_typed(
    train: Command, mnist: Path, tmp_path: Path
) -> None:
    (tmp_path / "here").symlink_to(mnist)
    limits = (*SHORT, "trainer.limit_train_batches=3")
    done = train(*limits, "debug=profile", "data.dir=here", "hydra.job.chdir=true")
    assert "checksums verified" in done.stdout
    run_dir = only_run(tmp_path)
    assert not (run_dir / "here").exists()
    (report,) = run_dir.glob("fit-profile.txt")
    assert "run_training_batch" in report.read_text()


def test_training_can_start_from_the_weights_of_a_checkpoint(train: Command, tmp_path: Path) -> None:
    train(*SMOKE, "logger=none", "hydra.run.dir=first")
    first = weights(tmp_path / "first")
    train(
        *SMOKE,
        "logger=none",
        "hydra.run.dir=second",
        "init_from=first/checkpoints/last.ckpt",
        "optim.lr=1e-12",
    )
    torch.testing.assert_close(weights(tmp_path / "second"), first)


def test_run_with_a_time_limit_is_resumed_without_it_and_without_warnings(
    train: Command, tmp_path: Path
) -> None:
    train(*SMOKE, "trainer.max_time='00:01:00:00'")
    run = only_run(tmp_path)
    done = train(f"resume={run}", "trainer.max_time=null", "trainer.max_epochs=2")
    assert json.loads((run / "metrics.json").read_text())["epochs"] == 2
    assert done.stderr == ""
