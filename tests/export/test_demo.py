"""`make demo`: which checkpoint is taken, and who can connect."""

import json
import os
import threading
import urllib.request
from pathlib import Path

import pytest

from mnist_cnn.errors import UserError
from mnist_cnn.export.__main__ import make_server, newest_checkpoint


def add_run(folder: Path, age: int, checkpoint: str = "best", status: str = "", settings: str = "") -> None:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / f"{checkpoint}.ckpt").touch()
    if settings:
        (folder / ".hydra").mkdir()
        (folder / ".hydra" / "resolved.yaml").write_text(f"trainer: {settings}")
    if status:
        (folder / "metrics.json").write_text(json.dumps({"status": status}))
        os.utime(folder / "metrics.json", (1e9 - age, 1e9 - age))


def test_checkpoint_of_the_run_that_finished_last_is_taken(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No run"):
        newest_checkpoint(tmp_path)
    smoke = "{limit_train_batches: 20, limit_test_batches: 2}"
    add_run(tmp_path / "runs" / "interrupted", age=0)
    add_run(tmp_path / "runs" / "pruned", age=1, status="pruned")
    add_run(tmp_path / "runs" / "smoke", age=2, status="finished", settings=smoke)
    with pytest.raises(UserError, match="No run"):
        newest_checkpoint(tmp_path)
    full = "{limit_train_batches: null}"
    for age, place, checkpoint in ((5, "runs/a", "best"), (4, "runs/b", "last"), (3, "sweeps/s/0_c", "best")):
        add_run(tmp_path / place, age, checkpoint, status="finished", settings=full)
    for place in ("sweeps/s/0_c/checkpoints/best.ckpt", "runs/b/checkpoints/last.ckpt"):
        assert newest_checkpoint(tmp_path) == tmp_path / place
        (tmp_path / place).unlink()
    assert newest_checkpoint(tmp_path) == tmp_path / "runs" / "a" / "checkpoints" / "best.ckpt"


def test_server_answers_on_this_machine_only(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("the page")
    with make_server(tmp_path, 0) as first, make_server(tmp_path, first.server_port) as second:
        assert first.server_address[0] == second.server_address[0] == "127.0.0.1"
        assert second.server_port != first.server_port  # which is taken
        thread = threading.Thread(target=second.serve_forever)
        thread.start()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{second.server_port}/") as answer:
            assert answer.read() == b"the page"
        second.shutdown()
        thread.join()
