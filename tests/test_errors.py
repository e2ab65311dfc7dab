"""Errors of users: one message with the valid choices, no traceback, at once."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Command, environment
from tests.runs import CPU, SMOKE, allow_interrupts

# The arguments, and what the message must contain. There is more on messages in tests/app.
CASES = [
    ("train.py", ["optim=sdg"], ["sdg", "adam", "adamw", "nesterov", "rmsprop", "sgd"]),
    ("train.py", ["optim.lr=fast"], ["optim.lr=fast", "number"]),
    ("train.py", ["trainer.max_epoch=3"], ["trainer.max_epoch", "Did you mean trainer.max_epochs?"]),
    ("train.py", ["resume=logs/runs/nowhere"], ["resume=logs/runs/nowhere is not the folder of a run"]),
    ("evaluate.py", ["ckpt=missing.ckpt"], ["ckpt=missing.ckpt is not a file", "run train.py"]),
    ("evaluate.py", ["ckpt=[]"], ["ckpt=[]: it", "at least 1 item"]),
    ("export.py", ["ckpt=[a.ckpt,b.ckpt]"], ["ckpt=[a.ckpt,b.ckpt]", "format=html takes several"]),
]


@pytest.mark.parametrize(
    ("script", "arguments", "parts"), CASES, ids=[" ".join([s, *a]) for s, a, _ in CASES]
)
def test_error_is_reported_before_slow_imports(
    script: str, arguments: list[str], parts: list[str], new_process: Command
) -> None:
    done = new_process(script, *arguments, PYTHONPROFILEIMPORTTIME="1")
    imports = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    message = "\n".join(line for line in done.stderr.splitlines() if line not in imports)
    assert done.returncode in (1, 2)
    assert message.startswith(f"{script}: ")
    assert all(part in message for part in parts), message
    assert "Traceback" not in message
    assert "HYDRA_FULL_ERROR" not in message
    assert len(imports) > 100
    assert not any(line.endswith((" torch", " lightning", " matplotlib")) for line in imports)


def test_hydra_full_error_shows_the_traceback(command: Command) -> None:
    done = command("train.py", "optim.lr=-1", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "optim.lr=-1" in done.stderr


def test_unwritable_logs_are_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file in the place of the folder")
    done = command("train.py")
    assert done.returncode == 1
    assert done.stderr.startswith("train.py: cannot access ")
    assert "logs" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["trainer.precision=bf15"], "bf15"),
        (["scheduler=step", "+scheduler.step_sise=3"], "step_sise"),
        (["optim.lr=1e30"], "The loss is"),
    ],
)
def test_error_after_the_imports_has_no_traceback(
    arguments: list[str], part: str, command: Command, mnist: Path
) -> None:
    done = command("train.py", *SMOKE, f"data.dir={mnist}", *arguments)
    assert done.returncode == 1
    assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_gpu_is_reported_with_the_available_devices(command: Command, mnist: Path) -> None:
    done = command("train.py", "trainer=gpu", f"data.dir={mnist}", CUDA_VISIBLE_DEVICES="")
    if sys.platform == "darwin" and done.returncode == 0:
        return  # there is an Apple GPU
    assert done.returncode == 1
    assert "trainer.accelerator=gpu" in done.stderr
    assert "Available: cpu" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("seconds", [0.1, 1.0, 4.0])
def test_interrupt_at_any_time_ends_without_a_traceback(seconds: float, mnist: Path, tmp_path: Path) -> None:
    errors = tmp_path / "stderr"
    with (
        errors.open("w") as stream,
        subprocess.Popen(
            [sys.executable, str(REPOSITORY / "train.py"), CPU, f"data.dir={mnist}"],
            cwd=tmp_path,
            env=environment(PYTHONPROFILEIMPORTTIME="1"),
            stdout=subprocess.DEVNULL,
            stderr=stream,
            preexec_fn=allow_interrupts,
        ) as process,
    ):
        try:
            while "mnist_cnn.app.start" not in errors.read_text():  # until then Python imports Hydra
                time.sleep(0.01)
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()
    assert "Traceback" not in errors.read_text()


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("mnist_cnn.data", "MNIST.fetch", []),
        ("hydra_sweeps", "find_runs", ["."]),
    ],
)
def test_interrupt_of_a_module_has_no_traceback(
    module: str, name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{module}.__main__.{name}", interrupted)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"{module}.__main__").main()
    assert stop.value.code == 130


def test_help_lists_every_group_without_slow_imports(new_process: Command) -> None:
    done = new_process("train.py", "--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    for line in (
        "Train a small CNN on MNIST",
        "optim: adam, adamw, nesterov, rmsprop, sgd",
        "loss: ce, ce_handmade, mse, mse_handmade",
        "scheduler: cosine, none, onecycle, plateau, step",
        "trainer: auto, cpu, ddp, gpu",
        "debug: overfit, profile, smoke",
    ):
        assert line in done.stdout
    assert not any(line.endswith(" torch") for line in done.stderr.splitlines())


def test_help_of_which_only_the_head_is_read_has_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == ""
