"""The folder of a run: what a refused command leaves there, and how a job ends."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from mnist_cnn.app import folders, run
from mnist_cnn.errors import UserError
from tests.conftest import Command, Start
from tests.runs import SMOKE, only_run


def content(folder: Path) -> dict[str, str]:
    """Return the hash of each file below `folder`, but not of its lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


REFUSED = [
    (["optim.lr=1"], "optim.lr cannot be changed from 0.01 to 1"),
    (["trainer.devices=2"], "trainer.devices cannot be changed from 1 to 2"),
    (["trainer.max_epochs=abc"], "trainer.max_epochs=abc"),
    (["trainer.max_epochs=3", "trainer.accelerator=gpu"], "trainer.accelerator=gpu"),
    (["trainer.max_epochs=3", "trainer.max_time=never"], "refuses these settings"),
    (["trainer.max_epochs=3", "trainer.limit_val_batches=0.0001"], "leaves none of 10 batches"),
    (["optm.lr=1"], "there is no setting optm.lr"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, start_in: Start, mnist: Path) -> Path:
    """Return the folder of a run that has finished."""
    folder = tmp_path_factory.mktemp("finished")
    started = start_in(folder, "train.py", *SMOKE, f"data.dir={mnist}", "hydra.run.dir=run")
    assert started.wait() == 0, started.errors
    return folder / "run"


@pytest.mark.skipif(sys.platform == "darwin", reason="there may be an Apple GPU")
@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_refused_resume_leaves_every_file_as_it_was(
    arguments: list[str], message: str, finished: Path, command: Command
) -> None:
    before = content(finished)
    done = command("train.py", f"resume={finished}", *arguments, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    after = content(finished)
    new = after.keys() - before.keys()
    assert {name: after[name] for name in before} == before
    assert all("events.out" in name for name in new)  # which Lightning opens before it looks at the data


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("train.py", ["optim.lr=abc"]),
        ("train.py", ["optim.lr=abc", "hydra.run.dir=mine"]),
        ("predict.py", ["split=true"]),
        ("export.py", ["ckpt=x"]),
    ],
)
def test_refused_command_leaves_no_folder(
    script: str, arguments: list[str], command: Command, tmp_path: Path
) -> None:
    done = command(script, *arguments)
    assert done.returncode == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_reason_of_a_job_that_exits_is_kept(
    command: Command, mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "import sys\nfrom lightning import Callback\n"
        "class Exit(Callback):\n    def on_train_start(self, *_):\n        sys.exit('my reason')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = command("train.py", *SMOKE, f"data.dir={mnist}", "+callbacks.exit._target_=mine.Exit")
    assert done.returncode == 1
    assert "my reason" in done.stderr
    assert "resume with" not in done.stdout
    assert "my reason" in json.loads((only_run(tmp_path) / "failed.json").read_text())["error"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (3, "3"),
        (1e-5, "1e-05"),
        ("a,b", "'a,b'"),
        ([1, "x=y"], "[1,'x=y']"),
        ({"hours": 1}, "{hours:1}"),
    ],
)
def test_value_is_quoted_for_hydra(value: object, text: str) -> None:
    assert run.quote_value(value) == text


def test_folder_that_is_no_run_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "multirun.yaml").touch()
    with pytest.raises(UserError, match=r"resume=s is the folder of a sweep.*sweep\.resume=s"):
        folders.run_folder("s", "new")
    with pytest.raises(UserError, match=r"resume=x is not the folder of a run\. No run exists"):
        folders.run_folder("x", "new")
    settings = tmp_path / "logs" / "runs" / "r" / ".hydra" / "resolved.yaml"
    settings.parent.mkdir(parents=True)
    settings.touch()
    with pytest.raises(UserError, match=r"The latest: logs/runs/r\.$"):
        folders.run_folder("x", "new")


def test_every_option_of_hydra_works_where_it_stands(command: Command) -> None:
    done = command("train.py", "optim=adam", "--cfg", "job", "-p", "optim")
    assert done.returncode == 0 and "torch.optim.Adam" in done.stdout
    done = command("train.py", "--info", "defaults-tree")
    assert done.returncode == 0 and "optim: sgd" in done.stdout
