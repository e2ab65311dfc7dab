"""What a sweep came to: as text, as Markdown and CSV, in pictures, and in TensorBoard."""

import csv
import os
import re
import shlex
import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_cnn.files import atomic_write
from mnist_cnn.sweeps.compare import (
    BY_VALIDATION,
    Group,
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

METRICS = ("val/acc", "test/acc", "test/loss", "images_per_second", "seconds")

LONGEST, SHOWN = 30, 20  # of a longer table that many rows are shown in the terminal
COMMANDS = 5  # of a Pareto front that many are given
MOST_SETTINGS, MOST_VALUES = 4, 12  # that are drawn against each other, in a heat map

_EVENTS = ".sweep"  # ends the name of the report's own event file
_WORDS = {"finished": "ok", "pruned": "pruned", "failed": "failed", "unfinished": "unfinished"}

Rows = list[list[str]]


def write(sweep_dir: Path, objectives: Objectives = BY_VALIDATION) -> str:
    """Write sweep.csv, sweep.md, pictures/ and the pictures for TensorBoard into the folder of a sweep.

    objectives: "maximize" or "minimize" by metric. Returns the text for the terminal. A former report is
    replaced. Raises `UserError` where there is no run.
    """
    runs = find_runs([sweep_dir])
    write_csv(sweep_dir / "sweep.csv", runs, objectives, relative_to=sweep_dir)
    pictures = _write_pictures(sweep_dir, runs)
    with atomic_write(sweep_dir / "sweep.md") as aside:
        aside.write_text(_markdown(sweep_dir.resolve().name, runs, objectives, pictures), encoding="utf-8")
    return text(runs, objectives)


def text(runs: Sequence[Run], objectives: Objectives = BY_VALIDATION, rest: str = "in sweep.csv") -> str:
    """Return what the terminal shows of `runs`; `rest` says where the rows are that it leaves out."""
    names = job_names(runs)
    header, *rows = _groups_table(runs, objectives) or _jobs_table(runs, objectives)
    long = len(rows) > LONGEST
    lines = [table([header, *(rows[:SHOWN] if long else rows)])]
    if long:
        lines.append(f"… and {len(rows) - SHOWN} more {rest}")
    lines += ["", _counts(runs)]
    failures = _failures(runs, names)
    lines += failures if len(failures) <= LONGEST else failures[:SHOWN]
    if len(failures) > LONGEST:
        lines.append(f"… and {len(failures) - SHOWN} more failed {rest}")
    for run, command in _commands(runs, objectives):
        lines.append(f"{_praise(objectives)}: job {names[run]}, again by: {command}")
    return "\n".join(lines)


def write_csv(
    path: Path, runs: Sequence[Run], objectives: Objectives = BY_VALIDATION, relative_to: Path | None = None
) -> None:
    """Write a row for each of `runs`, the best first, with numbers as they are.

    The paths of checkpoints are given relative to `relative_to`, else to the current folder.
    """
    names, keys, front = job_names(runs), differing(runs), _front(runs, objectives)
    start = (relative_to or Path.cwd()).resolve()
    with atomic_write(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        header = ["job", *(["best"] if front is not None else []), *keys, *(["seed"] if _seeds(runs) else [])]
        metrics = ("epochs", *_metrics(objectives))
        writer.writerow([*header, "status", *metrics, "checkpoint", "error"])
        for run in ranked(runs, objectives):
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
    """Name each run: a job by its number, and its sweep where there are several; others by their folder."""
    several = len({run.folder.parent for run in runs}) > 1

    def name(run: Run) -> str:
        if run.number is None:
            return run.folder.name
        return f"{run.folder.parent.name}/{run.number}" if several else str(run.number)

    return {run: name(run) for run in runs}


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return `rows`, the first of which are the titles, as a Markdown table with aligned columns."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


# --- tables --------------------------------------------------------------------------------------


def _groups_table(runs: Sequence[Run], objectives: Objectives) -> Rows | None:
    """Return the table of groups; None where no run differs from another in its seed only."""
    groups = group(runs, objectives)
    if not any(len(one.runs) > 1 for one in groups):
        return None
    columns: list[tuple[str, str, Callable[[str, list[float]], str]]] = []
    for metric in _metrics(objectives):
        if metric == "seconds" and metric not in objectives:
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


def _jobs_table(runs: Sequence[Run], objectives: Objectives) -> Rows:
    """Return the table of jobs, without the columns that would be empty or all the same."""
    front, names = _front(runs, objectives), job_names(runs)
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
    for metric in _metrics(objectives):
        if any(_known(run, metric) for run in runs):
            columns[metric] = lambda run, metric=metric: _mean(metric, _known(run, metric))  # type: ignore[misc]
    return [list(columns), *([cell(run) for cell in columns.values()] for run in ranked(runs, objectives))]


def _metrics(objectives: Objectives) -> list[str]:
    return list(dict.fromkeys([*METRICS, *objectives]))


def _seeds(runs: Sequence[Run]) -> bool:
    return len({run.seed for run in runs if run.seed is not None}) > 1


def _known(run: Run, metric: str) -> list[float]:
    value = run.value(metric)
    return [] if value is None else [value]


def _choice(value: Any) -> str:
    """Return a setting as text; a search tries values of more digits than tell them apart."""
    return f"{value:.4g}" if isinstance(value, float) and len(str(value)) > 8 else str(value)


def _form(metric: str) -> tuple[float, str, str]:
    """Return the factor, the format and the unit that a metric is shown with."""
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


# --- what is below the tables --------------------------------------------------------------------


def _counts(runs: Sequence[Run]) -> str:
    """Say how many runs ended how, and what those that were pruned have saved."""
    counts = {word: sum(run.status == status for run in runs) for status, word in _WORDS.items()}
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    if not counts["pruned"]:
        return said
    ended = [run for run in runs if run.status in ("finished", "pruned")]
    trained = sum(int(run.value("epochs") or 0) for run in ended)
    planned = sum(int(run.hparams.get("max_epochs", 0)) for run in ended)
    if planned < trained or not planned:
        return said
    return f"{said}; {trained} of {planned} epochs trained, {1 - trained / planned:.0%} saved by pruning"


def _failures(runs: Sequence[Run], names: dict[Run, str]) -> list[str]:
    keys = differing(runs)
    lines = []
    for run in runs:
        if run.status == "failed":
            choices = [f"{key}={_choice(run.hparams[key])}" for key in keys if key in run.hparams]
            choices += [f"seed={run.seed}"] if _seeds(runs) and run.seed is not None else []
            told = f" ({', '.join(choices)})" if choices else ""
            lines.append(f"job {names[run]}{told} failed: {' '.join((run.error or '').split())}")
    return lines


def _front(runs: Sequence[Run], objectives: Objectives) -> set[Run] | None:
    """Return the runs to be marked; None where the order of the rows says it."""
    return set(best(runs, objectives)) if len(objectives) > 1 else None


def _praise(objectives: Objectives) -> str:
    return (
        f"best by {next(iter(objectives))}"
        if len(objectives) == 1
        else f"among the best by {', '.join(objectives)}"
    )


def _commands(runs: Sequence[Run], objectives: Objectives) -> Iterator[tuple[Run, str]]:
    """Give the runs that won, and the command that runs each again on its own."""
    for run in best(runs, objectives)[:COMMANDS]:
        yield run, shlex.join(["python", "train.py", *filter(_is_setting, run.overrides)])


def _is_setting(override: str) -> bool:
    key = override.split("=", 1)[0].lstrip("+~")
    return key.partition(".")[0] not in ("resume", "sweep", "hydra")


def _markdown(name: str, runs: Sequence[Run], objectives: Objectives, pictures: Sequence[str]) -> str:
    names = job_names(runs)
    groups = _groups_table(runs, objectives)
    parts = [f"# Sweep {name}"]
    if groups:
        parts += ["## Over seeds", table(groups), "## Jobs"]
    parts += [table(_jobs_table(runs, objectives)), _counts(runs)]
    if failures := _failures(runs, names):
        parts.append("\n".join(f"- {line}" for line in failures))
    if commands := list(_commands(runs, objectives)):
        jobs = ", ".join(names[run] for run, _ in commands)
        parts.append(f"{_praise(objectives).capitalize()}: job {jobs}. Again by:")
        parts.append("```bash\n" + "\n".join(command for _, command in commands) + "\n```")
    parts += [f"![{picture.removesuffix('.png')}](pictures/{picture})" for picture in pictures]
    return "\n\n".join(parts) + "\n"


# --- pictures ------------------------------------------------------------------------------------


def _write_pictures(sweep_dir: Path, runs: Sequence[Run]) -> list[str]:
    """Draw the pictures into pictures/ and TensorBoard; return the names of all that are there."""
    folder = sweep_dir / "pictures"
    for former in [*sweep_dir.glob(f"events.out.tfevents.*{_EVENTS}"), *folder.glob("*.png")]:
        if former.parent == sweep_dir or re.match(r"by_|.*_x_", former.name):
            former.unlink(missing_ok=True)
    drawn = _figures(runs)
    others = sorted(path.name for path in folder.glob("*.png"))  # those of a search
    if not drawn:
        return others

    from torch.utils.tensorboard import SummaryWriter

    from mnist_cnn.reporting import figures

    folder.mkdir(exist_ok=True)
    with SummaryWriter(sweep_dir, filename_suffix=_EVENTS) as writer:
        for name, figure in drawn.items():
            figures.save(figure, folder / f"{name}.png")
            writer.add_image(f"sweep/{name.removeprefix('by_')}", figures.to_image(figure), dataformats="HWC")
    return [*(f"{name}.png" for name in drawn), *others]


def _figures(runs: Sequence[Run]) -> dict[str, "Figure"]:
    """Draw validation accuracy by each setting that was swept, and by each two of a few."""
    shown = [run for run in runs if run.value("val/acc") is not None]
    keys = swept(runs)
    if not shown or not keys:
        return {}

    from mnist_cnn.reporting import sweep_figures

    accuracies = [run.metrics["val/acc"] for run in shown]
    finished = [run.status == "finished" for run in shown]
    columns = {key: [run.hparams.get(key) for run in shown] for key in keys}
    drawn = {
        f"by_{_file_name(key)}": sweep_figures.by_setting(key, values, accuracies, finished)
        for key, values in columns.items()
    }
    for one, other in combinations(keys, 2) if len(keys) <= MOST_SETTINGS else ():
        name = f"{_file_name(one)}_x_{_file_name(other)}"
        pair = columns[one], columns[other]
        cells = len(set(pair[0])) * len(set(pair[1]))
        is_grid = len(set(zip(*pair, strict=True))) >= cells / 2
        if is_grid and all(len(set(values)) <= MOST_VALUES for values in pair):
            drawn[name] = sweep_figures.heat_map((one, other), *pair, accuracies, finished)
        elif all(map(sweep_figures.are_numbers, pair)):
            drawn[name] = sweep_figures.plane((one, other), *pair, accuracies, finished)
    return drawn


def _file_name(key: str) -> str:
    return re.sub(r"[^\w-]+", "_", key)
