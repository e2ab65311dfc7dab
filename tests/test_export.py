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


def test_page_holds_several_networks(command: Command, tmp_path: Path) -> None:
    first, second = save(tmp_path / "a b", "simple"), save(tmp_path / "c", "cnnnet")
    done = command("export.py", f"ckpt=[{first},{second}]", "format=html", f"out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "SimpleCNN, 421,642 parameters" in done.stdout
    assert "CnnNet, 61,111 parameters" in done.stdout
    page = (tmp_path / "best.html").read_text()
    assert f'"run": "{first.relative_to(tmp_path)}"' in page
    assert f'"run": "{second.relative_to(tmp_path)}"' in page


def test_without_the_data_noise_is_compared(command: Command, tmp_path: Path) -> None:
    folder = {"_target_": "mnist_cnn.data.ImageFolder", "test_size": 0.5}
    ckpt = save(tmp_path, "cnnnet", source=folder)
    done = command("export.py", f"ckpt={ckpt}", "format=safetensors", f"out={tmp_path}/a b/c.safetensors")
    assert done.returncode == 0, done.stderr
    assert "no test images of ImageFolder" in done.stdout
    assert "1,000 of 1,000 images of noise" in done.stdout
    assert [path.name for path in (tmp_path / "a b").iterdir()] == ["c.safetensors"]


def test_name_that_does_not_tell_the_format_is_refused(command: Command, tmp_path: Path) -> None:
    done = command("export.py", f"ckpt={save(tmp_path, 'cnnnet')}", "out=network.bin")
    assert done.returncode == 1
    assert done.stderr.startswith("export.py: out=network.bin")
    assert ".onnx" in done.stderr
    assert "Traceback" not in done.stderr


def test_network_that_the_page_cannot_compute_is_refused_in_a_line(
    command: Command, mnist: Path, tmp_path: Path
) -> None:
    ckpt = save(tmp_path, "mobilenet")
    done = command("export.py", f"ckpt={ckpt}", "format=html", f"data.dir={mnist}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("export.py: ")
    assert "the operation hardswish" in line
    assert "format=onnx" in line
    assert [path.name for path in ckpt.parent.iterdir()] == ["best.ckpt"]
