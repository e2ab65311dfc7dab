"""The tables of a report: of jobs, and of groups of jobs that differ only in their seed."""

import statistics
from collections.abc import Sequence
from typing import Any, TypeAlias
from unicodedata import east_asian_width

from hydra_sweeps.comparing import Group, best, differing, group, ranked
from hydra_sweeps.goal import Goal
from hydra_sweeps.runs import Run, number

Rows: TypeAlias = list[list[str]]

MAX_METRICS = 8  # columns of an app that does not say which metrics to show

_EVERY_RUN = ("epochs", "best_epoch", "status")  # not metrics of the app


def job_names(runs: Sequence[Run]) -> dict[Run, str]:
    """Name each run: a job by its number, with its sweep if there are several; others by their folder."""
    several = len({run.folder.parent for run in runs}) > 1

    def name(run: Run) -> str:
        if run.number is None:
            return run.folder.name
        return f"{run.folder.parent.name}/{run.number}" if several else str(run.number)

    return {run: name(run) for run in runs}


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
        if metric in columns:
            values = [number(value) for value in columns[metric]]
            columns[metric] = ["" if value is None else format_metric(metric, value) for value in values]
            if not any(columns[metric]):
                del columns[metric]
    return _rows(columns)


def groups_table(runs: Sequence[Run], goal: Goal) -> Rows | None:
    """Return the table of groups, or None if no runs differ only in their seed."""
    groups = group(runs, goal.objectives)
    if all(len(one.runs) == 1 for one in groups):
        return None
    columns: dict[str, list[Any]] = {key: [one.choices[key] for one in groups] for key in groups[0].choices}
    columns["n"] = [len(one.runs) for one in groups]
    for metric in metrics_shown(runs, goal):
        if metric != "seconds" or metric in goal.objectives:
            columns |= _of_groups(metric, groups)
    return _rows(columns)


def _of_groups(metric: str, groups: Sequence[Group]) -> dict[str, list[Any]]:
    values = [one.values(metric) for one in groups]
    if not any(values):
        return {}
    columns = {metric: [_mean(metric, of_group) for of_group in values]}
    if metric.endswith("/acc"):
        columns[f"{metric} min–max"] = [
            format_metric(metric, min(v), "–", max(v)) if len(v) > 1 else "" for v in values
        ]
    return columns


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


def format_metric(metric: str, value: float, separator: str = "", other: float | None = None) -> str:
    """Return a value of a metric as text, accuracies in percent; with `other`, both, as in 98.98 ± 0.04%."""
    values = [value] if other is None else [value, other]
    is_accuracy = metric.endswith("/acc")
    texts = [_number_text(one, is_accuracy, "/" in metric) for one in values]
    return separator.join(texts) + ("%" if is_accuracy else "")


def _number_text(value: float, is_accuracy: bool, by_epoch: bool) -> str:
    if is_accuracy:
        return f"{value * 100:.2f}"
    if by_epoch or (abs(value) < 10 and value != int(value)):
        return f"{value:.4f}"
    return f"{value:,.0f}"


def _mean(metric: str, values: Sequence[float]) -> str:
    """Return the mean, that of several accuracies with the standard deviation."""
    if not values:
        return ""
    deviation = statistics.stdev(values) if len(values) > 1 and metric.endswith("/acc") else None
    return format_metric(metric, statistics.fmean(values), " ± ", deviation)


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return `rows`, of which the first is the header, as a Markdown table with aligned columns."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"| {' | '.join(padded)} |")
    rule = f"| {' | '.join('-' * width for width in widths)} |"
    return "\n".join([lines[0], rule, *lines[1:]])


def _width(text: str) -> int:
    """Return how many columns of a terminal `text` takes; a Chinese or Japanese character takes two."""
    if text.isascii():
        return len(text)
    return sum(1 + (east_asian_width(character) in "WF") for character in text)
