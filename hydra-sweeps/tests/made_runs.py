"""Folders of runs, as an app leaves them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def add_run(
    folder: Path,
    metrics: dict[str, Any] | None = None,
    overrides: Sequence[str] = (),
    settings: dict[str, Any] | None = None,
    **hparams: Any,
) -> Path:
    """Create the folder of a run with these hparams; defaults are {seed: 0, optim: sgd, lr: 0.1}."""
    (folder / ".hydra").mkdir(parents=True)
    hparams = {"seed": 0, "optim": "sgd", "lr": 0.1} | hparams
    config = {
        "seed": hparams["seed"],
        "optim": {"lr": hparams["lr"], "name": hparams["optim"]},
        "hparams": hparams,
        "objective": {"metric": "val/acc", "mode": "max"},
        "sweep": {"ignore": ["data.dir", "trainer.accelerator"]},
    }
    OmegaConf.save(OmegaConf.create(config | (settings or {})), folder / ".hydra" / "resolved.yaml")
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def scores(acc: float, **more: Any) -> dict[str, Any]:
    return {"val/acc": acc, "test/acc": acc - 0.01, "test/loss": 0.5, "epochs": 2, "seconds": 2.0} | more


def add_history(folder: Path, history: list[dict[str, float]]) -> None:
    (folder / "history.json").write_text(json.dumps(history))


def add_failed(folder: Path, error: str = "no such thing", overrides: Sequence[str] = ()) -> Path:
    """Create the folder of a job that failed before its settings were resolved."""
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
    (folder / "failed.json").write_text(json.dumps({"error": error}))
    return folder
