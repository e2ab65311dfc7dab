"""Figures of finished runs: the first objective by each setting that was swept, and by pairs of them."""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hydra_sweeps.files import atomic_write
from hydra_sweeps.goal import Goal
from hydra_sweeps.runs import Run, swept

MAX_SETTINGS, MAX_VALUES = 4, 12  # for figures of pairs of settings
MAX_NAMES = 50  # of a setting whose values are no numbers
MAX_COLUMNS = 6  # a number with more values than this is on an axis

Floats: TypeAlias = NDArray[np.float64]


def write(folder: Path, runs: Sequence[Run], goal: Goal) -> list[str]:
    """Draw finished runs into PNG files in `folder`, and return their names; accuracies are in percent."""
    shown = [run for run in runs if run.status == "finished" and run.value(goal.first) is not None]
    scores = np.array([run.value(goal.first) for run in shown], dtype=np.float64)
    scores *= 100 if goal.first.endswith("/acc") else 1
    columns = {key: [run.hparams.get(key) for run in shown] for key in swept(runs)} if shown else {}
    drawn = {}
    for key, values in columns.items():
        if _are_numbers(values) or len(set(values)) <= MAX_NAMES:
            drawn[f"by_{key}"] = by_setting(key, values, scores, goal)
    for one, other in combinations(columns, 2) if len(columns) <= MAX_SETTINGS else ():
        sizes = len(set(columns[one])), len(set(columns[other]))
        found = len(set(zip(columns[one], columns[other], strict=True)))
        if max(sizes) <= MAX_VALUES and found >= sizes[0] * sizes[1] / 2:  # they are a grid
            drawn[f"{one}_x_{other}"] = heat_map((one, other), columns[one], columns[other], scores, goal)
    names = {re.sub(r"[^\w-]+", "_", key) + ".png": figure for key, figure in drawn.items()}
    for name, figure in names.items():
        folder.mkdir(exist_ok=True)
        with atomic_write(folder / name) as temporary:
            figure.savefig(temporary, format="png")
    return list(names)


def by_setting(name: str, values: Sequence[Any], scores: Floats, goal: Goal) -> Figure:
    """Draw the score of each run against its value of a setting.

    Names, and numbers with few values, have a column each, with its mean; other numbers are on an axis,
    logarithmic if they span a factor of ten or more.
    """
    labels = _distinct(values)
    columns = not _are_numbers(values) or len(labels) <= MAX_COLUMNS
    # On an axis, None becomes NaN, which is not drawn.
    x = np.array([labels.index(v) if columns else v for v in values], dtype=np.float64)
    figure, axes = _figure(1.2 + 0.8 * len(labels) if columns else 0, 4.4, goal)
    shown = _clipped(scores, goal)
    axes.scatter(x, shown, alpha=0.75)
    if columns:
        axes.set_xticks(range(len(labels)), map(_short, labels), parse_math=False)
        for column in range(len(labels)):
            mean = scores[x == column].mean()
            axes.text(column + 0.1, shown[x == column].mean(), f"mean {mean:.4g}", va="center")
        axes.set_xlim(-0.6, len(labels) - 0.2)
    elif np.nanmin(x) > 0 and np.nanmax(x) >= 10 * np.nanmin(x):
        axes.set_xscale("log")
    axes.set_xlabel(name, parse_math=False)
    axes.grid(axis="y", alpha=0.3)
    return figure


def heat_map(
    names: tuple[str, str], rows: Sequence[Any], columns: Sequence[Any], scores: Floats, goal: Goal
) -> Figure:
    """Draw the mean score of each combination of two settings; blank where there is no run.

    names: the settings of the rows and of the columns.
    """
    down, across = _distinct(rows), _distinct(columns)
    cells = list(zip(map(down.index, rows), map(across.index, columns), strict=True))
    means = np.full((len(down), len(across)), np.nan)
    for cell in set(cells):
        means[cell] = scores[[one == cell for one in cells]].mean()
    usual = _clipped(means[~np.isnan(means)], goal)
    figure, axes = _figure(2.6 + 0.8 * len(across), max(1.8 + 0.5 * len(down), 3.0), goal, "means of ")
    image = axes.imshow(means, cmap="viridis", aspect="auto", vmin=usual.min(), vmax=usual.max())
    for row, column in set(cells):
        mean = means[row, column]
        color = "black" if mean > usual.min() + 0.6 * np.ptp(usual) else "white"
        axes.text(column, row, f"{mean:.4g}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(across)), map(_short, across), parse_math=False)
    axes.set_yticks(range(len(down)), map(_short, down), parse_math=False)
    axes.set_xlabel(names[1], parse_math=False)
    axes.set_ylabel(names[0], parse_math=False)
    figure.colorbar(image)
    return figure


def _clipped(scores: Floats, goal: Goal) -> Floats:
    """Return where scores are drawn: outliers, such as of diverged runs, with the worst of the others.

    Outliers differ from the best by more than 5 % of it, and by five times as much as the median.
    """
    best = scores.max() if goal.objectives[goal.first] == "maximize" else scores.min()
    distance = np.abs(scores - best)
    usual = scores[distance <= max(5 * np.median(distance), 0.05 * abs(best))]
    return scores.clip(usual.min(), usual.max())


def _are_numbers(values: Sequence[Any]) -> bool:
    """Return whether all values that are not None are numbers."""
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)


def _figure(width: float, height: float, goal: Goal, what: str = "") -> tuple[Figure, Axes]:
    # not of pyplot, which keeps its figures and may open windows
    figure = Figure(figsize=(min(max(width, 6.4), 16.0), height), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    unit = " in %" if goal.first.endswith("/acc") else ""
    axes.set_title(f"{what}{goal.first}{unit}", parse_math=False)
    return figure, axes


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Return the distinct values: numbers in order and after a missing one, others as they come."""
    found = list(dict.fromkeys(values))
    return sorted(found, key=lambda v: (v is not None, v)) if _are_numbers(values) else found


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)
    return text if len(text) <= 20 else f"{text[:19]}…"
