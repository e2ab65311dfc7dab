"""The report of a sweep: tables as text, Markdown and CSV, and figures.

One table has a row per job, the other a row per group of jobs that differ only in their seed.
"""

import csv
import logging
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from hydra_sweeps.commands import AppCommand
from hydra_sweeps.contract import explained
from hydra_sweeps.files import atomic_write, printable
from hydra_sweeps.goal import Goal, Objectives
from hydra_sweeps.grammar import key_of
from hydra_sweeps.runs import Run, best, differing, find_runs, group, ranked

Rows: TypeAlias = list[list[str]]
Columns: TypeAlias = list[tuple[str, list[Any]]]  # a setting and a metric may have the same title

MAX_ROWS = 30  # of a longer list the terminal shows only the first rows
MAX_METRICS = 8  # columns of an app that does not say which metrics to show
MAX_COMMANDS = 5  # of a Pareto front

_EVERY_RUN = ("epoch", "epochs", "status")  # not metrics of the app
_WORDS = {"finished": "ok", "pruned": "pruned", "failed": "failed", "unfinished": "unfinished"}

log = logging.getLogger(__name__)


def write(sweep_dir: Path, goal: Goal) -> str:
    """Write sweep.csv, sweep.md and figures/ into the folder of a sweep; return the text for the terminal.

    An earlier report is replaced. Raises `SweepError` if there is no run.
    """
    found = find_runs([sweep_dir])
    # A job may have runs of its own below its folder.
    runs = [run for run in found if run.folder.parent == sweep_dir.resolve()] or found
    write_csv(sweep_dir / "sweep.csv", runs, goal)
    parts = [f"# Sweep {sweep_dir.resolve().name}"]
    if (groups := groups_table(runs, goal)) is not None:
        parts += ["## Over seeds", as_markdown(groups), "## Jobs"]
    summary = "\n".join([_counts(runs), *_failures(runs), *_commands(runs, goal.objectives)])
    parts += [as_markdown(jobs_table(runs, goal)), f"```\n{summary}\n```"]
    try:
        from hydra_sweeps.report import figures  # takes half a second

        names = figures.write(sweep_dir / "figures", runs, goal)
    except ModuleNotFoundError as error:
        log.warning(f"The report has no figures: {explained(error)}")
        names = []
    parts += [f"![{name.removesuffix('.png')}](figures/{name})" for name in names]
    with atomic_write(sweep_dir / "sweep.md") as temporary:
        temporary.write_text(printable("\n\n".join(parts) + "\n"), encoding="utf-8")
    return text(runs, goal)


def text(runs: Sequence[Run], goal: Goal, rest: str = "in sweep.csv") -> str:
    """Return what the terminal shows of `runs`; `rest` says where the omitted rows are."""
    rows, failures = groups_table(runs, goal) or jobs_table(runs, goal), _failures(runs)
    lines = [as_markdown(rows[: MAX_ROWS + 1])]
    if len(rows) - 1 > MAX_ROWS:
        lines.append(f"… and {len(rows) - 1 - MAX_ROWS} more {rest}")
    lines += ["", _counts(runs), *failures[:MAX_ROWS]]
    if len(failures) > MAX_ROWS:
        lines.append(f"… and {len(failures) - MAX_ROWS} more failed {rest}")
    return printable("\n".join([*lines, *_commands(runs, goal.objectives)]))


def write_csv(path: Path, runs: Sequence[Run], goal: Goal) -> None:
    """Write one row per run, best first, with unrounded numbers; the folder of a run as seen from `path`."""
    in_order = ranked(runs, goal.objectives)
    columns = _job_columns(runs, in_order, goal)
    columns.append(("status", [run.status for run in in_order]))
    known = {title for title, _ in columns}
    for name in ("epochs", *metrics_shown(runs, goal)):
        title = f"metric {name}" if name in known else name
        columns.append((title, [run.metrics.get(name) for run in in_order]))
    columns.append(("error", [run.error for run in in_order]))
    columns.append(("folder", [os.path.relpath(run.folder, path.resolve().parent) for run in in_order]))
    titles, values = zip(*columns, strict=True)
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(titles)
        writer.writerows(zip(*values, strict=True))


def _counts(runs: Sequence[Run]) -> str:
    """Return how many runs ended in which way, and what pruning has saved."""
    counts = {word: sum(run.status == status for run in runs) for status, word in _WORDS.items()}
    summary = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    ended = [run for run in runs if run.status in ("finished", "pruned")]
    planned = [epochs for run in ended if isinstance(epochs := run.hparams.get("max_epochs"), int)]
    trained, total = sum(int(run.value("epochs") or 0) for run in ended), sum(planned)
    if not counts["pruned"] or len(planned) < len(ended) or not 0 < trained <= total:
        return summary
    return f"{summary}; {trained} of {total} epochs trained, {1 - trained / total:.0%} saved by pruning"


def _failures(runs: Sequence[Run]) -> list[str]:
    names, keys = job_names(runs), differing(runs)
    lines = []
    for run in runs:
        if run.status == "failed":
            known = [(key, run.hparams.get(key)) for key in keys]
            choices = [f"{key}={choice(value)}" for key, value in known if value is not None]
            label = f" ({', '.join(choices)})" if choices else ""
            lines.append(f"job {names[run]}{label} failed: {' '.join((run.error or '').split())}")
    return lines


