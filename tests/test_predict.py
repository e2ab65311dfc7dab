"""predict.py as a user types it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_cnn.export import onnx
from mnist_cnn.export.network import load_trained
from tests.conftest import REPOSITORY, TIMEOUT, Command, environment
from tests.export.checkpoint import save
from tests.inference.checkpoint import write_checkpoint
from tests.preparation.drawing import FIVE, ONE, draw
from tests.runs import only_run


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Return a folder with a drawn 5 and a drawn 1; a checkpoint and another file lie beside it."""
    write_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "network.pt2").touch()
    folder = tmp_path / "my scans, new"
    folder.mkdir()
    for name, strokes in (("1.png", ONE), ("5.jpg", FIVE)):
        Image.fromarray(np.rint(255 - 255 * draw(strokes)).astype(np.uint8)).save(folder / name)
    return folder


def test_folder_is_read_into_a_table_a_file_and_a_picture(
    scans: Path, command: Command, tmp_path: Path
) -> None:
    done = command("predict.py", "ckpt=a.ckpt", f"images={scans.name}", "min_confidence=1")
    assert (done.returncode, done.stderr) == (0, "")
    header, one, five, folder = done.stdout.splitlines()
    assert header.split() == ["file", "digit", "probability", "runner-up"]
    assert "1.png" in one and "5.jpg" in five
    assert one.endswith("uncertain")
    run = only_run(tmp_path, "predictions")
    assert folder == f"folder: {run.relative_to(tmp_path)}"
    assert {path.name for path in run.iterdir()} == {
        "predictions.csv",
        "predictions.png",
        "predict.log",
        ".hydra",
    }
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in rows] == ["1.png", "5.jpg"]


def test_unreadable_files_are_named_and_the_others_are_read(
    scans: Path, command: Command, tmp_path: Path
) -> None:
    (scans / "2.png").write_text("no image")
    Image.new("L", (300, 300), 255).save(scans / "3.png")
    done = command("predict.py", "ckpt=a.ckpt", f"images={scans.name}/*")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert "not an image of a known format (PNG, JPEG, WEBP, BMP, TIFF, GIF, PPM, JPEG2000)" in lines[2]
    assert lines[3].endswith("no digit found")
    assert "%" in lines[1] and "%" in lines[4]
    assert done.stderr == "predict.py: nothing was read in 2 of 4 files; see the table.\n"
    assert (only_run(tmp_path, "predictions") / "predictions.png").is_file()


def test_several_digits_are_split(scans: Path, command: Command) -> None:
    number = np.hstack([draw(strokes) for strokes in (ONE, FIVE, ONE)])
    Image.fromarray(np.rint(255 - 255 * number).astype(np.uint8)).save(scans / "151.png")
    done = command("predict.py", "ckpt=a.ckpt", f"images={scans.name}/151.png", "split=true")
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if "151.png" in line]) == 3
    done = command("predict.py", "ckpt=a.ckpt", f"images={scans.name}/151.png")
    (line,) = [line for line in done.stdout.splitlines() if "151.png" in line]
    assert line.endswith("perhaps 2 more digits; split=true reads them")


def test_exported_file_is_read_without_torch(scans: Path, command: Command, tmp_path: Path) -> None:
    ckpt = save(tmp_path / "run", "simple")
    onnx.write(*load_trained(ckpt), tmp_path / "network.onnx")
    script = (
        "import json, runpy, sys\n"
        f"sys.argv[0] = {str(REPOSITORY / 'predict.py')!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "print(json.dumps(sorted({'torch', 'lightning', 'torchvision', 'onnxruntime'} & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "ckpt=network.onnx", f"images={scans.name}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *table, _, imported = done.stdout.splitlines()
    assert json.loads(imported) == ["onnxruntime"]
    of_checkpoint = command("predict.py", f"ckpt={ckpt}", f"images={scans.name}")
    assert of_checkpoint.stdout.splitlines()[:-1] == table


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["ckpt=a.ckpt"], "images=PATH is missing"),
        (["images=x.png"], "ckpt=PATH is missing"),
        (["ckpt=a.ckpt", "images=x.png"], "images=x.png: there is no such file"),
        (["ckpt=network.pt2", "images=my scans, new"], "network.pt2 is not a network to load"),
        (["ckpt=a.ckpt", "images=x.png", "min_confidence=2"], "min_confidence=2"),
        (["ckpt=a.ckpt", "image=x.png"], "Did you mean images?"),
    ],
)
def test_error_is_one_message(arguments: list[str], part: str, scans: Path, command: Command) -> None:
    done = command("predict.py", *arguments)
    assert done.returncode in (1, 2)
    assert part in done.stderr
    assert "Traceback" not in done.stderr
