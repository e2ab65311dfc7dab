"""The finished runs under logs/: single runs and jobs of sweeps."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from hydra_sweeps import METRICS, RESOLVED
from mnist_cnn.errors import UserError

LOGS = Path("logs")


class _Run(NamedTuple):
    checkpoint: Path
    settings: Any
    metrics: dict[str, Any]


def newest_checkpoint(logs: Path = LOGS) -> Path:
    """Return the checkpoint of the run that finished last: best.ckpt, or last.ckpt if there is no best.ckpt.

    Runs that were limited to some batches, as by debug=smoke, do not count. Raises `UserError` if no run has
    finished.
    """
    return _finished(logs)[-1].checkpoint


def best_checkpoint(logs: Path = LOGS) -> Path:
    """Return the checkpoint of the best run by its objective, among those with the objective of the newest.

    Raises `UserError` if no run has finished.
    """
    runs = _finished(logs)
    objective = runs[-1].settings.objective
    comparable = [
        run for run in runs if run.settings.objective == objective and objective.metric in run.metrics
    ]
    if not comparable:
        raise UserError(f"No run in {logs} has measured {objective.metric}: give the path of a checkpoint.")
    choose = max if objective.mode == "max" else min
    return choose(comparable, key=lambda run: run.metrics[objective.metric]).checkpoint


def _finished(logs: Path) -> list[_Run]:
    """Return the finished runs, the newest last."""
    files = [*logs.glob(f"runs/*/{METRICS}"), *logs.glob(f"sweeps/*/*/{METRICS}")]
    runs = []
    for file in sorted(files, key=lambda path: path.stat().st_mtime):
        folder = file.parent
        checkpoints = [folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
        existing = [path for path in checkpoints if path.is_file()]
        if not existing or not (folder / RESOLVED).is_file():
            continue
        settings: Any = OmegaConf.load(folder / RESOLVED)
        metrics = json.loads(file.read_text())
        is_limited = None not in (settings.trainer.limit_train_batches, settings.trainer.limit_test_batches)
        if metrics.get("status") == "finished" and not is_limited:
            runs.append(_Run(existing[0], settings, metrics))
    if not runs:
        raise UserError(
            f"No run in {logs} has finished yet. Train one first: make train ARGS=trainer.max_epochs=1"
        )
    return runs
