"""The report of a sweep: as text, Markdown, CSV and figures."""

import csv
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra_sweeps.commands import AppCommand
from hydra_sweeps.comparing import best, differing
from hydra_sweeps.contract import SweepError
from hydra_sweeps.files import atomic_write, printable
from hydra_sweeps.goal import Goal, Objectives
from hydra_sweeps.grammar import key_of
from hydra_sweeps.report.tables import (
    as_markdown,
    choice,
    columns_of,
    groups_table,
    has_seeds,
    job_names,
    jobs_table,
)
from hydra_sweeps.runs import Run, find_runs

MAX_ROWS, SHOWN_ROWS = 30, 20  # of a longer table the terminal shows only the first rows
MAX_COMMANDS = 5  # of a Pareto front

_WORDS = {"finished": "ok", "pruned": "pruned", "failed": "failed", "unfinished": "unfinished"}

log = logging.getLogger(__name__)


def write(sweep_dir: Path, goal: Goal) -> str:
    """Write sweep.csv, sweep.md and figures/ into the folder of a sweep; return the text for the terminal.

    An earlier report is replaced. Raises `SweepError` if there is no run.
    """
    runs = find_runs([sweep_dir])
    write_csv(sweep_dir / "sweep.csv", runs, goal, relative_to=sweep_dir)
    figures = _write_figures(sweep_dir / "figures", runs, goal)
    with atomic_write(sweep_dir / "sweep.md") as temporary:
        temporary.write_text(_markdown(sweep_dir.resolve().name, runs, goal, figures), encoding="utf-8")
    return text(runs, goal)


def _write_figures(folder: Path, runs: Sequence[Run], goal: Goal) -> list[str]:
    """Write the figures into a folder, in place of former ones; return the names of all files in it."""
    try:
        from hydra_sweeps.report import figures  # takes half a second
    except SweepError as missing:
        log.warning(str(missing))
        return []
    drawn = figures.write(folder, runs, goal)
    return [*drawn, *sorted(path.name for path in folder.glob("*.png") if path.name not in drawn)]


def text(runs: Sequence[Run], goal: Goal, rest: str = "in sweep.csv") -> str:
    """Return what the terminal shows of `runs`; `rest` says where the omitted rows are."""
    header, *rows = groups_table(runs, goal) or jobs_table(runs, goal)
    failures = _failures(runs)
    lines = [as_markdown([header, *rows[: _shown(rows)]])]
    if omitted := len(rows) - _shown(rows):
        lines.append(f"… and {omitted} more {rest}")
    lines += ["", _counts(runs), *failures[: _shown(failures)]]
    if omitted := len(failures) - _shown(failures):
        lines.append(f"… and {omitted} more failed {rest}")
    for job, command in _commands(runs, goal.objectives):
        lines.append(f"{_best_label(goal.objectives)}: job {job}, {command}")
    return printable("\n".join(lines))


def _shown(rows: Sequence[Any]) -> int:
    return len(rows) if len(rows) <= MAX_ROWS else SHOWN_ROWS


def write_csv(path: Path, runs: Sequence[Run], goal: Goal, relative_to: Path | None = None) -> None:
    """Write one row per run, best first, with unrounded numbers.

    The paths of checkpoints are relative to `relative_to`, by default the current folder.
    """
    start = (relative_to or Path.cwd()).resolve()
    names = job_names(runs)
    by_name = {names[run]: run for run in runs}
    columns = columns_of(runs, goal)
    in_order = [by_name[name] for name in columns["job"]]
    columns["checkpoint"] = [run.checkpoint and os.path.relpath(run.checkpoint, start) for run in in_order]
    columns["error"] = [run.error for run in in_order]
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _counts(runs: Sequence[Run]) -> str:
    """Return how many runs ended in which way, and what pruning has saved."""
    counts = {word: sum(run.status == status for run in runs) for status, word in _WORDS.items()}
    summary = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    if not counts["pruned"]:
        return summary
    ended = [run for run in runs if run.status in ("finished", "pruned")]
    planned = [epochs for run in ended if isinstance(epochs := run.hparams.get("max_epochs"), int)]
    trained, total = sum(int(run.value("epochs") or 0) for run in ended), sum(planned)
    if len(planned) < len(ended) or not 0 < trained <= total:
        return summary
    return f"{summary}; {trained} of {total} epochs trained, {1 - trained / total:.0%} saved by pruning"


def _failures(runs: Sequence[Run]) -> list[str]:
    keys, names, seeds = differing(runs), job_names(runs), has_seeds(runs)
    lines = []
    for run in runs:
        if run.status == "failed":
            choices = [f"{key}={choice(run.hparams[key])}" for key in keys if key in run.hparams]
            choices += [f"seed={run.seed}"] if seeds and run.seed is not None else []
            label = f" ({', '.join(choices)})" if choices else ""
            lines.append(f"job {names[run]}{label} failed: {' '.join((run.error or '').split())}")
    return lines


def _best_label(objectives: Objectives) -> str:
    return f"{'best' if len(objectives) == 1 else 'among the best'} by {', '.join(objectives)}"


def _commands(runs: Sequence[Run], objectives: Objectives) -> list[tuple[str, str]]:
    """Return the names of the best runs, and how each of them is run again."""
    names = job_names(runs)
    found = []
    for run in best(runs, objectives)[:MAX_COMMANDS]:
        overrides = list(filter(_is_setting, run.overrides))
        app = AppCommand.read(run.folder.parent)
        if app is not None:
            found.append((names[run], f"rerun with: {app.text([*overrides, *app.single])}"))
        else:  # a run of its own, or a sweep of Hydra's own sweepers
            found.append((names[run], f"its settings: {' '.join(overrides) or 'those of the app'}"))
    return found


def _is_setting(override: str) -> bool:
    return key_of(override).partition(".")[0] not in ("resume", "sweep", "hydra")


def _markdown(name: str, runs: Sequence[Run], goal: Goal, figures: Sequence[str]) -> str:
    parts = [f"# Sweep {name}"]
    if groups := groups_table(runs, goal):
        parts += ["## Over seeds", as_markdown(groups), "## Jobs"]
    parts += [as_markdown(jobs_table(runs, goal)), _counts(runs)]
    if failures := _failures(runs):
        parts.append("\n".join(f"- {line}" for line in failures))
    for job, command in _commands(runs, goal.objectives):
        how, _, line = command.partition(": ")
        parts.append(
            f"{_best_label(goal.objectives).capitalize()}: job {job}, {how}:\n\n```bash\n{line}\n```"
        )
    parts += [f"![{figure.removesuffix('.png')}](figures/{figure})" for figure in figures]
    return printable("\n\n".join(parts) + "\n")
