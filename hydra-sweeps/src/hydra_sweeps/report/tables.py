"""The tables of a report: of jobs, and of groups of jobs that differ only in their seed."""

import statistics
from collections.abc import Sequence
from typing import Any, TypeAlias

from hydra_sweeps.comparing import best, differing, group, ranked
from hydra_sweeps.goal import Goal
from hydra_sweeps.runs import Run, number

Rows: TypeAlias = list[list[str]]

MAX_METRICS = 8  # columns of an app that does not say which metrics to show

_EVERY_RUN = ("epoch", "epochs", "status")  # not metrics of the app


def job_names(runs: Sequence[Run]) -> dict[Run, str]:
    """Name each run: a job by its number, with its sweep if there are several; others by their folder."""
    several = len({run.folder.parent for run in runs}) > 1
    names = {}
    for run in runs:
        sweep = f"{run.folder.parent.name}/" if several else ""
        names[run] = run.folder.name if run.number is None else f"{sweep}{run.number}"
    return names


def metrics_shown(runs: Sequence[Run], goal: Goal) -> list[str]:
    """Return the metrics that a table has: the objectives first, then those of the goal, or all."""
    others = goal.metrics
    if others is None:
        found = dict.fromkeys(name for run in runs for name in run.metrics if run.value(name) is not None)
        others = [name for name in found if name not in _EVERY_RUN][:MAX_METRICS]
    return list(dict.fromkeys([*goal.objectives, *others]))


def columns_of(runs: Sequence[Run], goal: Goal) -> dict[str, list[Any]]:
    """Return what is known of each run by the title of its column, with None for what is missing.

    The runs are ordered by the first objective.
    """
    names, in_order = job_names(runs), ranked(runs, goal.objectives)
    columns: dict[str, list[Any]] = {"job": [names[run] for run in in_order]}
    if len(goal.objectives) > 1:  # otherwise the order shows the best
        front = set(best(runs, goal.objectives))
        columns["best"] = ["*" if run in front else None for run in in_order]
    for key in differing(runs):
        columns[key] = [run.hparams.get(key) for run in in_order]
    if has_seeds(runs):
        columns["seed"] = [run.seed for run in in_order]
    columns["status"] = [run.status for run in in_order]
    for name in ("epochs", *metrics_shown(runs, goal)):
        columns[name] = [run.metrics.get(name) for run in in_order]
    return columns


def jobs_table(runs: Sequence[Run], goal: Goal) -> Rows:
    """Return the table of jobs, without columns that are empty or the same for all."""
    columns = columns_of(runs, goal)
    if set(columns["status"]) == {"finished"}:
        del columns["status"]
    if len({run.value("epochs") for run in runs}) == 1:
        del columns["epochs"]
    for metric in ("epochs", *metrics_shown(runs, goal)):
        values = [number(value) for value in columns.pop(metric, ())]
        if any(value is not None for value in values):
            columns[metric] = ["" if value is None else format_metric(metric, value) for value in values]
    return _rows(columns)


def groups_table(runs: Sequence[Run], goal: Goal) -> Rows | None:
    """Return the table of groups, or None if no runs differ only in their seed."""
    groups = group(runs, goal.objectives)
    if all(len(one) == 1 for one in groups):
        return None
    columns: dict[str, list[Any]] = {}
    for key in differing(runs):
        columns[key] = [one[0].hparams.get(key) for one in groups]
    columns["n"] = [len(one) for one in groups]
    for metric in metrics_shown(runs, goal):
        values = [[value for run in one if (value := run.value(metric)) is not None] for one in groups]
        if not any(values) or (metric == "seconds" and metric not in goal.objectives):
            continue
        columns[metric] = [_mean(metric, of_group) for of_group in values]
        if metric.endswith("/acc"):
            ranges = [format_metric(metric, min(v), max(v), sign="–") if len(v) > 1 else "" for v in values]
            columns[f"{metric} min–max"] = ranges
    return _rows(columns)


def _rows(columns: dict[str, list[Any]]) -> Rows:
    return [list(columns), *([choice(cell) for cell in row] for row in zip(*columns.values(), strict=True))]


def has_seeds(runs: Sequence[Run]) -> bool:
    """Return whether the runs have different seeds."""
    return len({run.seed for run in runs if run.seed is not None}) > 1


def choice(value: Any) -> str:
    """Return a setting as text, rounded if a search has chosen it with many digits."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) and len(str(value)) > 8 else str(value)


def format_metric(metric: str, *values: float, sign: str = "") -> str:
    """Return values of a metric as text, with a sign between them; accuracies in percent."""
    if metric.endswith("/acc"):
        return sign.join(f"{value * 100:.2f}" for value in values) + "%"
    if "/" in metric:
        return sign.join(f"{value:.4f}" for value in values)
    return sign.join(f"{value:,.0f}" if abs(value) >= 10 else f"{value:.4g}" for value in values)


def _mean(metric: str, values: Sequence[float]) -> str:
    """Return the mean, that of several accuracies with the standard deviation."""
    if not values:
        return ""
    mean = statistics.fmean(values)
    if len(values) == 1 or not metric.endswith("/acc"):
        return format_metric(metric, mean)
    return format_metric(metric, mean, statistics.stdev(values), sign=" ± ")


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return `rows`, of which the first is the header, as a Markdown table with aligned columns."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    lines = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)
