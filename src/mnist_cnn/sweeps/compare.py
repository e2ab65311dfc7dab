"""Runs side by side: which there are, what differs between them, and which came out best."""

import json
import math
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from mnist_cnn.errors import UserError
from mnist_cnn.sweeps.definition import FILE as DEFINITION

Status: TypeAlias = Literal["finished", "pruned", "failed", "unfinished"]

# Metrics of metrics.json, each with "maximize" or "minimize".
Objectives: TypeAlias = Mapping[str, str]

BY_VALIDATION: Objectives = {"val/acc": "maximize"}  # never by test: that is for the result alone

FAILED = "failed.json"  # why a run failed, in its folder

# How a run is carried out, not what it learns: two runs that differ in these alone are the same.
_CIRCUMSTANCES = ("hydra", "resume", "sweep", "data.dir", "trainer.accelerator")


@dataclass(frozen=True)
class Outcome:
    """What became of a run, as its folder tells: `metrics` of one that ended well, else its `error`."""

    status: Status
    metrics: Mapping[str, Any]
    error: str | None = None


def outcome(folder: Path) -> Outcome:
    """Read what became of the run in `folder`; where neither file can be read it is unfinished."""
    metrics = _json(folder / "metrics.json")
    if metrics is not None:
        return Outcome("pruned" if metrics.get("status") == "pruned" else "finished", metrics)
    if (folder / FAILED).is_file():
        return Outcome("failed", {}, str((_json(folder / FAILED) or {}).get("error", "no message")))
    return Outcome("unfinished", {})


