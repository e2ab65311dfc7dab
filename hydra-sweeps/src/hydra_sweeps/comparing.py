"""What differs between runs, and which are best."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from hydra_sweeps.goal import Objectives
from hydra_sweeps.grammar import key_of
from hydra_sweeps.runs import Run

Group: TypeAlias = list[Run]  # that differ only in their seed, best first


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
    return sorted(runs, key=lambda run: (_costs(run, objectives)[0], run.order))


def group(runs: Sequence[Run], objectives: Objectives) -> list[Group]:
    """Group the finished runs that differ only in their seed; the best on average come first.

    Of runs with the same seed, which are the same experiment, the best one counts. Runs without a seed all
    count.
    """
    found: dict[str, dict[int | Run, Run]] = {}
    for run in ranked(runs, objectives):
        if run.status == "finished":
            found.setdefault(run.settings, {}).setdefault(run if run.seed is None else run.seed, run)
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
    for run in sorted(costs, key=lambda one: (costs[one], one.order)):
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
