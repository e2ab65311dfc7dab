"""Runs as their folders describe them."""

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra_sweeps.contract import FAILED, HISTORY, RESOLVED, SweepError
from hydra_sweeps.definition import FILE as DEFINITION
from hydra_sweeps.definition import flatten, is_ignored, is_sweep, swept_keys
from hydra_sweeps.files import Unreadable, printable, read_yaml
from hydra_sweeps.goal import Goal, Objectives, goal_of, is_dict, select
from hydra_sweeps.grammar import key_of, unquote
from hydra_sweeps.outcome import Status, json_or_none, log, read_outcome

# Not settings of what a run learns, in every app.
_IGNORED = ("hparams", "hydra", "resume", "sweep", "objective")


@dataclass(frozen=True, eq=False)
class Run:
    """A run, finished or not.

    `settings` stands for all settings without the seed and the ignored ones that are not swept; `hparams`
    identify the run; `overrides` are those it was started with. `metrics` are the results, or those of the
    best epoch so far.
    """

    folder: Path
    number: int | None
    status: Status
    error: str | None
    hparams: Mapping[str, Any]
    settings: str
    seed: int | None
    metrics: Mapping[str, Any]
    overrides: Sequence[str]
    checkpoint: Path | None
    goal: Goal

    def value(self, metric: str) -> float | None:
        """Return the value of `metric`, or None if there is no finite number."""
        return number(self.metrics.get(metric))


def number(value: Any) -> float | None:
    """Return a finite number as it is, None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer that is larger than any float
        return None


def goal_of_sweep(folder: Path) -> Goal:
    """Return how the jobs of the sweep in `folder` are compared, according to its definition."""
    return goal_of(_yaml(folder / DEFINITION))


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """Return the runs in and below `folders`, ordered by folder, and jobs by their number.

    Other folders, and runs that cannot be read, are skipped. Raises `SweepError` if there is no run.
    """
    folders = list(folders)
    # resolved, because one of the folders may contain another
    found = {Path(path) for folder in folders for path, _, _ in os.walk(folder.resolve())}
    runs = [run for path in found if (run := _read(path)) is not None]
    _of_sweep.cache_clear()
    if not runs:
        raise SweepError(
            f"No run found in {', '.join(map(str, folders))}. Give the folder of a run or a sweep, such as "
            "logs/sweeps/SWEEP."
        )
    return sorted(runs, key=lambda run: (run.folder.parent, order(run), run.folder))


def order(run: Run) -> float:
    """Return the number of a job, infinity for other runs."""
    return math.inf if run.number is None else run.number


# --- reading a folder ----------------------------------------------------------------------------


@cache
def _of_sweep(folder: Path) -> tuple[list[str], Any]:
    """Return the settings that the sweep in `folder` sweeps, and its `hparams` with interpolations."""
    config = _yaml(folder / DEFINITION)
    return swept_keys(config), select(config, "hparams")


def _read(folder: Path) -> Run | None:
    if not (folder / RESOLVED).is_file() and not (folder / FAILED).is_file():
        return None
    config, overrides = _yaml(folder / RESOLVED), _yaml(folder / ".hydra" / "overrides.yaml")
    is_job = is_sweep(folder.parent) and (folder / FAILED).is_file()
    if not isinstance(overrides, list) and not is_dict(select(config, "hparams")) and not is_job:
        return None  # some other folder
    overrides = list(map(str, overrides)) if isinstance(overrides, list) else []
    swept, texts = _of_sweep(folder.parent)
    if not is_dict(config) or not texts:
        composed = _yaml(folder / ".hydra" / "config.yaml")
        texts = texts or select(composed, "hparams")
        if not is_dict(config):  # it failed before its settings were resolved, or the file is damaged
            config = composed if is_dict(composed) else {}

    ignored = select(config, "sweep", "ignore")
    ignored = (*_IGNORED, *map(str, ignored if isinstance(ignored, list) else ()))
    flat = {key: value for key, value in flatten(config) if "${" not in str(value)}
    settings = {
        key: value
        for key, value in flat.items()
        if key != "seed" and (is_ignored(key, swept) or not is_ignored(key, ignored))
    }
    hparams = {
        printable(key): value if number(value) is not None else printable(value)
        for key, value in _hparams(config, flat, overrides, texts).items()
        if key in swept or not is_ignored(key, ignored)
    }
    outcome, goal = read_outcome(folder), goal_of(config)
    checkpoints = [folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    prefix = folder.name.partition("_")[0]
    seed = config.get("seed", hparams.get("seed"))
    return Run(
        folder=folder,
        number=int(prefix) if prefix.isdecimal() else None,
        status=outcome.status,
        error=outcome.error,
        hparams=hparams,
        settings=hashlib.sha256(str(settings or overrides).encode(errors="replace")).hexdigest(),
        seed=seed if isinstance(seed, int) else None,
        metrics=outcome.metrics or _metrics_so_far(folder / HISTORY, goal.objectives),
        overrides=overrides,
        checkpoint=next((path for path in checkpoints if path.is_file()), None),
        goal=goal,
    )


def _hparams(
    config: Mapping[str, Any], flat: Mapping[str, Any], overrides: Sequence[str], texts: Any
) -> dict[str, Any]:
    """Return what identifies a run: `hparams` of its config, and the other settings that were given.

    flat: the settings by their dotted keys.
    texts: `hparams` with interpolations, which tell what a setting, or group, is called there.
    """
    known = config.get("hparams")
    found = {key: value for key, value in known.items() if "${" not in str(value)} if is_dict(known) else {}
    names = {}  # in hparams, by the setting or group
    for name, text in texts.items() if is_dict(texts) else ():
        source = str(text).strip("${}").removeprefix("hydra:runtime.choices.")
        names[source] = name
        if source in flat:
            found.setdefault(name, flat[source])
    for override in overrides:
        key, equal, text = override.partition("=")
        key = key_of(key)
        if equal and key != "seed":
            found.setdefault(names.get(key, key), flat.get(key, _value(text)))
    return found


def _value(text: str) -> Any:
    """Return the value of an override as it is shown: a number, or text."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return unquote(text)


def _metrics_so_far(path: Path, objectives: Objectives) -> dict[str, Any]:
    """Return the metrics of the best epoch in a history, and the number of epochs."""
    history = json_or_none(path)
    rows = [row for row in history if is_dict(row) and "epoch" in row] if isinstance(history, list) else []
    if not rows:
        return {}
    metric, direction = next(iter(objectives.items()))
    rated = [row for row in rows if number(row.get(metric)) is not None]
    pick = max if direction == "maximize" else min
    top = pick(rated, key=lambda row: row[metric]) if rated else rows[-1]
    metrics = {name: value for name, value in top.items() if name != "epoch"}
    return metrics | {"epochs": rows[-1]["epoch"], "best_epoch": top["epoch"]}


def _yaml(path: Path) -> Any:
    """Return what is in a YAML file; None where there is none, and with a warning where it is not read."""
    try:
        return read_yaml(path)
    except OSError:
        return None
    except Unreadable as reason:
        log.warning(f"{path} is left out: {reason}.")
        return None