@dataclass(frozen=True, eq=False)
class Run:
    """A run as its folder tells it, finished or not.

    `settings` are all of them as text, but for the seed; `hparams` what it is told apart by; `overrides` what
    it was started with. `metrics` are those of metrics.json, or of the best epoch so far.
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

    def value(self, metric: str) -> float | None:
        """Return the value of `metric`; None where there is none, or it is no finite number."""
        return _number(self.metrics.get(metric))


@dataclass(frozen=True)
class Group:
    """The runs that differ in nothing but their seed, and what tells them from the others."""

    choices: Mapping[str, Any]
    runs: Sequence[Run]

    def values(self, metric: str) -> list[float]:
        """Return the values of `metric`, of the runs that have it."""
        return [value for run in self.runs if (value := run.value(metric)) is not None]


def is_sweep(folder: Path) -> bool:
    """Return whether `folder` is that of a sweep."""
    return (folder / DEFINITION).is_file()


def objectives_of(sweep_dir: Path) -> Objectives:
    """Return what the search in `sweep_dir` was for, by its definition; validation accuracy for others."""
    config: Any = _plain(_yaml(sweep_dir / DEFINITION))
    for key in ("hydra", "sweeper", "objectives"):
        config = config.get(key) if isinstance(config, dict) else None
    chosen = {str(key): value for key, value in config.items() if value} if isinstance(config, dict) else {}
    return (
        chosen
        if chosen and all(value in ("maximize", "minimize") for value in chosen.values())
        else BY_VALIDATION
    )


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """Return the runs in and below `folders` in the order of their folders, jobs in that of their numbers.

    What is no run, or no longer readable as one, is passed over. Raises `UserError` where there is none.
    """
    folders = list(folders)
    # resolved, because folders may lie in each other
    found = {Path(path) for folder in folders for path, _, _ in os.walk(folder.resolve())}
    runs = [run for path in found if (run := _read(path)) is not None]
    if not runs:
        raise UserError(f"There is no run below {', '.join(map(str, folders))}.")
    return sorted(runs, key=lambda run: (run.folder.parent, _order(run), run.folder))


def differing(runs: Sequence[Run]) -> list[str]:
    """Return the settings, but for the seed, in which `runs` differ."""
    keys = dict.fromkeys(key for run in runs for key in run.hparams if key != "seed")
    # A failed job may have ended before all of its settings were known; for others, none is a choice too.
    return [
        key
        for key in keys
        if len({run.hparams.get(key) for run in runs if key in run.hparams or run.status != "failed"}) > 1
    ]


def swept(runs: Sequence[Run]) -> list[str]:
    """Return those of the differing settings that were set, not what followed from these.

    With optim=sgd,adam the learning rate differs, too, but nobody chose it.
    """
    named = {override.split("=", 1)[0].lstrip("+~") for run in runs for override in run.overrides}
    named |= {key.rpartition(".")[2] for key in named}
    keys = differing(runs)
    return [key for key in keys if key in named] or keys


def ranked(runs: Iterable[Run], objectives: Objectives = BY_VALIDATION) -> list[Run]:
    """Return `runs` with the best first, by the first objective, and those without it last."""
    return sorted(runs, key=lambda run: (*_cost(run, objectives), _order(run)))


def group(runs: Sequence[Run], objectives: Objectives = BY_VALIDATION) -> list[Group]:
    """Put the finished runs together that differ in their seed only; the best on average come first.

    Groups without the objective come last, in the order of `runs`.
    """
    keys = differing(runs)
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.status == "finished":
            found.setdefault(run.settings, []).append(run)
    groups = [Group({key: alike[0].hparams.get(key, "") for key in keys}, alike) for alike in found.values()]
    metric, direction = next(iter(objectives.items()))
    sign = -1 if direction == "maximize" else 1

    def cost(one: Group) -> float:
        values = one.values(metric)
        return sign * statistics.fmean(values) if values else math.inf

    return sorted(groups, key=cost)


def best(runs: Sequence[Run], objectives: Objectives = BY_VALIDATION) -> list[Run]:
    """Return the finished runs that won; none where none has all objectives.

    With one objective it is the best run of the group that is best on average, so that no lucky seed wins;
    with several all runs that no other is better than in everything (the Pareto front), ordered by the first.
    """
    if len(objectives) == 1:
        groups = group(runs, objectives)
        first = ranked(groups[0].runs, objectives)[0] if groups else None
        return [first] if first is not None and _costs(first, objectives) is not None else []
    costs = {run: costs for run in runs if run.status == "finished" and (costs := _costs(run, objectives))}
    front = [
        run for run, mine in costs.items() if not any(_dominates(other, mine) for other in costs.values())
    ]
    return ranked(front, objectives)


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def _costs(run: Run, objectives: Objectives) -> list[float] | None:
    """Return the objectives' values such that less is better; None where one is missing."""
    costs = []
    for metric, direction in objectives.items():
        value = run.value(metric)
        if value is None:
            return None
        costs.append(-value if direction == "maximize" else value)
    return costs


def _cost(run: Run, objectives: Objectives) -> tuple[bool, float]:
    metric, direction = next(iter(objectives.items()))
    costs = _costs(run, {metric: direction})
    return costs is None, costs[0] if costs else 0.0


def _order(run: Run) -> float:
    return math.inf if run.number is None else run.number


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


# --- a run from its folder -----------------------------------------------------------------------


