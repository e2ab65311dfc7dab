"""A user's mistakes: one message with what is valid, no traceback, at once."""

import sys
from pathlib import Path

import pytest

from tests.conftest import Command

# Of each mistake: the arguments, and what the message must say.
TRAIN = [
    (["model=resnet"], ["resnet", "cnnnet", "simple"]),
    (["optim=sdg"], ["sdg", "adam", "adamw", "nesterov", "rmsprop", "sgd"]),
    (["experiment=missing"], ["missing", "lenet_mse", "tutorial"]),
    (["optim.lr=fast"], ["optim.lr=fast", "number"]),
    (["optim.lr=-1"], ["optim.lr=-1", "greater than 0"]),
    (["data.batch_size=0"], ["data.batch_size=0", "greater than or equal to 1"]),
    (["trainer.max_epoch=3"], ["trainer.max_epoch", "Did you mean trainer.max_epochs?", "accelerator"]),
    (["optimizer=sgd"], ["optimizer", "optim"]),
    (["modle=simple"], ["modle", "Did you mean model?"]),
    (["optim=adam", "optim.momentum=0.5"], ["optim.momentum", "betas", "lr"]),
    (["data.batch-size=3"], ["data.batch-size"]),
    (["resume=logs/runs/nowhere"], ["resume=logs/runs/nowhere is not the folder of a run"]),
    (["-m", "resume=logs/runs/nowhere"], ["resume=logs/runs/nowhere"]),
]
EVALUATE = [
    (["ckpt=missing.ckpt"], ["ckpt=missing.ckpt is not a file", "run train.py"]),
    ([], ["ckpt=PATH is missing"]),
    (["chkpt=best.ckpt"], ["chkpt", "Did you mean ckpt?"]),
]
MISTAKES = [("train.py", *mistake) for mistake in TRAIN] + [("evaluate.py", *mistake) for mistake in EVALUATE]


@pytest.mark.parametrize(
    ("script", "arguments", "said"), MISTAKES, ids=[" ".join([s, *a]) for s, a, _ in MISTAKES]
)
def test_a_mistake_is_told_before_anything_slow_is_imported(
    script: str, arguments: list[str], said: list[str], command: Command
) -> None:
    done = command(script, *arguments, PYTHONPROFILEIMPORTTIME="1")
    imports = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    message = "\n".join(line for line in done.stderr.splitlines() if line not in imports)
    assert done.returncode in (1, 2)
    assert message.startswith(f"{script}: ")
    assert all(part in message for part in said), message
    assert "Traceback" not in message
    assert "HYDRA_FULL_ERROR" not in message
    assert len(imports) > 100
    assert not any(line.endswith((" torch", " lightning", " matplotlib")) for line in imports)


def test_hydra_full_error_shows_the_traceback_of_a_mistake(command: Command) -> None:
    done = command("train.py", "optim.lr=-1", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "optim.lr=-1" in done.stderr


def test_logs_that_cannot_be_written_are_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    done = command("train.py")
    assert done.returncode == 1
    assert done.stderr.startswith("train.py: cannot write ")
    assert "logs" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
def test_a_full_disk_is_told(command: Command, tmp_path: Path, mnist: Path) -> None:
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints").mkdir(parents=True)
    # every write to this log ends in "no space left on device"
    (run_dir / ".metrics.csv.part").symlink_to("/dev/full")
    done = command(
        "train.py",
        f"hydra.run.dir={run_dir}",
        f"data.dir={mnist}",
        "trainer=smoke",
        "trainer.accelerator=cpu",
        "logger=csv",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_clipping_the_gradients_as_that_message_advises_works(command: Command, mnist: Path) -> None:
    common = (
        "trainer=smoke",
        "trainer.accelerator=cpu",
        "trainer.gradient_clip_val=0.1",
        f"data.dir={mnist}",
    )
    for algorithm in ("norm", "value"):
        done = command("train.py", *common, f"trainer.gradient_clip_algorithm={algorithm}")
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trainer.precision=bf15"], "bf15"),
        (["+trainer.foo=1"], "foo"),
        (["trainer.devices=2", "trainer.strategy=ddp_spawn"], "trainer.strategy=ddp_spawn"),
    ],
)
def test_what_the_trainer_refuses_is_told(
    arguments: list[str], said: str, command: Command, mnist: Path
) -> None:
    done = command("train.py", "trainer.accelerator=cpu", f"data.dir={mnist}", *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gpu_that_is_not_there_is_told_with_what_is(command: Command, mnist: Path) -> None:
    done = command("train.py", "trainer=gpu", f"data.dir={mnist}", CUDA_VISIBLE_DEVICES="")
    if sys.platform == "darwin" and done.returncode == 0:
        return  # an Apple GPU was there
    assert done.returncode == 1
    assert "trainer.accelerator=gpu" in done.stderr
    assert "This machine has: cpu" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_schedule_without_its_metric_is_told(command: Command, mnist: Path) -> None:
    done = command(
        "train.py",
        "scheduler=plateau",
        "data.val_size=0",
        "trainer=smoke",
        "trainer.accelerator=cpu",
        f"data.dir={mnist}",
    )
    assert done.returncode == 1
    assert "val/loss" in done.stderr
    assert "data.val_size=0" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_loss_that_is_not_finite_stops_the_run_with_the_step(command: Command, mnist: Path) -> None:
    done = command(
        "train.py", "optim.lr=1e30", "trainer=smoke", "trainer.accelerator=cpu", f"data.dir={mnist}"
    )
    assert done.returncode == 1
    assert "The loss became" in done.stderr
    assert "at step" in done.stderr
    assert "optim.lr" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_this_projects_and_lists_every_group(command: Command) -> None:
    done = command("train.py", "--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    for expected in (
        "Train a small CNN on MNIST",
        "model: cnnnet, simple",
        "optim: adam, adamw, nesterov, rmsprop, sgd",
        "loss: ce, ce_handmade, mse, mse_handmade",
        "scheduler: cosine, none, onecycle, plateau, step",
        "trainer: auto, cpu, ddp, gpu, smoke",
    ):
        assert expected in done.stdout
    assert not any(line.endswith(" torch") for line in done.stderr.splitlines())
