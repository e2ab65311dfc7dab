"""Runs as their folders describe them: what differs between them, and which are best."""

import json
import logging
import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_sweeps.definition import FILE as DEFINITION
from hydra_sweeps.definition import flatten, is_ignored, is_swept, key_of
from hydra_sweeps.files import Unreadable, printable, read_text, read_yaml
from hydra_sweeps.interface import FAILED, HISTORY, METRICS, RESOLVED, SweepError

Status: TypeAlias = Literal["finished", "pruned", "failed", "unfinished"]

# "maximize" or "minimize" by metric. The first one decides the order of runs.
Objectives: TypeAlias = Mapping[str, str]

MODES = {"max": "maximize", "min": "minimize"}

log = logging.getLogger(__name__)

# Not settings of what a run learns, in every app.
_IGNORED = ("hparams", "hydra", "resume", "sweep", "objective")


@dataclass(frozen=True)
class Goal:
    """How runs are compared: the objectives, and the metrics shown in addition."""

    objectives: Objectives
    metrics: Sequence[str]

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys([*self.objectives, *self.metrics]))


# For runs from before the config had `objective` and `sweep.metrics`.
DEFAULT_GOAL = Goal({"val/acc": "maximize"}, ("test/acc", "test/loss", "images_per_second", "seconds"))
_DEFAULT_IGNORE = ("data.dir", "trainer.accelerator")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the `metrics` of one that finished or was pruned, the `error` of one that failed."""

    status: Status
    metrics: Mapping[str, Any]
    error: str | None = None


def read_outcome(folder: Path) -> Outcome:
    """Read how the run in `folder` ended; without a readable result it is unfinished."""
    metrics = _json(folder / METRICS)
    if isinstance(metrics, dict):
        return Outcome("pruned" if metrics.get("status") == "pruned" else "finished", metrics)
    if (folder / FAILED).is_file():
        failure = _json(folder / FAILED)
        error = failure.get("error") if isinstance(failure, dict) else None
        return Outcome("failed", {}, printable(error or "no message"))
    return Outcome("unfinished", {})


@dataclass(frozen=True, eq=False)
class Run:
    """A run, finished or not.

    `settings` are all settings as text, without the seed and the ignored ones that are not swept; `hparams`
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
        return _number(self.metrics.get(metric))

    @property
    def script(self) -> str:
        """The name of the script that was run."""
        name = _get(_yaml(self.folder / ".hydra" / "hydra.yaml"), "hydra", "job", "name")
        return f"{name or 'train'}.py"


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed, and the settings that differ from other groups."""

    choices: Mapping[str, Any]
    runs: Sequence[Run]

    def values(self, metric: str) -> list[float]:
        """Return the values of `metric` of the runs that have it."""
        return [value for run in self.runs if (value := run.value(metric)) is not None]


def is_sweep(folder: Path) -> bool:
    """Return whether `folder` is the folder of a sweep."""
    return (folder / DEFINITION).is_file()


def goal_of_sweep(folder: Path) -> Goal:
    """Return how the jobs of the sweep in `folder` are compared, according to its definition."""
    return goal_of(_yaml(folder / DEFINITION))


def goal_of(config: Any) -> Goal:
    """Return how runs with this config are compared: by a search's objectives, or by `objective`."""
    objectives = _get(config, "hydra", "sweeper", "objectives")
    chosen = {str(k): value for k, value in objectives.items() if value} if _is_dict(objectives) else {}
    if not chosen or not set(chosen.values()) <= set(MODES.values()):
        metric, mode = (_get(config, "objective", key) for key in ("metric", "mode"))
        chosen = {metric: MODES[mode]} if isinstance(metric, str) and mode in MODES else {}
    metrics = _get(config, "sweep", "metrics")
    return Goal(
        chosen or DEFAULT_GOAL.objectives,
        tuple(map(str, metrics)) if isinstance(metrics, list) else DEFAULT_GOAL.metrics,
    )


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """Return the runs in and below `folders`, ordered by folder, and jobs by their number.

    Other folders, and runs that cannot be read, are skipped. Raises `SweepError` if there is no run.
    """
    folders = list(folders)
    # resolved, because one of the folders may contain another
    found = {Path(path) for folder in folders for path, _, _ in os.walk(folder.resolve())}
    swept_in = cache(_swept_keys)  # it takes half a second to read the definition of a sweep
    runs = [run for path in found if (run := _read(path, swept_in)) is not None]
    if not runs:
        raise SweepError(
            f"No run found in {', '.join(map(str, folders))}. Give the folder of a run or a sweep, such as "
            "logs/sweeps/SWEEP."
        )
    return sorted(runs, key=lambda run: (run.folder.parent, _order(run), run.folder))


