"""How the runs of an app are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

from hydra_sweeps.contract import RESULT, SweepError

# "maximize" or "minimize" by metric. The first one decides the order of runs.
Objectives: TypeAlias = Mapping[str, str]

MODES = {"max": "maximize", "min": "minimize"}


@dataclass(frozen=True)
class Goal:
    """The objectives, and the metrics shown in addition; None for all that the runs have."""

    objectives: Objectives
    metrics: Sequence[str] | None

    @property
    def first(self) -> str:
        """The metric that decides the order of runs."""
        return next(iter(self.objectives))


def goal_of(config: Any) -> Goal:
    """Return how runs with this config are compared: by a search's objectives, or by `objective`."""
    objectives = select(config, "hydra", "sweeper", "objectives")
    chosen = {str(key): how for key, how in objectives.items() if how} if is_dict(objectives) else {}
    if not chosen or not all(how in MODES.values() for how in chosen.values()):
        metric, mode = select(config, "objective", "metric"), str(select(config, "objective", "mode"))
        chosen = {metric: MODES[mode]} if isinstance(metric, str) and mode in MODES else {}
    metrics = select(config, "sweep", "metrics")
    shown = tuple(map(str, metrics)) if isinstance(metrics, list) else None
    return Goal(chosen or {RESULT: "minimize"}, shown)


def check_objective(config: Any) -> None:
    """Raise `SweepError` if `objective` says only in part what is compared, and how."""
    objective = select(config, "objective")
    if not is_dict(objective) or not {"metric", "mode"} & objective.keys():
        return  # none, or a setting of the app with another meaning
    metric, mode = select(objective, "metric"), str(select(objective, "mode"))
    if not isinstance(metric, str) or mode not in MODES:
        raise SweepError(
            f"objective={objective}: write {{metric: NAME, mode: max}}, or min. The name of a number that "
            f"the app returns is {RESULT}."
        )


def select(config: Any, *keys: str) -> Any:
    """Return a value of nested dicts; None where there is none."""
    for key in keys:
        config = config.get(key) if is_dict(config) else None
    return config


def is_dict(value: object) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)
