"""Runs whose ranks are started from outside: by torchrun, or by a user on each node."""

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.trainer import build_trainer
from tests.conftest import REPOSITORY, TIMEOUT, Command, environment, make_data
from tests.runs import ALL_TEST_IMAGES, CPU, SHORT, only_run, processes_of

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
ARGUMENTS = (*SHORT, "logger=tensorboard", "trainer.max_epochs=2")


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def run_together(
    folder: Path, commands: Sequence[Sequence[str]], variables: Sequence[dict[str, str]] = ({}, {})
) -> list[tuple[int, str]]:
    """Run the commands at the same time; return the exit code and the output of each."""
    started = [
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment(OMP_NUM_THREADS="1", **added),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command, added in zip(commands, variables, strict=False)
    ]
    try:
        return [(process.wait(TIMEOUT), process.communicate()[0]) for process in started]
    finally:
        for process in started:
            process.kill()


def train_on(data: Path, *arguments: str) -> list[str]:
    return [str(REPOSITORY / "train.py"), f"data.dir={data}", *ARGUMENTS, *arguments]


def check_run(run_dir: Path, outputs: Sequence[str]) -> None:
    """The run of two ranks has one set of results, which only the first rank has printed."""
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert (metrics["devices"], metrics["epochs"]) == (2, 2)
    assert len(list(run_dir.glob("events.out.tfevents*"))) == 1
    assert (run_dir / ".hydra" / "resolved.yaml").is_file()
    text = "".join(outputs)
    assert [text.count(line) for line in ("epoch 2/2", "test accuracy", "Traceback")] == [1, 1, 0], text
    assert processes_of(run_dir) == []


@pytest.mark.timeout(600)  # five ranks are started that import everything
def test_two_ranks_of_torchrun_train_in_one_folder_and_every_image_is_counted_once(
    command: Command, mnist: Path, tmp_path: Path
) -> None:
    # 5,001 cannot be divided by two ranks.
    whole = (ALL_TEST_IMAGES, "trainer.limit_val_batches=null", "data.val_size=5001", "metrics=f1")
    ((code, output),) = run_together(tmp_path, [[*TORCHRUN, "--nproc-per-node=2", *train_on(mnist, *whole)]])
    assert code == 0, output
    run_dir = only_run(tmp_path)
    check_run(run_dir, [output])
    trained = json.loads((run_dir / "metrics.json").read_text())

    # Nor can 10,000 by three.
    checkpoint = run_dir / "checkpoints" / "best.ckpt"
    arguments = (f"ckpt={checkpoint}", "trainer.devices=3", "hydra.run.dir=evaluated")
    done = command("evaluate.py", *arguments, f"data.dir={mnist}", CPU)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    evaluated = json.loads((tmp_path / "evaluated" / "evaluation.json").read_text())
    assert evaluated["test/acc"] == trained["test/acc"]
    assert evaluated["test/f1"] == pytest.approx(trained["test/f1"], rel=1e-6)
    assert evaluated["test/loss"] == pytest.approx(trained["test/loss"], rel=1e-6)
    assert sum(row["images"] for row in evaluated["classes"]) == 10_000
    assert processes_of(tmp_path) == []

    data = make_data(mnist, val_size=5001, image_size=32)
    trainer = build_trainer({"accelerator": "cpu", "precision": trained["precision"]}, tmp_path, [], [])
    (validated,) = trainer.validate(Classifier.load_from_checkpoint(checkpoint), data, verbose=False)
    assert validated["val/acc"] == pytest.approx(trained["val/acc"], rel=1e-6)
    assert validated["val/loss"] == pytest.approx(trained["val/loss"], rel=1e-6)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_torchruns_train_in_one_folder(mnist: Path, tmp_path: Path) -> None:
    options = ("--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}")
    commands = [[*TORCHRUN, *options, f"--node-rank={node}", *train_on(mnist)] for node in (0, 1)]
    ended = run_together(tmp_path, commands)
    assert [code for code, _ in ended] == [0, 0], ended
    check_run(only_run(tmp_path), [output for _, output in ended])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ranks_of_torchrun_start_no_sweep_and_are_not_miscounted(mnist: Path, tmp_path: Path) -> None:
    command = [*TORCHRUN, "--nproc-per-node=2", *train_on(mnist)]
    ((code, output),) = run_together(tmp_path, [[*command, "-m", "optim=sgd,adam"]])
    assert code == 1
    assert "train.py: torchrun and srun start the processes of one run" in output
    ((code, output),) = run_together(tmp_path, [[*command, "trainer.devices=4"]])
    assert code == 1
    assert "trainer.devices=4 trainer.num_nodes=1: torchrun or srun has started 2 processes" in output
    assert not list(tmp_path.glob("logs/*/*/metrics.json"))
