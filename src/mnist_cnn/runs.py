"""The finished runs under logs/: single runs and jobs of sweeps."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hydra_sweeps import METRICS, RESOLVED
from mnist_cnn.errors import UserError
from mnist_cnn.files import read_yaml

LOGS = Path("logs")


class _Run(NamedTuple):
    checkpoint: Path
    settings: dict[str, Any]
    metrics: dict[str, Any]


def newest_checkpoint(logs: Path = LOGS) -> Path:
    """Return the checkpoint of the run that finished last: best.ckpt, or last.ckpt if there is no best.ckpt.

    Runs that were limited to some batches, as by debug=smoke, do not count. Raises `UserError` if no run has
    finished.
    """
    return _newest(logs).checkpoint


def best_checkpoint(logs: Path = LOGS) -> Path:
    """Return the checkpoint of the best run, among those with the data set and the objective of the newest.

    Raises `UserError` if no run has finished.
    """
    newest = _newest(logs)
    objective = newest.settings["objective"]
    metric = objective["metric"]
    comparable = [
        run
        for run in _finished(logs)
        if run.settings["objective"] == objective
        and _data_set(run) == _data_set(newest)
        and metric in run.metrics
    ]
    if not comparable:
        raise UserError(f"No run in {logs} has measured {metric}: give the path of a checkpoint.")
    choose = max if objective["mode"] == "max" else min
    return choose(comparable, key=lambda run: run.metrics[metric]).checkpoint


def _newest(logs: Path) -> _Run:
    for run in _finished(logs):
        return run
    raise UserError(
        f"No run in {logs} has finished yet. Train one first: make train ARGS=trainer.max_epochs=1"
    )


def _finished(logs: Path) -> Iterator[_Run]:
    """Yield the finished runs, the newest first."""
    files = [*logs.glob(f"runs/*/{METRICS}"), *logs.glob(f"sweeps/*/*/{METRICS}")]
    for file in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        checkpoints = [file.parent / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
        existing = [path for path in checkpoints if path.is_file()]
        if not existing or not (file.parent / RESOLVED).is_file():
            continue
        settings, metrics = read_yaml(file.parent / RESOLVED), json.loads(file.read_text())
        trainer = settings["trainer"]
        is_limited = None not in (trainer["limit_train_batches"], trainer["limit_test_batches"])
        if metrics.get("status") == "finished" and not is_limited:
            yield _Run(existing[0], settings, metrics)


def _data_set(run: _Run) -> tuple[Any, Any]:
    return run.settings["data"]["source"], run.settings["data"]["dir"]
