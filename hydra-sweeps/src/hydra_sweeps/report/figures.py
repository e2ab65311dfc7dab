"""Figures of many runs: their settings and results in, a matplotlib `Figure` out."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

from hydra_sweeps.comparing import swept
from hydra_sweeps.contract import missing_extra
from hydra_sweeps.files import atomic_write
from hydra_sweeps.goal import Goal
from hydra_sweeps.runs import Run

try:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
except ModuleNotFoundError as error:
    raise missing_extra("The report without figures: drawing them", "matplotlib", "matplotlib") from error

MAX_SETTINGS, MAX_VALUES = 4, 12  # for figures of pairs of settings
MAX_NAMES = 50  # of a setting whose values are no numbers
MAX_COLUMNS = 6  # a number with more values than this is on an axis

Floats: TypeAlias = NDArray[np.float64]

_FINISHED: dict[str, Any] = {"color": "#0072B2", "alpha": 0.75, "zorder": 3, "label": "finished"}
_OTHERS: dict[str, Any] = {"facecolor": "none", "edgecolor": "0.45", "zorder": 2, "label": "not finished"}
_MEAN = "#D55E00"


@dataclass(frozen=True)
class Results:
    """A metric of N runs, and which of them have finished.

    Accuracies, whose name ends with `/acc`, are drawn in percent. Runs that have not finished are drawn, but
    not included in means.
    """

    metric: str
    maximize: bool
    values: Floats  # (N,)
    finished: NDArray[np.bool_]  # (N,)

    @property
    def title(self) -> str:
        return f"{self.metric} in %" if self.metric.endswith("/acc") else self.metric

    @property
    def drawn(self) -> Floats:
        return self.values * 100 if self.metric.endswith("/acc") else self.values

    def text(self, value: float) -> str:
        return f"{value:.2f}" if self.metric.endswith("/acc") else f"{value:.4g}"

    def limits(self, values: Floats) -> tuple[float, float]:
        """Return the range of `values` without those that are much worse than most, such as of diverged runs.

        They differ from the best by more than 5 % of it, and by five times as much as the median.
        """
        best = values.max() if self.maximize else values.min()
        distance = np.abs(values - best)
        usual = values[distance <= max(5 * np.median(distance), 0.05 * abs(best))]
        return float(usual.min()), float(usual.max())


def write(folder: Path, runs: Sequence[Run], goal: Goal) -> list[str]:
    """Draw runs into PNG files in `folder`, in place of former ones; return the names of the files.

    The first objective by each setting that was swept, and by pairs of them if they are a grid.
    """
    for former in folder.glob("*.png"):
        if re.match(r"by_|.*_x_", former.name):
            former.unlink(missing_ok=True)
    drawn = _draw(runs, goal)
    if drawn:
        folder.mkdir(exist_ok=True)
    for name, figure in drawn.items():
        with atomic_write(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
    return [f"{name}.png" for name in drawn]


def _draw(runs: Sequence[Run], goal: Goal) -> dict[str, Figure]:
    shown = [run for run in runs if run.value(goal.first) is not None]
    results = Results(
        goal.first,
        maximize=goal.objectives[goal.first] == "maximize",
        values=np.array([run.value(goal.first) for run in shown], dtype=np.float64),
        finished=np.array([run.status == "finished" for run in shown], dtype=np.bool_),
    )
    columns = {key: [run.hparams.get(key) for run in shown] for key in swept(runs)} if shown else {}
    drawn = {
        f"by_{_file_name(key)}": by_setting(key, values, results)
        for key, values in columns.items()
        if are_numbers(values) or len(set(values)) <= MAX_NAMES
    }
    for pair in combinations(columns, 2) if len(columns) <= MAX_SETTINGS else ():
        rows, across = columns[pair[0]], columns[pair[1]]
        cells = len(set(rows)) * len(set(across))
        is_grid = len(set(zip(rows, across, strict=True))) >= cells / 2
        if is_grid and max(len(set(rows)), len(set(across))) <= MAX_VALUES:
            drawn["_x_".join(map(_file_name, pair))] = heat_map(pair, rows, across, results)
    return drawn


def _file_name(key: str) -> str:
    return re.sub(r"[^\w-]+", "_", key)


def are_numbers(values: Sequence[Any]) -> bool:
    """Return whether all values that are not None are numbers."""
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)


def by_setting(name: str, values: Sequence[Any], results: Results) -> Figure:
    """Draw the result of each run against its value of a setting.

    Names, and numbers with few values, have a column each, with the mean of its finished runs; other numbers
    are on an axis, logarithmic if they span a factor of ten or more. Much worse results are at the edge.
    """
    labels = _distinct(values)
    columns = not are_numbers(values) or len(labels) <= MAX_COLUMNS
    places = {label: place for place, label in enumerate(labels)}
    # On an axis, None becomes NaN, which is not drawn.
    x = np.array([places[v] if columns else v for v in values], dtype=np.float64)
    low, high = results.limits(results.drawn)
    y = results.drawn.clip(low, high)

    figure, axes = _figure(max(6.4, 1.2 + 0.8 * len(labels)) if columns else 6.4, 4.4)
    for which, style in ((results.finished, _FINISHED), (~results.finished, _OTHERS)):
        if which.any():
            axes.scatter(x[which], y[which], **style)
    if columns:
        _name_columns(axes, labels)
        for column in sorted({*x[results.finished]}):
            mean = statistics.fmean(results.drawn[results.finished & (x == column)])
            height = min(max(mean, low), high)
            axes.plot([column - 0.25, column + 0.25], [height, height], color=_MEAN)
            axes.text(column + 0.29, height, results.text(mean), color=_MEAN, va="center")
        axes.set_xlim(-0.6, len(labels) - 0.3)
    elif np.nanmin(x) > 0 and np.nanmax(x) >= 10 * np.nanmin(x):
        axes.set_xscale("log")
    worst = float(results.drawn.min() if results.maximize else results.drawn.max())
    note = f"; the worst, {results.text(worst)}, is at the edge" if (y != results.drawn).any() else ""
    axes.set_xlabel(name, parse_math=False)
    axes.set_title(results.title + note, parse_math=False)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def heat_map(names: tuple[str, str], rows: Sequence[Any], columns: Sequence[Any], results: Results) -> Figure:
    """Draw the mean result of each combination of two settings; blank where no run has finished.

    names: the settings of the rows and of the columns. The best mean is in bold.
    """
    down, across = _distinct(rows), _distinct(columns)
    means = np.full((len(down), len(across)), np.nan)
    cells = list(zip(map(down.index, rows), map(across.index, columns), strict=True))
    for cell in set(cells):
        runs = results.finished & [one == cell for one in cells]
        if runs.any():
            means[cell] = results.drawn[runs].mean()

    figure, axes = _figure(max(2.6 + 0.8 * len(across), 4.8), max(1.8 + 0.5 * len(down), 3.0))
    known = means[~np.isnan(means)]
    low, high = results.limits(known) if len(known) else (0.0, 1.0)
    norm = Normalize(low, high, clip=True)
    image = axes.imshow(means, cmap="viridis", norm=norm, aspect="auto")
    for (row, column), mean in np.ndenumerate(means):
        if not np.isnan(mean):
            is_best = mean == (known.max() if results.maximize else known.min())
            color = "black" if norm(mean) > 0.6 else "white"
            weight = "bold" if is_best else "normal"
            axes.text(
                column, row, results.text(mean), ha="center", va="center", color=color, fontweight=weight
            )
    _name_columns(axes, across)
    axes.set_yticks(range(len(down)), map(_short, down), parse_math=False)
    axes.set_xlabel(names[1], parse_math=False)
    axes.set_ylabel(names[0], parse_math=False)
    axes.set_title(f"{results.title}, means", parse_math=False)
    figure.colorbar(image)
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    # not of pyplot, which keeps its figures and may open windows
    figure = Figure(figsize=(min(width, 16.0), height), dpi=120, layout="constrained")
    return figure, figure.add_subplot()


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Return the distinct values: numbers in order and after a missing one, others as they come."""
    found = list(dict.fromkeys(values))
    return sorted(found, key=lambda v: (v is not None, v)) if are_numbers(values) else found


def _name_columns(axes: Axes, labels: Sequence[Any]) -> None:
    texts = [_short(label) for label in labels]
    axes.set_xticks(range(len(texts)), texts, parse_math=False)
    if max(map(len, texts)) > 8:
        axes.tick_params(axis="x", labelrotation=30)


def _short(value: Any) -> str:
    if value is None:
        return "–"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 20 else f"{text[:19]}…"