def _commands(runs: Sequence[Run], objectives: Objectives) -> list[str]:
    """Return a line for each of the best runs, with the command that runs it again."""
    names = job_names(runs)
    label = f"{'best' if len(objectives) == 1 else 'among the best'} by {', '.join(objectives)}"
    lines = []
    for run in best(runs, objectives)[:MAX_COMMANDS]:
        overrides = [one for one in run.overrides if key_of(one).partition(".")[0] not in ("sweep", "hydra")]
        app = AppCommand.read(run.folder.parent)
        if app is not None:
            how = f"rerun with: {app.text([*overrides, *app.hydra])}"
        else:  # a run of its own, or a sweep of Hydra's own sweepers
            how = f"its settings: {' '.join(overrides) or 'those of the app'}"
        lines.append(f"{label}: job {names[run]}, {how}")
    return lines


# --- tables --------------------------------------------------------------------------------------


def job_names(runs: Sequence[Run]) -> dict[Run, str]:
    """Name each run: a job by its number, with its sweep if there are several; others by their folder."""
    several = len({run.folder.parent for run in runs}) > 1
    names = {}
    for run in runs:
        sweep = f"{run.folder.parent.name}/" if several else ""
        names[run] = run.folder.name if run.number == math.inf else f"{sweep}{run.number}"
    return names


def metrics_shown(runs: Sequence[Run], goal: Goal) -> list[str]:
    """Return the metrics that a table has: the objectives first, then those of the goal, or all."""
    others = goal.metrics
    if others is None:
        found = dict.fromkeys(name for run in runs for name in run.metrics if run.value(name) is not None)
        others = [name for name in found if name not in _EVERY_RUN][:MAX_METRICS]
    return list(dict.fromkeys([*goal.objectives, *others]))


def jobs_table(runs: Sequence[Run], goal: Goal) -> Rows:
    """Return the table of jobs, best first, without columns that are empty or the same for all."""
    in_order = ranked(runs, goal.objectives)
    columns = _job_columns(runs, in_order, goal)
    if any(run.status != "finished" for run in runs):
        columns.append(("status", [run.status for run in in_order]))
    for metric in ("epochs", *metrics_shown(runs, goal)):
        values = [run.value(metric) for run in in_order]
        is_shown = any(value is not None for value in values)
        if is_shown and not (metric == "epochs" and len(set(values)) == 1):
            texts = ["" if value is None else format_metric(metric, value) for value in values]
            columns.append((metric, texts))
    return _rows(columns)


def _job_columns(runs: Sequence[Run], in_order: Sequence[Run], goal: Goal) -> Columns:
    """Return what identifies each job."""
    names = job_names(runs)
    columns: Columns = [("job", [names[run] for run in in_order])]
    if len(goal.objectives) > 1:  # otherwise the order shows the best
        front = best(runs, goal.objectives)
        columns.append(("best", ["*" if run in front else None for run in in_order]))
    return columns + [(key, [run.hparams.get(key) for run in in_order]) for key in differing(runs)]


def groups_table(runs: Sequence[Run], goal: Goal) -> Rows | None:
    """Return the table of groups, or None if no runs differ only in their seed.

    There is no mean of a metric that one of the runs does not have.
    """
    groups = group(runs, goal.objectives)
    if all(len(one) == 1 for one in groups):
        return None
    keys = [key for key in differing(runs) if key != "seed"]
    columns: Columns = [(key, [one[0].hparams.get(key) for one in groups]) for key in keys]
    columns.append(("n", [len(one) for one in groups]))
    for metric in metrics_shown(runs, goal):
        values = [_values(one, metric) for one in groups]
        if not any(values) or (metric == "seconds" and metric not in goal.objectives):
            continue
        columns.append((metric, [_mean(metric, of_group) for of_group in values]))
        if metric.endswith("/acc"):
            ranges = [format_metric(metric, min(v), max(v), sign="–") if len(v) > 1 else "" for v in values]
            columns.append((f"{metric} min–max", ranges))
    return _rows(columns)


def _values(runs: Sequence[Run], metric: str) -> list[float]:
    """Return the values of a metric, none if one of the runs does not have it."""
    values = [run.value(metric) for run in runs]
    return [] if None in values else [value for value in values if value is not None]


def _rows(columns: Columns) -> Rows:
    titles, values = zip(*columns, strict=True)
    return [list(titles), *([choice(cell) for cell in row] for row in zip(*values, strict=True))]


def choice(value: Any) -> str:
    """Return a setting as text, rounded if a search has chosen it with many digits."""
    if isinstance(value, float) and len(str(value)) > 8:
        return f"{value:.4g}"
    return "" if value is None else str(value)


def format_metric(metric: str, *values: float, sign: str = "") -> str:
    """Return values of a metric as text, with a sign between them; accuracies in percent."""
    if metric.endswith("/acc"):
        return sign.join(f"{value * 100:.2f}" for value in values) + "%"
    if "/" in metric:
        return sign.join(f"{value:.4f}" for value in values)
    return sign.join(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" for value in values)


def _mean(metric: str, values: Sequence[float]) -> str:
    """Return the mean, that of several accuracies with the standard deviation."""
    if not values:
        return ""
    spread = [statistics.stdev(values)] if len(values) > 1 and metric.endswith("/acc") else []
    return format_metric(metric, statistics.fmean(values), *spread, sign=" ± ")


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
