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

from hydra_sweeps.comparing import swept
from hydra_sweeps.files import atomic_write
from hydra_sweeps.goal import Goal
from hydra_sweeps.runs import Run

MAX_SETTINGS, MAX_VALUES = 4, 12  # for figures of pairs of settings
MAX_NAMES = 50  # of a setting whose values are no numbers
MAX_COLUMNS = 6  # a number with more values than this is on an axis

Floats: TypeAlias = NDArray[np.float64]


def write(folder: Path, runs: Sequence[Run], goal: Goal) -> list[str]:
    """Draw finished runs into PNG files in `folder`, in place of former ones; return the names of the files.

    Accuracies are in percent.
    """
    for former in folder.glob("*.png"):
        if re.match(r"by_|.*_x_", former.name):
            former.unlink()
    shown = [run for run in runs if run.status == "finished" and run.value(goal.first) is not None]
    if not shown:
        return []
    scores = np.array([run.value(goal.first) for run in shown], dtype=np.float64)
    scores *= 100 if goal.first.endswith("/acc") else 1
    columns = {key: [run.hparams.get(key) for run in shown] for key in swept(runs)}
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
    figure, axes = _figure(max(6.4, 1.2 + 0.8 * len(labels)) if columns else 6.4, 4.4)
    shown = _clipped(scores, goal)
    axes.scatter(x, shown, alpha=0.75)
    if columns:
        _name_columns(axes, labels)
        for column in range(len(labels)):
            mean = scores[x == column].mean()
            axes.text(column + 0.1, shown[x == column].mean(), f"mean {mean:.4g}", va="center")
        axes.set_xlim(-0.6, len(labels) - 0.2)
    elif np.nanmin(x) > 0 and np.nanmax(x) >= 10 * np.nanmin(x):
        axes.set_xscale("log")
    axes.set_xlabel(name, parse_math=False)
    axes.set_title(_title(goal), parse_math=False)
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
    means = {cell: float(scores[[one == cell for one in cells]].mean()) for cell in set(cells)}
    colors = np.full((len(down), len(across)), np.nan)
    colors[tuple(zip(*means, strict=True))] = _clipped(np.array(list(means.values())), goal)
    figure, axes = _figure(max(2.6 + 0.8 * len(across), 4.8), max(1.8 + 0.5 * len(down), 3.0))
    dark = np.nanmin(colors) + 0.6 * np.ptp(colors[~np.isnan(colors)])
    image = axes.imshow(colors, cmap="viridis", aspect="auto")
    for (row, column), mean in means.items():
        color = "black" if colors[row, column] > dark else "white"
        axes.text(column, row, f"{mean:.4g}", ha="center", va="center", color=color)
    _name_columns(axes, across)
    axes.set_yticks(range(len(down)), map(_short, down), parse_math=False)
    axes.set_xlabel(names[1], parse_math=False)
    axes.set_ylabel(names[0], parse_math=False)
    axes.set_title(f"{_title(goal)}, means", parse_math=False)
    figure.colorbar(image)
    return figure


def _title(goal: Goal) -> str:
    return f"{goal.first} in %" if goal.first.endswith("/acc") else goal.first


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


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    # not of pyplot, which keeps its figures and may open windows
    figure = Figure(figsize=(min(width, 16.0), height), dpi=120, layout="constrained")
    return figure, figure.add_subplot()


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Return the distinct values: numbers in order and after a missing one, others as they come."""
    found = list(dict.fromkeys(values))
    return sorted(found, key=lambda v: (v is not None, v)) if _are_numbers(values) else found


def _name_columns(axes: Axes, labels: Sequence[Any]) -> None:
    texts = [_short(label) for label in labels]
    axes.set_xticks(range(len(texts)), texts, parse_math=False)
    if max(map(len, texts)) > 8:
        axes.tick_params(axis="x", labelrotation=30)


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)
    return text if len(text) <= 20 else f"{text[:19]}…"
