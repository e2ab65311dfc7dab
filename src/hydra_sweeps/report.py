"""The report of a sweep: as text, Markdown and CSV, as figures, and in TensorBoard."""

import csv
import os
import re
import shlex
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra_sweeps.definition import key_of
from hydra_sweeps.files import atomic_write
from hydra_sweeps.runs import Goal, Group, Objectives, Run, best, differing, find_runs, group, ranked, swept

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
    names = job_names(runs)
    header, *rows = _groups_table(runs, goal) or _jobs_table(runs, goal)
    long = len(rows) > MAX_ROWS
    lines = [table([header, *(rows[:SHOWN_ROWS] if long else rows)])]
    if long:
        lines.append(f"… and {len(rows) - SHOWN_ROWS} more {rest}")
    lines += ["", _counts(runs)]
    failures = _failures(runs, names)
    lines += failures if len(failures) <= MAX_ROWS else failures[:SHOWN_ROWS]
    if len(failures) > MAX_ROWS:
        lines.append(f"… and {len(failures) - SHOWN_ROWS} more failed {rest}")
    for run, command in _commands(runs, goal.objectives):
        lines.append(f"{_praise(goal.objectives)}: job {names[run]}, rerun with: {command}")
    return "\n".join(lines)


def write_csv(path: Path, runs: Sequence[Run], goal: Goal, relative_to: Path | None = None) -> None:
    """Write one row per run, best first, with unrounded numbers.

    The paths of checkpoints are relative to `relative_to`, by default the current folder.
    """
    names, keys, front = job_names(runs), differing(runs), _front(runs, goal.objectives)
    start = (relative_to or Path.cwd()).resolve()
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        header = ["job", *(["best"] if front is not None else []), *keys, *(["seed"] if _seeds(runs) else [])]
        metrics = ("epochs", *goal.columns)
        writer.writerow([*header, "status", *metrics, "checkpoint", "error"])
        for run in ranked(runs, goal.objectives):
            row: list[Any] = [names[run]]
            if front is not None:
                row.append("*" if run in front else "")
            row += [run.hparams.get(key, "") for key in keys]
            if _seeds(runs):
                row.append("" if run.seed is None else run.seed)
            row.append(run.status)
            row += [run.metrics.get(metric, "") for metric in metrics]
            row.append("" if run.checkpoint is None else os.path.relpath(run.checkpoint, start))
            writer.writerow([*row, run.error or ""])


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
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


# --- tables --------------------------------------------------------------------------------------


def _groups_table(runs: Sequence[Run], goal: Goal) -> Rows | None:
    """Return the table of groups, or None if no runs differ only in their seed."""
    groups = group(runs, goal.objectives)
    if not any(len(one.runs) > 1 for one in groups):
        return None
    columns: list[tuple[str, str, Callable[[str, list[float]], str]]] = []
    for metric in goal.columns:
        if metric == "seconds" and metric not in goal.objectives:
            continue
        is_accuracy = metric.endswith("/acc")
        columns.append((metric, metric, _mean_and_deviation if is_accuracy else _mean))
        if is_accuracy:
            columns.append((f"{metric} min–max", metric, _range))
    columns = [column for column in columns if any(one.values(column[1]) for one in groups)]
    keys = list(groups[0].choices)

    def row(one: Group) -> list[str]:
        choices = [_choice(one.choices[key]) for key in keys]
        return [
            *choices,
            str(len(one.runs)),
            *(form(metric, one.values(metric)) for _, metric, form in columns),
        ]

    return [[*keys, "n", *(title for title, _, _ in columns)], *map(row, groups)]


def _jobs_table(runs: Sequence[Run], goal: Goal) -> Rows:
    """Return the table of jobs, without columns that are empty or the same for all."""
    front, names = _front(runs, goal.objectives), job_names(runs)
    columns: dict[str, Callable[[Run], str]] = {"job": lambda run: names[run]}
    if front is not None:
        columns["best"] = lambda run: "*" if run in front else ""
    for key in differing(runs):
        columns[key] = lambda run, key=key: _choice(run.hparams.get(key, ""))  # type: ignore[misc]
    if _seeds(runs):
        columns["seed"] = lambda run: "" if run.seed is None else str(run.seed)
    if {run.status for run in runs} != {"finished"}:
        columns["status"] = lambda run: run.status
    if len({run.value("epochs") for run in runs}) > 1:
        columns["epochs"] = lambda run: _mean("epochs", _known(run, "epochs"))
    for metric in goal.columns:
        if any(_known(run, metric) for run in runs):
            columns[metric] = lambda run, metric=metric: _mean(metric, _known(run, metric))  # type: ignore[misc]
    return [
        list(columns),
        *([cell(run) for cell in columns.values()] for run in ranked(runs, goal.objectives)),
    ]


