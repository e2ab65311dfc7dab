"""Runs as their folders describe them, what differs between them, and which are best."""

import hashlib
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from hydra_sweeps.contract import FAILED, HISTORY, OVERRIDES, RESOLVED, SweepError
from hydra_sweeps.definition import FILE as DEFINITION
from hydra_sweeps.definition import flatten, is_ignored, is_sweep, swept_keys
from hydra_sweeps.files import printable, read_or_none
from hydra_sweeps.goal import Goal, Objectives, goal_of, is_dict, select
from hydra_sweeps.grammar import key_of, unquote
from hydra_sweeps.outcome import Status, read_outcome

Group: TypeAlias = list["Run"]  # that differ only in their seed, best first

# Not settings of what a run learns, in every app.
_IGNORED = ("hparams", "hydra", "sweep", "objective")


@dataclass(frozen=True, eq=False)
class Run:
    """A run, finished or not.

    `settings` stands for all settings without the seed and the ignored ones that are not swept; `hparams`
    and among them the seed identify the run; `overrides` are those it was started with. `metrics` are the
    results, or those of the best epoch so far.
    """

    folder: Path
    number: float  # of a job; infinity for other runs, which come last
    status: Status
    error: str | None
    hparams: dict[str, Any]
    settings: str
    metrics: Mapping[str, Any]
    overrides: Sequence[str]
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
    return goal_of(read_or_none(folder / DEFINITION))


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """Return the runs in and below `folders`, ordered by folder, and jobs by their number.

    Other folders, and runs that cannot be read, are skipped. Raises `SweepError` if there is no run.
    """
    # resolved, because one of the folders may contain another
    found = {Path(path) for folder in folders for path, _, _ in os.walk(folder.resolve())}
    runs = [run for path in found if (run := _read(path)) is not None]
    _swept.cache_clear()
    if not runs:
        raise SweepError(
            f"No run found in {', '.join(map(str, folders))}. Give the folder of a run or a sweep, such as "
            "logs/sweeps/SWEEP."
        )
    _use_names_of_hparams(runs)
    return sorted(runs, key=lambda run: (run.folder.parent, run.number, run.folder))


def _use_names_of_hparams(runs: Sequence[Run]) -> None:
    """Name settings as `hparams` does: not optim.lr beside lr, if that is the same in all runs."""
    for key in {key for run in runs for key in run.hparams if "." in key}:
        name = key.rpartition(".")[2]
        pairs = [(run.hparams[key], run.hparams[name]) for run in runs if {key, name} <= run.hparams.keys()]
        if pairs and all(one == other for one, other in pairs):
            for run in runs:
                if key in run.hparams:
                    run.hparams.setdefault(name, run.hparams.pop(key))


# --- reading a folder ----------------------------------------------------------------------------


@cache
def _swept(sweep: Path) -> tuple[str, ...]:
    return tuple(swept_keys(read_or_none(sweep / DEFINITION)))


def _read(folder: Path) -> Run | None:
    has_failed = (folder / FAILED).is_file()
    if not has_failed and not (folder / RESOLVED).is_file():
        return None
    config, overrides = read_or_none(folder / RESOLVED), read_or_none(folder / OVERRIDES)
    config = config if is_dict(config) else {}  # it failed before they were written, or the file is damaged
    if not isinstance(overrides, list):
        if not is_dict(config.get("hparams")) and not (has_failed and is_sweep(folder.parent)):
            return None  # some other folder
        overrides = []
    overrides = list(map(str, overrides))
    swept, ignored = _swept(folder.parent), select(config, "sweep", "ignore")
    ignored = (*_IGNORED, *map(str, ignored if isinstance(ignored, list) else ()))
    flat = dict(flatten(config))
    # A mere number may be part of other paths, too.
    name = folder.parts[-2:] if folder.name.isdecimal() else folder.parts[-1:]
    own = f"{os.sep}{os.sep.join(name)}{os.sep}"
    settings = {
        key: value
        for key, value in flat.items()
        if key != "seed"
        and (is_ignored(key, swept) or not is_ignored(key, ignored))
        # A path in the folder of its run, as of a logger: no two runs share it.
        and not (isinstance(value, str) and own in f"{value}{os.sep}")
    }
    hparams = {
        printable(key): value if number(value) is not None else printable(value)
        for key, value in _hparams(config, flat, overrides).items()
        if key in swept or not is_ignored(key, ignored)
    }
    seed = config.get("seed", hparams.pop("seed", None))
    if isinstance(seed, int):
        hparams["seed"] = seed
    outcome, goal, prefix = read_outcome(folder), goal_of(config), folder.name.partition("_")[0]
    return Run(
        folder=folder,
        number=int(prefix) if prefix.isdecimal() else math.inf,
        status=outcome.status,
        error=outcome.error,
        hparams=hparams,
        settings=hashlib.sha256(str(settings or overrides).encode(errors="replace")).hexdigest(),
        metrics=outcome.metrics or _metrics_so_far(folder / HISTORY, goal),
        overrides=overrides,
        goal=goal,
    )


