"""The report of a sweep: as text, Markdown, CSV and figures."""

import csv
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from hydra_sweeps.commands import AppCommand
from hydra_sweeps.comparing import best, differing
from hydra_sweeps.contract import explained
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

MAX_ROWS, SHOWN_ROWS = 30, 20  # of a longer list the terminal shows only the first rows
MAX_COMMANDS = 5  # of a Pareto front

_WORDS = {"finished": "ok", "pruned": "pruned", "failed": "failed", "unfinished": "unfinished"}

log = logging.getLogger(__name__)


def write(sweep_dir: Path, goal: Goal) -> str:
    """Write sweep.csv, sweep.md and figures/ into the folder of a sweep; return the text for the terminal.

    An earlier report is replaced. Raises `SweepError` if there is no run.
    """
    runs = find_runs([sweep_dir])
    write_csv(sweep_dir / "sweep.csv", runs, goal)
    parts = [f"# Sweep {sweep_dir.resolve().name}"]
    if (groups := groups_table(runs, goal)) is not None:
        parts += ["## Over seeds", as_markdown(groups), "## Jobs"]
    summary = "\n".join([_counts(runs), *_failures(runs), *_commands(runs, goal.objectives)])
    parts += [as_markdown(jobs_table(runs, goal)), f"```\n{summary}\n```"]
    parts += [f"![{name.removesuffix('.png')}](figures/{name})" for name in _figures(sweep_dir, runs, goal)]
    with atomic_write(sweep_dir / "sweep.md") as temporary:
        temporary.write_text(printable("\n\n".join(parts) + "\n"), encoding="utf-8")
    return text(runs, goal)


def _figures(sweep_dir: Path, runs: Sequence[Run], goal: Goal) -> list[str]:
    """Draw the figures of a sweep, in place of former ones; return their names."""
    try:
        from hydra_sweeps.report import figures  # takes half a second
    except ModuleNotFoundError as error:
        log.warning(f"The report has no figures: {explained(error)}")
        return []
    return figures.write(sweep_dir / "figures", runs, goal)


def text(runs: Sequence[Run], goal: Goal, rest: str = "in sweep.csv") -> str:
    """Return what the terminal shows of `runs`; `rest` says where the omitted rows are."""
    rows, failures = groups_table(runs, goal) or jobs_table(runs, goal), _failures(runs)
    lines = [as_markdown(rows[: _shown(len(rows) - 1) + 1])]
    if omitted := len(rows) - 1 - _shown(len(rows) - 1):
        lines.append(f"… and {omitted} more {rest}")
    lines += ["", _counts(runs), *failures[: _shown(len(failures))]]
    if omitted := len(failures) - _shown(len(failures)):
        lines.append(f"… and {omitted} more failed {rest}")
    return printable("\n".join([*lines, *_commands(runs, goal.objectives)]))


def _shown(count: int) -> int:
    return count if count <= MAX_ROWS else SHOWN_ROWS


def write_csv(path: Path, runs: Sequence[Run], goal: Goal) -> None:
    """Write one row per run, best first, with unrounded numbers; the folder of a run as seen from `path`."""
    by_name = {name: run for run, name in job_names(runs).items()}
    columns = columns_of(runs, goal)
    in_order = [by_name[name] for name in columns["job"]]
    columns["error"] = [run.error for run in in_order]
    columns["folder"] = [os.path.relpath(run.folder, path.resolve().parent) for run in in_order]
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


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
    keys, names, seeds = differing(runs), job_names(runs), has_seeds(runs)
    lines = []
    for run in runs:
        if run.status == "failed":
            choices = [f"{key}={choice(run.hparams[key])}" for key in keys if key in run.hparams]
            choices += [f"seed={run.seed}"] if seeds and run.seed is not None else []
            label = f" ({', '.join(choices)})" if choices else ""
            lines.append(f"job {names[run]}{label} failed: {' '.join((run.error or '').split())}")
    return lines


def _commands(runs: Sequence[Run], objectives: Objectives) -> list[str]:
    """Return a line for each of the best runs, with the command that runs it again."""
    names = job_names(runs)
    label = f"{'best' if len(objectives) == 1 else 'among the best'} by {', '.join(objectives)}"
    lines = []
    for run in best(runs, objectives)[:MAX_COMMANDS]:
        overrides = [one for one in run.overrides if _is_setting(one)]
        app = AppCommand.read(run.folder.parent)
        if app is not None:
            how = f"rerun with: {app.text([*overrides, *app.single])}"
        else:  # a run of its own, or a sweep of Hydra's own sweepers
            how = f"its settings: {' '.join(overrides) or 'those of the app'}"
        lines.append(f"{label}: job {names[run]}, {how}")
    return lines


def _is_setting(override: str) -> bool:
    return key_of(override).partition(".")[0] not in ("resume", "sweep", "hydra")