def differing(runs: Sequence[Run]) -> list[str]:
    """Return the hyperparameters, except the seed, in which `runs` differ."""
    keys = dict.fromkeys(key for run in runs for key in run.hparams if key != "seed")
    # A failed job may lack settings because it ended before they were known; in others a missing one counts.
    return [
        key
        for key in keys
        if len({run.hparams.get(key) for run in runs if key in run.hparams or run.status != "failed"}) > 1
    ]


def swept(runs: Sequence[Run]) -> list[str]:
    """Return the differing hyperparameters that were set, without those that follow from them.

    With optim=sgd,adam the learning rate differs too, but was not chosen.
    """
    named = {key_of(override) for run in runs for override in run.overrides}
    named |= {key.rpartition(".")[2] for key in named}
    keys = differing(runs)
    return [key for key in keys if key in named] or keys


def ranked(runs: Iterable[Run], objectives: Objectives) -> list[Run]:
    """Return `runs` ordered by the first objective, best first and those without it last."""
    return sorted(runs, key=lambda run: (_costs(run, objectives)[0], _order(run)))


def group(runs: Sequence[Run], objectives: Objectives) -> list[Group]:
    """Group the finished runs that differ only in their seed; the best on average come first.

    Of runs with the same seed, which are the same experiment, the best one counts. Runs without a seed all
    count.
    """
    keys = differing(runs)
    found: dict[str, dict[int | Run, Run]] = {}
    for run in ranked(runs, objectives):
        if run.status == "finished":
            found.setdefault(run.settings, {}).setdefault(run if run.seed is None else run.seed, run)
    groups = []
    for by_seed in found.values():
        alike = list(by_seed.values())
        groups.append(Group({key: alike[0].hparams.get(key, "") for key in keys}, alike))
    return sorted(groups, key=lambda one: statistics.fmean(_costs(run, objectives)[0] for run in one.runs))


def best(runs: Sequence[Run], objectives: Objectives) -> list[Run]:
    """Return the best of the finished runs; none if no run has all objectives.

    With one objective this is the best run of the best group, so that no lucky seed wins; with several, the
    Pareto front, ordered by the first objective.
    """
    candidates = [run for run in runs if run.status == "finished"]
    if len(objectives) == 1:
        groups = group(runs, objectives)
        candidates = ranked(groups[0].runs, objectives)[:1] if groups else []
    costs = {run: costs for run in candidates if math.inf not in (costs := _costs(run, objectives))}
    front = [
        run for run, mine in costs.items() if not any(_dominates(other, mine) for other in costs.values())
    ]
    return ranked(front, objectives)


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _costs(run: Run, objectives: Objectives) -> list[float]:
    """Return the objectives' values such that less is better, infinity where one is missing."""
    values = {metric: run.value(metric) for metric in objectives}
    signs = {metric: -1 if direction == "maximize" else 1 for metric, direction in objectives.items()}
    return [math.inf if value is None else signs[metric] * value for metric, value in values.items()]


def _order(run: Run) -> float:
    return math.inf if run.number is None else run.number


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


# --- reading a folder ----------------------------------------------------------------------------


