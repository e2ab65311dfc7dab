"""Which finished runs `latest` and `best` stand for."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mnist_cnn.app.folders import run_folder
from mnist_cnn.app.paths import find_checkpoint
from mnist_cnn.errors import UserError
from mnist_cnn.runs import best_checkpoint, newest_checkpoint

ACCURACY = {"metric": "val/acc", "mode": "max"}


def add_run(
    folder: Path,
    age: int,
    checkpoint: str = "best",
    metrics: dict[str, Any] | None = None,
    objective: dict[str, str] = ACCURACY,
    limit: int | None = None,
    data: str = "MNIST",
) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    path = folder / "checkpoints" / f"{checkpoint}.ckpt"
    path.touch()
    trainer = {"limit_train_batches": limit, "limit_test_batches": limit}
    (folder / ".hydra").mkdir()
    settings = folder / ".hydra" / "resolved.yaml"
    source = {"_target_": f"mnist_cnn.data.{data}"}
    data_set = {"source": source, "dir": "data"}
    settings.write_text(json.dumps({"trainer": trainer, "objective": objective, "data": data_set}))
    os.utime(settings, (1e9 - age, 1e9 - age))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps({"status": "finished"} | metrics))
        os.utime(folder / "metrics.json", (1e9 - age, 1e9 - age))
    return path


def test_newest_and_best_run_are_finished_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for find in (newest_checkpoint, best_checkpoint):
        with pytest.raises(UserError, match="No run in logs has finished yet"):
            find()
    runs, sweep = Path("logs", "runs"), Path("logs", "sweeps", "s")
    add_run(runs / "interrupted", age=0)
    add_run(runs / "pruned", age=1, metrics={"status": "pruned", "val/acc": 1.0})
    add_run(runs / "smoke", age=2, metrics={"val/acc": 1.0}, limit=20)
    with pytest.raises(UserError, match="No run in logs has finished yet"):
        newest_checkpoint()
    newest = add_run(sweep / "0_c", age=3, metrics={"val/acc": 0.8})
    best = add_run(runs / "all_images", age=4, checkpoint="last", metrics={"val/acc": 0.9})
    add_run(runs / "other_data", 5, metrics={"val/acc": 0.99}, data="KMNIST")
    add_run(runs / "other", 5, metrics={"val/acc": 0.99}, objective={"metric": "val/loss", "mode": "min"})
    assert find_checkpoint("latest") == newest
    assert find_checkpoint("best") == best
    assert run_folder("latest", "new") == str(runs / "interrupted")


def test_run_with_the_lowest_loss_is_the_best(tmp_path: Path) -> None:
    loss = {"metric": "val/loss", "mode": "min"}
    best = add_run(tmp_path / "runs" / "a", 2, metrics={"val/loss": 0.1}, objective=loss)
    add_run(tmp_path / "runs" / "b", 1, metrics={"val/loss": 0.2}, objective=loss)
    assert best_checkpoint(tmp_path) == best
