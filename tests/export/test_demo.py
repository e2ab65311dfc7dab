"""`make demo`: which checkpoint is taken, and who can connect."""

import json
import os
import threading
import urllib.request
from pathlib import Path

import pytest

from mnist_cnn.errors import UserError
from mnist_cnn.export.__main__ import make_server, newest_checkpoint


def add_run(runs: Path, name: str, age: int, **metrics: str) -> None:
    folder = runs / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").touch()
    if metrics:
        (folder / "metrics.json").write_text(json.dumps(metrics))
        os.utime(folder / "metrics.json", (1e9 - age, 1e9 - age))


def test_checkpoint_of_the_run_that_finished_last_is_taken(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No run"):
        newest_checkpoint(tmp_path)
    add_run(tmp_path, "a", age=3, status="finished")
    add_run(tmp_path, "b", age=2, status="finished")
    add_run(tmp_path, "c", age=1, status="pruned")
    add_run(tmp_path, "d", age=0)
    assert newest_checkpoint(tmp_path) == tmp_path / "b" / "checkpoints" / "best.ckpt"


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
