"""The report of a sweep: as text, Markdown and CSV, as figures, and in TensorBoard."""

import csv
import os
import re
import shlex
import statistics
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from hydra_sweeps.definition import key_of
from hydra_sweeps.files import atomic_write, printable
from hydra_sweeps.runs import (
    Goal,
    Objectives,
    Run,
    best,
    differing,
    find_runs,
    group,
    ranked,
    swept,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS, SHOWN_ROWS = 30, 20  # of a longer table the terminal shows only the first rows
MAX_COMMANDS = 5  # of a Pareto front
MAX_SETTINGS, MAX_VALUES = 4, 12  # for figures of pairs of settings

_EVENTS = ".sweep"  # the suffix of the report's event file
_WORDS = {"finished": "ok", "pruned": "pruned", "failed": "failed", "unfinished": "unfinished"}

Rows = list[list[str]]


def write(sweep_dir: Path, goal: Goal) -> str:
    """Write sweep.csv, sweep.md, figures/ and TensorBoard images into the folder of a sweep.

    Returns the text for the terminal. An earlier report is replaced. Raises `SweepError` if there is no run.
    """
    runs = find_runs([sweep_dir])
    write_csv(sweep_dir / "sweep.csv", runs, goal, relative_to=sweep_dir)
    figures = _write_figures(sweep_dir, runs, goal)
    with atomic_write(sweep_dir / "sweep.md") as temporary:
        temporary.write_text(_markdown(sweep_dir.resolve().name, runs, goal, figures), encoding="utf-8")
    return text(runs, goal)


def text(runs: Sequence[Run], goal: Goal, rest: str = "in sweep.csv") -> str:
    """Return what the terminal shows of `runs`; `rest` says where the omitted rows are."""
    header, *rows = _groups_table(runs, goal) or _jobs_table(runs, goal)
    failures = _failures(runs)
    lines = [table([header, *rows[: _shown(rows)]])]
    if omitted := len(rows) - _shown(rows):
        lines.append(f"… and {omitted} more {rest}")
    lines += ["", _counts(runs), *failures[: _shown(failures)]]
    if omitted := len(failures) - _shown(failures):
        lines.append(f"… and {omitted} more failed {rest}")
    for job, command in _commands(runs, goal.objectives):
        lines.append(f"{_best_label(goal.objectives)}: job {job}, rerun with: {command}")
    return printable("\n".join(lines))


def _shown(rows: Sequence[Any]) -> int:
    return len(rows) if len(rows) <= MAX_ROWS else SHOWN_ROWS


def write_csv(path: Path, runs: Sequence[Run], goal: Goal, relative_to: Path | None = None) -> None:
    """Write one row per run, best first, with unrounded numbers.

    The paths of checkpoints are relative to `relative_to`, by default the current folder.
    """
    start = (relative_to or Path.cwd()).resolve()
    columns = _columns(runs, goal)
    order = ranked(runs, goal.objectives)
    columns["checkpoint"] = [run.checkpoint and os.path.relpath(run.checkpoint, start) for run in order]
    columns["error"] = [run.error for run in order]
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def job_names(runs: Sequence[Run]) -> dict[Run, str]:
    """Name each run: a job by its number, with its sweep if there are several; others by their folder."""
    several = len({run.folder.parent for run in runs}) > 1

    def name(run: Run) -> str:
        if run.number is None:
            return run.folder.name
        return f"{run.folder.parent.name}/{run.number}" if several else str(run.number)

    return {run: name(run) for run in runs}


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return `rows`, of which the first is the header, as a Markdown table with aligned columns."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = [
        " | ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


def _width(text: str) -> int:
    """Return how many columns of a terminal `text` takes; a Chinese or Japanese character takes two."""
    return sum(1 + (east_asian_width(character) in "WF") for character in text)


# --- tables --------------------------------------------------------------------------------------


def _columns(runs: Sequence[Run], goal: Goal) -> dict[str, list[Any]]:
    """Return what is known of each run by the title of its column, with None for what is missing.

    The runs are ordered by the first objective.
    """
    names, order = job_names(runs), ranked(runs, goal.objectives)
    columns: dict[str, list[Any]] = {"job": [names[run] for run in order]}
    if len(goal.objectives) > 1:  # otherwise the order shows the best
        front = best(runs, goal.objectives)
        columns["best"] = ["*" if run in front else None for run in order]
    columns |= {key: [run.hparams.get(key) for run in order] for key in differing(runs)}
    if _seeds(runs):
        columns["seed"] = [run.seed for run in order]
    columns["status"] = [run.status for run in order]
    return columns | {name: [run.metrics.get(name) for run in order] for name in ("epochs", *goal.columns)}


def _jobs_table(runs: Sequence[Run], goal: Goal) -> Rows:
    """Return the table of jobs, without columns that are empty or the same for all."""
    columns = _columns(runs, goal)
    if set(columns["status"]) == {"finished"}:
        del columns["status"]
    if len(set(columns["epochs"])) == 1:
        del columns["epochs"]
    order = ranked(runs, goal.objectives)
    for metric in ("epochs", *goal.columns):
        if metric in columns:
            values = [run.value(metric) for run in order]
            columns[metric] = ["" if value is None else format_metric(metric, value) for value in values]
            if not any(columns[metric]):
                del columns[metric]
    return [list(columns), *([_choice(cell) for cell in row] for row in zip(*columns.values(), strict=True))]


def _groups_table(runs: Sequence[Run], goal: Goal) -> Rows | None:
    """Return the table of groups, or None if no runs differ only in their seed."""
    groups = group(runs, goal.objectives)
    if all(len(one.runs) == 1 for one in groups):
        return None
    columns: dict[str, list[Any]] = {key: [one.choices[key] for one in groups] for key in groups[0].choices}
    columns["n"] = [len(one.runs) for one in groups]
    for metric in goal.columns:
        values = [one.values(metric) for one in groups]
        if not any(values) or (metric == "seconds" and metric not in goal.objectives):
            continue
        columns[metric] = [_mean(metric, of_group) for of_group in values]
        if metric.endswith("/acc"):
            columns[f"{metric} min–max"] = [
                format_metric(metric, min(v), "–", max(v)) if len(v) > 1 else "" for v in values
            ]
    return [list(columns), *([_choice(cell) for cell in row] for row in zip(*columns.values(), strict=True))]


def _seeds(runs: Sequence[Run]) -> bool:
    return len({run.seed for run in runs if run.seed is not None}) > 1


def _choice(value: Any) -> str:
    """Return a setting as text, rounded if a search has chosen it with many digits."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) and len(str(value)) > 8 else str(value)


def format_metric(metric: str, value: float, separator: str = "", other: float | None = None) -> str:
    """Return a value of a metric as text, accuracies in percent; with `other`, both, as in 98.98 ± 0.04%."""
    is_accuracy = metric.endswith("/acc")
    form = ".2f" if is_accuracy else ".4f" if "/" in metric else ",.0f"
    values = [value] if other is None else [value, other]
    texts = [f"{one * 100 if is_accuracy else one:{form}}" for one in values]
    return separator.join(texts) + ("%" if is_accuracy else "")


def _mean(metric: str, values: Sequence[float]) -> str:
    """Return the mean, that of several accuracies with the standard deviation."""
    if not values:
        return ""
    deviation = statistics.stdev(values) if len(values) > 1 and metric.endswith("/acc") else None
    return format_metric(metric, statistics.fmean(values), " ± ", deviation)


# --- below the tables -----------------------------------------------------------------------------


def _counts(runs: Sequence[Run]) -> str:
    """Return how many runs ended in which way, and what pruning has saved."""
    counts = {word: sum(run.status == status for run in runs) for status, word in _WORDS.items()}
    summary = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    if not counts["pruned"]:
        return summary
    ended = [run for run in runs if run.status in ("finished", "pruned")]
    trained = sum(int(run.value("epochs") or 0) for run in ended)
    planned = sum(int(run.hparams.get("max_epochs", 0)) for run in ended)
    if planned < trained or not planned:
        return summary
    return f"{summary}; {trained} of {planned} epochs trained, {1 - trained / planned:.0%} saved by pruning"


def _failures(runs: Sequence[Run]) -> list[str]:
    keys, names = differing(runs), job_names(runs)
    lines = []
    for run in runs:
        if run.status == "failed":
            choices = [f"{key}={_choice(run.hparams[key])}" for key in keys if key in run.hparams]
            choices += [f"seed={run.seed}"] if _seeds(runs) and run.seed is not None else []
            label = f" ({', '.join(choices)})" if choices else ""
            lines.append(f"job {names[run]}{label} failed: {' '.join((run.error or '').split())}")
    return lines


def _best_label(objectives: Objectives) -> str:
    return f"{'best' if len(objectives) == 1 else 'among the best'} by {', '.join(objectives)}"


def _commands(runs: Sequence[Run], objectives: Objectives) -> list[tuple[str, str]]:
    """Return the names of the best runs, and the command that runs each of them again."""
    names = job_names(runs)
    return [
        (names[run], shlex.join(["python", run.script, *filter(_is_setting, run.overrides)]))
        for run in best(runs, objectives)[:MAX_COMMANDS]
    ]


def _is_setting(override: str) -> bool:
    return key_of(override).partition(".")[0] not in ("resume", "sweep", "hydra")


def _markdown(name: str, runs: Sequence[Run], goal: Goal, figures: Sequence[str]) -> str:
    parts = [f"# Sweep {name}"]
    if groups := _groups_table(runs, goal):
        parts += ["## Over seeds", table(groups), "## Jobs"]
    parts += [table(_jobs_table(runs, goal)), _counts(runs)]
    if failures := _failures(runs):
        parts.append("\n".join(f"- {line}" for line in failures))
    if commands := dict(_commands(runs, goal.objectives)):
        parts.append(f"{_best_label(goal.objectives).capitalize()}: job {', '.join(commands)}. Rerun with:")
        parts.append("```bash\n" + "\n".join(commands.values()) + "\n```")
    parts += [f"![{figure.removesuffix('.png')}](figures/{figure})" for figure in figures]
    return printable("\n\n".join(parts) + "\n")


# --- figures -------------------------------------------------------------------------------------


def _write_figures(sweep_dir: Path, runs: Sequence[Run], goal: Goal) -> list[str]:
    """Write the figures into figures/ and for TensorBoard; return the names of all files in figures/."""
    folder = sweep_dir / "figures"
    for former in [*sweep_dir.glob(f"events.out.tfevents.*{_EVENTS}"), *folder.glob("*.png")]:
        if former.parent == sweep_dir or re.match(r"by_|.*_x_", former.name):
            former.unlink(missing_ok=True)
    drawn = _draw(runs, goal)
    others = sorted(path.name for path in folder.glob("*.png"))  # of a search
    if drawn:
        from hydra_sweeps.figures import save

        folder.mkdir(exist_ok=True)
        for name, figure in drawn.items():
            save(figure, folder / f"{name}.png")
        _write_events(sweep_dir, drawn)
    return [*(f"{name}.png" for name in drawn), *others]


def _write_events(sweep_dir: Path, drawn: "dict[str, Figure]") -> None:
    """Write the figures for TensorBoard, if it is installed."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ModuleNotFoundError:
        return
    writer = EventFileWriter(str(sweep_dir), filename_suffix=_EVENTS)
    for name, figure in drawn.items():
        png = (sweep_dir / "figures" / f"{name}.png").read_bytes()
        width, height = map(int, figure.bbox.size)
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        value = Summary.Value(tag=f"sweep/{name.removeprefix('by_')}", image=image)
        writer.add_event(Event(wall_time=time.time(), summary=Summary(value=[value])))
    writer.close()


def _draw(runs: Sequence[Run], goal: Goal) -> "dict[str, Figure]":
    """Draw the first objective by each setting that was swept, and by pairs of them if they are a grid."""
    metric, direction = next(iter(goal.objectives.items()))
    shown = [run for run in runs if run.value(metric) is not None]
    keys = swept(runs)
    if not shown or not keys:
        return {}

    import numpy as np

    from hydra_sweeps import figures

    results = figures.Results(
        metric,
        maximize=direction == "maximize",
        values=np.array([run.metrics[metric] for run in shown], dtype=np.float64),
        finished=np.array([run.status == "finished" for run in shown]),
    )
    columns = {key: [run.hparams.get(key) for run in shown] for key in keys}
    drawn = {
        f"by_{_file_name(key)}": figures.by_setting(key, values, results) for key, values in columns.items()
    }
    for pair in combinations(keys, 2) if len(keys) <= MAX_SETTINGS else ():
        rows, across = columns[pair[0]], columns[pair[1]]
        name = "_x_".join(map(_file_name, pair))
        cells = len(set(rows)) * len(set(across))
        is_grid = len(set(zip(rows, across, strict=True))) >= cells / 2
        if is_grid and max(len(set(rows)), len(set(across))) <= MAX_VALUES:
            drawn[name] = figures.heat_map(pair, rows, across, results)
    return drawn


def _file_name(key: str) -> str:
    return re.sub(r"[^\w-]+", "_", key)