def _read(folder: Path, swept_in: Callable[[Path], Sequence[str]]) -> Run | None:
    resolved, failed = folder / RESOLVED, folder / FAILED
    if not resolved.is_file() and not failed.is_file():
        return None
    overrides = _yaml(folder / ".hydra" / "overrides.yaml")
    has_overrides = isinstance(overrides, list)
    overrides = list(map(str, overrides)) if has_overrides else []
    config = _yaml(resolved)
    hparams = _get(config, "hparams")
    if not _is_dict(hparams):
        # It failed before its settings were resolved, or the file is damaged.
        if not has_overrides and not (failed.is_file() and is_sweep(folder.parent)):
            return None
        hparams, config = _intended(folder, overrides), {}
    ignore = _get(config, "sweep", "ignore")
    ignored = (*_IGNORED, *map(str, ignore if isinstance(ignore, list) else _DEFAULT_IGNORE))
    swept_keys = swept_in(folder.parent)
    settings = {
        key: value
        for key, value in flatten(config)
        if key != "seed" and (is_ignored(key, swept_keys) or not is_ignored(key, ignored))
    }
    # An app does not record what is ignored; where it is swept, it is what identifies the run.
    hparams = {
        key: settings[key] for key in swept_keys if key in settings and is_ignored(key, ignored)
    } | hparams
    hparams = {printable(k): v if _number(v) is not None else printable(v) for k, v in hparams.items()}
    hparams = {k: v for k, v in hparams.items() if k in swept_keys or not is_ignored(k, ignored)}

    outcome, goal = read_outcome(folder), goal_of(config)
    metrics = outcome.metrics or _metrics_so_far(folder / HISTORY, goal.objectives)
    checkpoints = [folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    prefix = folder.name.partition("_")[0]
    seed = config.get("seed", hparams.get("seed"))
    return Run(
        folder=folder,
        number=int(prefix) if prefix.isdecimal() else None,
        status=outcome.status,
        error=outcome.error,
        hparams=hparams,
        settings=str(settings or overrides),
        seed=seed if isinstance(seed, int) else None,
        metrics=metrics,
        overrides=overrides,
        checkpoint=next((path for path in checkpoints if path.is_file()), None),
        goal=goal,
    )


def _swept_keys(sweep: Path) -> list[str]:
    """Return the settings and groups that the sweep in the folder `sweep`, if it is one, has swept."""
    overrides = _get(_yaml(sweep / DEFINITION), "hydra", "overrides", "task")
    keys = []
    for override in overrides if isinstance(overrides, list) else ():
        with suppress(HydraException):
            if is_swept(str(override)):
                keys.append(key_of(str(override)))
    return keys


def _intended(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the hyperparameters of a job from the files that Hydra writes before it starts."""
    config, hydra = (_yaml(folder / ".hydra" / name) for name in ("config.yaml", "hydra.yaml"))
    texts = _get(config, "hparams")
    hparams: dict[str, Any] = {}
    names: dict[str, str] = {}  # of the hyperparameter that a setting, or group, has
    for name, text in texts.items() if _is_dict(texts) else ():
        source = str(text).strip("${}").replace("hydra:", "hydra.")
        names[source.removeprefix("hydra.runtime.choices.")] = name
        with suppress(OmegaConfBaseException):  # an interpolation that only Hydra can resolve
            hparams[name] = OmegaConf.select(OmegaConf.create({**config, **(hydra or {})}), source)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = key_of(str(override.input_line))
        hparams.setdefault(names.get(key, key), override.value())
    return {name: value for name, value in hparams.items() if value is not None}


def _metrics_so_far(path: Path, objectives: Objectives) -> dict[str, Any]:
    """Return the metrics of the best epoch in a history, and the number of epochs."""
    history = _json(path)
    rows = [row for row in history if _is_dict(row) and "epoch" in row] if isinstance(history, list) else []
    if not rows:
        return {}
    metric, direction = next(iter(objectives.items()))
    rated = [row for row in rows if _number(row.get(metric)) is not None]
    pick = max if direction == "maximize" else min
    top = pick(rated, key=lambda row: row[metric]) if rated else rows[-1]
    metrics = {name: value for name, value in top.items() if name != "epoch"}
    return metrics | {"epochs": rows[-1]["epoch"], "best_epoch": top["epoch"]}


def _get(config: Any, *keys: str) -> Any:
    for key in keys:
        config = config.get(key) if _is_dict(config) else None
    return config


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _yaml(path: Path) -> Any:
    """Return what is in a YAML file, with interpolations as they are; None if it cannot be read."""
    return _read_or_none(read_yaml, path)


def _json(path: Path) -> Any:
    text = _read_or_none(read_text, path)
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read_or_none(read: Callable[[Path], Any], path: Path) -> Any:
    """Return what `read` returns; None where there is no file, and with a warning where it is not read."""
    try:
        return read(path)
    except OSError:
        return None
    except Unreadable as reason:
        log.warning(f"{path} is left out: {reason}.")
        return None
