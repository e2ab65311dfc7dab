"""The finished runs under logs/: single runs and jobs of sweeps."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hydra_sweeps import METRICS, RESOLVED
from mnist_cnn.errors import UserError

LOGS = Path("logs")


def newest_checkpoint(logs: Path = LOGS) -> Path:
    """Return the checkpoint of the run that finished last: best.ckpt, or last.ckpt if there is no best.ckpt.

    Runs that were limited to some batches, as by debug=smoke, do not count. Raises `UserError` if no run has
    finished.
    """
    return _checkpoint(_finished(logs)[-1])


def best_checkpoint(logs: Path = LOGS) -> Path:
    """Return the checkpoint of the best run by its objective, among those with the objective of the newest.

    Raises `UserError` if no run has finished.
    """
    runs = _finished(logs)
    objective = _settings(runs[-1])["objective"]
    values = {run: _metrics(run).get(objective["metric"]) for run in runs}
    comparable = {
        run: value
        for run, value in values.items()
        if value is not None and _settings(run)["objective"] == objective
    }
    if not comparable:
        raise UserError(
            f"No run in {logs} has measured {objective['metric']}: give the path of a checkpoint."
        )
    choose = max if objective["mode"] == "max" else min
    return _checkpoint(choose(comparable, key=comparable.__getitem__))


def _finished(logs: Path) -> list[Path]:
    """Return the folders of the finished runs, the newest last."""
    files = [*logs.glob(f"runs/*/{METRICS}"), *logs.glob(f"sweeps/*/*/{METRICS}")]
    runs = [
        file.parent for file in sorted(files, key=lambda path: path.stat().st_mtime) if _counts(file.parent)
    ]
    if not runs:
        raise UserError(
            f"No run in {logs} has finished yet. Train one first: make train ARGS=trainer.max_epochs=1"
        )
    return runs


def _counts(run: Path) -> bool:
    if not (run / RESOLVED).is_file() or not any((run / "checkpoints").glob("*.ckpt")):
        return False
    trainer = _settings(run)["trainer"]
    is_limited = None not in (trainer["limit_train_batches"], trainer["limit_test_batches"])
    return _metrics(run).get("status") == "finished" and not is_limited


def _checkpoint(run: Path) -> Path:
    best = run / "checkpoints" / "best.ckpt"
    return best if best.is_file() else run / "checkpoints" / "last.ckpt"


def _settings(run: Path) -> Any:
    return OmegaConf.load(run / RESOLVED)


def _metrics(run: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((run / METRICS).read_text())
    return metrics
