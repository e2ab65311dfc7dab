"""export.py as a user types it."""

from pathlib import Path

import pytest

from tests.conftest import Command
from tests.export.checkpoint import save


@pytest.mark.parametrize(
    ("format", "extension"), [("onnx", "onnx"), ("torch_export", "pt2"), ("safetensors", "safetensors")]
)
def test_export_writes_beside_the_checkpoint_and_checks_on_test_images(
    format: str, extension: str, command: Command, mnist: Path, tmp_path: Path
) -> None:
    ckpt = save(tmp_path / "run, of a=b", "simple")
    done = command("export.py", f"ckpt={ckpt}", f"format={format}", f"data.dir={mnist}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert {path.name for path in ckpt.parent.iterdir()} == {"best.ckpt", f"best.{extension}"}
    assert "the same prediction for 1,000 of 1,000 test images of MNIST" in done.stdout
    timed = [line for line in done.stdout.splitlines() if line.endswith("images/s")]
    assert len(timed) == (0 if format == "safetensors" else 4)


def test_without_the_data_noise_is_compared(command: Command, tmp_path: Path) -> None:
    folder = {"_target_": "mnist_cnn.data.ImageFolder", "image_size": 28, "in_channels": 1, "test_size": 0.5}
    ckpt = save(tmp_path, "cnnnet", source=folder)
    done = command("export.py", f"ckpt={ckpt}", "format=safetensors", f"out={tmp_path}/a b/c.safetensors")
    assert done.returncode == 0, done.stderr
    assert "no test images of ImageFolder" in done.stdout
    assert "1,000 of 1,000 images of noise" in done.stdout
    assert [path.name for path in (tmp_path / "a b").iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["format=tflite"], ["format=tflite", "'onnx', 'torch_export', 'safetensors' or 'html'"]),
        (["out=network.bin"], ["out=network.bin", ".onnx"]),
    ],
)
def test_wrong_settings_are_reported(
    arguments: list[str], parts: list[str], command: Command, tmp_path: Path
) -> None:
    done = command("export.py", f"ckpt={save(tmp_path, 'cnnnet')}", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("export.py: ")
    assert all(part in done.stderr for part in parts), done.stderr
    assert "Traceback" not in done.stderr


def test_only_a_page_takes_several_checkpoints(command: Command, tmp_path: Path) -> None:
    ckpt = save(tmp_path, "cnnnet")
    done = command("export.py", f"ckpt=[{ckpt},{ckpt}]")
    assert done.returncode == 1
    assert "format=html takes several" in done.stderr