def _seeds(runs: Sequence[Run]) -> bool:
    return len({run.seed for run in runs if run.seed is not None}) > 1


def _known(run: Run, metric: str) -> list[float]:
    value = run.value(metric)
    return [] if value is None else [value]


def _choice(value: Any) -> str:
    """Return a setting as text, rounded if a search has chosen it with many digits."""
    return f"{value:.4g}" if isinstance(value, float) and len(str(value)) > 8 else str(value)


def _form(metric: str) -> tuple[float, str, str]:
    """Return the factor, the format and the unit of a metric."""
    if metric.endswith("/acc"):
        return 100, ".2f", "%"
    return 1, ".4f" if "/" in metric else ",.0f", ""


def _mean(metric: str, values: list[float]) -> str:
    scale, form, unit = _form(metric)
    return f"{statistics.fmean(values) * scale:{form}}{unit}" if values else ""


def _mean_and_deviation(metric: str, values: list[float]) -> str:
    if len(values) < 2:
        return _mean(metric, values)
    scale, form, unit = _form(metric)
    return f"{statistics.fmean(values) * scale:{form}} ± {statistics.stdev(values) * scale:{form}}{unit}"


def _range(metric: str, values: list[float]) -> str:
    if len(values) < 2:
        return ""
    scale, form, unit = _form(metric)
    return f"{min(values) * scale:{form}}–{max(values) * scale:{form}}{unit}"


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


def _failures(runs: Sequence[Run], names: dict[Run, str]) -> list[str]:
    keys = differing(runs)
    lines = []
    for run in runs:
        if run.status == "failed":
            choices = [f"{key}={_choice(run.hparams[key])}" for key in keys if key in run.hparams]
            choices += [f"seed={run.seed}"] if _seeds(runs) and run.seed is not None else []
            label = f" ({', '.join(choices)})" if choices else ""
            lines.append(f"job {names[run]}{label} failed: {' '.join((run.error or '').split())}")
    return lines


def _front(runs: Sequence[Run], objectives: Objectives) -> set[Run] | None:
    """Return the runs to mark, or None if the order of the rows shows the best."""
    return set(best(runs, objectives)) if len(objectives) > 1 else None


def _praise(objectives: Objectives) -> str:
    return (
        f"best by {next(iter(objectives))}"
        if len(objectives) == 1
        else f"among the best by {', '.join(objectives)}"
    )


def _commands(runs: Sequence[Run], objectives: Objectives) -> Iterator[tuple[Run, str]]:
    """Yield the best runs, and the command that runs each of them again."""
    for run in best(runs, objectives)[:MAX_COMMANDS]:
        yield run, shlex.join(["python", run.script, *filter(_is_setting, run.overrides)])


def _is_setting(override: str) -> bool:
    return key_of(override).partition(".")[0] not in ("resume", "sweep", "hydra")


def _markdown(name: str, runs: Sequence[Run], goal: Goal, figures: Sequence[str]) -> str:
    names = job_names(runs)
    groups = _groups_table(runs, goal)
    parts = [f"# Sweep {name}"]
    if groups:
        parts += ["## Over seeds", table(groups), "## Jobs"]
    parts += [table(_jobs_table(runs, goal)), _counts(runs)]
    if failures := _failures(runs, names):
        parts.append("\n".join(f"- {line}" for line in failures))
    if commands := list(_commands(runs, goal.objectives)):
        jobs = ", ".join(names[run] for run, _ in commands)
        parts.append(f"{_praise(goal.objectives).capitalize()}: job {jobs}. Rerun with:")
        parts.append("```bash\n" + "\n".join(command for _, command in commands) + "\n```")
    parts += [f"![{figure.removesuffix('.png')}](figures/{figure})" for figure in figures]
    return "\n\n".join(parts) + "\n"


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
    """Draw the first objective by each setting that was swept, and by pairs of them if they are few."""
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
        elif figures.are_numbers(rows) and figures.are_numbers(across):
            drawn[name] = figures.plane(pair, rows, across, results)
    return drawn


def _file_name(key: str) -> str:
    return re.sub(r"[^\w-]+", "_", key)