def _hparams(config: Mapping[str, Any], flat: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return what identifies a run: `hparams` of its config, and the other settings that were given.

    flat: the settings by their dotted keys.
    """
    known = config.get("hparams")
    found = dict(known) if is_dict(known) else {}
    for override in overrides:
        key, (_, equal, text) = key_of(override), override.partition("=")
        if equal:
            found.setdefault(key, flat.get(key, _value(text)))
    return found


def _value(text: str) -> Any:
    """Return the value of an override as it is shown: a number, or text."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return unquote(text)


def _metrics_so_far(path: Path, goal: Goal) -> dict[str, Any]:
    """Return the metrics of the best epoch in a history, and the number of epochs."""
    history = read_or_none(path)
    rows = [row for row in history if is_dict(row) and "epoch" in row] if isinstance(history, list) else []
    last = {"epochs": rows[-1]["epoch"]} if rows else {}
    rated = [row for row in rows if number(row.get(goal.first)) is not None]
    pick = max if goal.objectives[goal.first] == "maximize" else min
    return pick(rated, key=lambda row: row[goal.first], default={}) | last


# --- what differs between runs, and which are best ----------------------------------------------


def differing(runs: Sequence[Run]) -> list[str]:
    """Return the hyperparameters in which `runs` differ."""
    keys = dict.fromkeys(key for run in runs for key in run.hparams)
    # A failed job may lack settings because it ended before they were known; in others a missing one counts.
    return [
        key
        for key in keys
        if len({run.hparams.get(key) for run in runs if key in run.hparams or run.status != "failed"}) > 1
    ]


def swept(runs: Sequence[Run]) -> list[str]:
    """Return the differing hyperparameters that were set, without the seed and those that follow from them.

    With optim=sgd,adam the learning rate differs too, but was not chosen.
    """
    named = {key_of(override) for run in runs for override in run.overrides}
    named |= {key.rpartition(".")[2] for key in named}
    keys = [key for key in differing(runs) if key != "seed"]
    return [key for key in keys if key in named] or keys


def ranked(runs: Iterable[Run], objectives: Objectives) -> list[Run]:
    """Return `runs` ordered by the first objective, best first and those without it last."""
    return sorted(runs, key=lambda run: (_costs(run, objectives)[0], run.number))


def group(runs: Sequence[Run], objectives: Objectives) -> list[Group]:
    """Group the finished runs that differ only in their seed; the best on average come first.

    Of runs with the same seed, which are the same experiment, the best one counts. Runs without a seed all
    count.
    """
    found: dict[str, dict[int | Run, Run]] = {}
    for run in ranked(runs, objectives):
        if run.status == "finished":
            found.setdefault(run.settings, {}).setdefault(run.hparams.get("seed", run), run)
    groups = [list(by_seed.values()) for by_seed in found.values()]
    return sorted(groups, key=lambda one: statistics.fmean(_costs(run, objectives)[0] for run in one))


def best(runs: Sequence[Run], objectives: Objectives) -> list[Run]:
    """Return the best of the finished runs; none if no run has all objectives.

    With one objective this is the best run of the best group, so that no lucky seed wins; with several, the
    Pareto front, ordered by the first objective.
    """
    candidates = [run for run in runs if run.status == "finished"]
    if len(objectives) == 1:
        candidates = [one[0] for one in group(runs, objectives)[:1]]
    costs = {run: costs for run in candidates if math.inf not in (costs := _costs(run, objectives))}
    front: list[Run] = []
    for run in sorted(costs, key=lambda one: (costs[one], one.number)):
        if not any(_dominates(costs[other], costs[run]) for other in front):
            front.append(run)
    return front


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _costs(run: Run, objectives: Objectives) -> list[float]:
    """Return the objectives' values such that less is better, infinity where one is missing."""
    costs = []
    for metric, direction in objectives.items():
        value = run.value(metric)
        costs.append(math.inf if value is None else -value if direction == "maximize" else value)
    return costs