def _read(folder: Path) -> Run | None:
    resolved, failed = folder / ".hydra" / "resolved.yaml", folder / FAILED
    if not resolved.is_file() and not failed.is_file():
        return None
    overrides = _overrides(folder)
    config = _plain(_yaml(resolved))
    hparams = config.pop("hparams", None)
    if not isinstance(hparams, dict):
        # It failed before its settings were resolved, or they cannot be read any more.
        if overrides is None and not (failed.is_file() and is_sweep(folder.parent)):
            return None
        hparams, config = _intended(folder, overrides or []), {}
    hparams = {str(k): v if _number(v) is not None else str(v) for k, v in hparams.items()}
    hparams = {key: value for key, value in hparams.items() if not _is_circumstance(key)}

    became = outcome(folder)
    checkpoints = [folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    metrics = became.metrics
    if became.status in ("failed", "unfinished") and checkpoints[1].is_file():
        metrics = _so_far(checkpoints[1])
    prefix = folder.name.partition("_")[0]
    seed = config.get("seed", hparams.get("seed"))
    return Run(
        folder=folder,
        number=int(prefix) if prefix.isdecimal() else None,
        status=became.status,
        error=became.error,
        hparams=hparams,
        settings=str(dict(_settings(config))) if config else str(overrides),
        seed=seed if isinstance(seed, int) else None,
        metrics=metrics,
        overrides=overrides or [],
        checkpoint=next((path for path in checkpoints if path.is_file()), None),
    )


def _settings(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give the settings by their dotted keys, but for the seed and circumstances."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name == "seed" or _is_circumstance(name):
            continue
        if isinstance(value, Mapping) and value:
            yield from _settings(value, f"{name}.")
        else:
            yield name, value


def _is_circumstance(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in _CIRCUMSTANCES)


def _overrides(folder: Path) -> list[str] | None:
    config = _yaml(folder / ".hydra" / "overrides.yaml")
    if not isinstance(config, ListConfig):
        return None
    return [str(item) for item in OmegaConf.to_container(config, resolve=False) or []]


def _intended(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the hparams of a job from what Hydra writes before it starts, as far as it is there."""
    config = _yaml(folder / ".hydra" / "config.yaml")
    sources: dict[str, str] = {}  # the setting, or ${hydra:…}, that a hyperparameter is taken from
    if isinstance(config, DictConfig):
        texts = _plain(config).get("hparams")
        sources = (
            {name: str(text).strip("${}") for name, text in texts.items()} if isinstance(texts, dict) else {}
        )
    choices: Any = _plain(_yaml(folder / ".hydra" / "hydra.yaml"))
    for key in ("hydra", "runtime", "choices"):
        choices = choices.get(key) if isinstance(choices, dict) else None
    hparams: dict[str, Any] = {}
    for name, source in sources.items():
        group = source.removeprefix("hydra:runtime.choices.")
        value = (
            choices.get(group) if isinstance(choices, dict) and group != source else _select(config, source)
        )
        if value is not None:
            hparams[name] = value
    names = {source.removeprefix("hydra:runtime.choices."): name for name, source in sources.items()}
    for override in overrides:
        key, _, text = override.partition("=")
        key = key.lstrip("+~")
        hparams.setdefault(names.get(key, key), _value(text))
    return hparams


def _select(config: DictConfig | ListConfig | None, key: str) -> Any:
    try:
        return None if config is None else OmegaConf.select(config, key)
    except OmegaConfBaseException:  # an interpolation that only Hydra can follow
        return None


def _value(text: str) -> Any:
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        return text


def _so_far(path: Path) -> dict[str, Any]:
    """Return what the history in a checkpoint says: the epochs, and the metrics of the best of them."""
    from mnist_cnn.training import checkpoints  # imports torch, which a look at finished runs can do without

    try:
        history = [row for row in checkpoints.load(path)["history"] if _number(row.get("epoch")) is not None]
    except Exception:  # whatever half a file makes of unpickling
        return {}
    if not history:
        return {}
    rated = [row for row in history if _number(row.get("val/acc")) is not None]
    top = max(rated, key=lambda row: row["val/acc"]) if rated else history[-1]
    metrics = {name: value for name, value in top.items() if name.startswith(("train/", "val/"))}
    return metrics | {"epochs": int(history[-1]["epoch"]), "best_epoch": int(top["epoch"])}


def _plain(config: DictConfig | ListConfig | None) -> dict[Any, Any]:
    """Return a mapping with interpolations as they are written; an empty one for anything else."""
    plain = None if config is None else OmegaConf.to_container(config, resolve=False)
    return plain if isinstance(plain, dict) else {}


def _yaml(path: Path) -> DictConfig | ListConfig | None:
    try:
        return OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError):
        return None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
