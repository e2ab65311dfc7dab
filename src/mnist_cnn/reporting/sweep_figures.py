"""Figures of many runs: values of settings and accuracies in, a matplotlib `Figure` out.

Each function takes N runs: the values of a setting, None where a run has none; the validation accuracies as
fractions; and which runs have finished. Those that have not are drawn, but count in no mean.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

from mnist_cnn.reporting.figures import BLUE, VERMILION

GREY = "0.45"
FEW = 12  # values that get a tick each
FEW_MEANS = 6  # values with one run each that a line goes through
LETTER = 0.085  # inches that a letter of a tick's label takes, about
TITLE = "Validation accuracy in %"


def are_numbers(values: Sequence[Any]) -> bool:
    """Return whether the values are numbers, but for those that are missing."""
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)


def by_setting(
    name: str, values: Sequence[Any], accuracies: Sequence[float], finished: Sequence[bool]
) -> Figure:
    """Draw the accuracy of each run against its value of a setting, and the mean of each value.

    Numbers lie on an axis, logarithmic where they span a factor of ten or more; other values have a column
    each. What is far worse than the other runs is drawn as an arrow at the lower edge.
    """
    scale = _Scale.of(values)
    kept = [place for place, value in enumerate(values) if scale.has(value)]
    x = np.array([scale.place(values[i]) for i in kept])
    y = np.array([100 * accuracies[i] for i in kept])
    done = np.array([finished[i] for i in kept], dtype=bool)
    low, high = _range(y, done)

    width = min(max(6.4, 1.2 + 0.8 * len(scale.values)), 16.0) if scale.kind == "columns" else 6.4
    figure = Figure(figsize=(width, 4.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    margin = max(0.07 * (high - low), 0.05)
    bottom, top = low - margin, min(high + margin, 100 + margin / 2)
    axes.set_ylim(bottom, top)
    arrow = bottom + 0.03 * (top - bottom)  # where that which lies below is marked

    means = {place: statistics.fmean(y[done & (x == place)]) for place in sorted({*x[done]})}
    if not scale.numeric:
        for place, mean in means.items():
            axes.plot([place - 0.25, place + 0.25], [mean, mean], color=VERMILION, linewidth=2.5, zorder=2)
            height, label = (mean, f"{mean:.2f}") if mean >= low else (arrow, f"↓ {mean:.2f}")
            axes.text(place + 0.29, height, label, color=VERMILION, fontsize=9, va="center")
    elif len(means) <= FEW_MEANS or done.sum() >= 2 * len(means):
        # Through the single points of a search this would be a zigzag.
        axes.plot([*means], [*means.values()], color=VERMILION, linewidth=1.5, zorder=2)

    for which, style in ((done, _FINISHED), (~done, _OTHERS)):
        inside, below = which & (y >= low), which & (y < low)
        axes.scatter(x[inside], y[inside], s=36, zorder=3, **style)
        axes.scatter(x[below], np.full(below.sum(), arrow), s=55, marker="v", zorder=3, **style)

    scale.apply(axes, "x", width - 1.0)
    axes.set(xlabel=name, title=TITLE)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    entries = [_entry("finished run", **_FINISHED)] if done.any() else []
    if not done.all():
        entries.append(_entry("not finished", **_OTHERS))
    if (y < low).any():
        entries.append(_entry(f"below, down to {y.min():.1f}", marker="v", facecolor="0.8", edgecolor=GREY))
    if axes.lines:
        entries.append(Line2D([], [], color=VERMILION, linewidth=2, label="mean of the finished"))
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), frameon=False, fontsize=9)
    return figure


def heat_map(
    names: tuple[str, str],
    rows: Sequence[Any],
    columns: Sequence[Any],
    accuracies: Sequence[float],
    finished: Sequence[bool],
) -> Figure:
    """Draw the mean accuracy for each two values of two settings; blank where no run has finished.

    names: of the rows' setting and the columns'. The best is in bold.
    """
    down, across = (_Scale.of(values, as_columns=True) for values in (rows, columns))
    found: dict[tuple[int, int], list[float]] = {}
    for row, column, accuracy, done in zip(rows, columns, accuracies, finished, strict=True):
        if done and down.has(row) and across.has(column):
            cell = int(down.place(row)), int(across.place(column))
            found.setdefault(cell, []).append(100 * accuracy)
    means = np.full((len(down.values), len(across.values)), np.nan)
    for cell, values in found.items():
        means[cell] = statistics.fmean(values)
    known = means[~np.isnan(means)]
    low, high = _range(known, np.ones(known.shape, dtype=bool))

    size = (2.6 + 0.8 * len(across.values), 1.8 + 0.5 * len(down.values))
    figure = Figure(figsize=(max(size[0], 4.8), max(size[1], 3.0)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    norm = Normalize(low, high) if low < high else Normalize(low - 0.5, high + 0.5)
    cmap = colormaps["viridis"].with_extremes(bad="white")
    image = axes.imshow(np.ma.masked_invalid(means), cmap=cmap, norm=norm, aspect="auto")
    for (row, column), mean in np.ndenumerate(means):
        if not np.isnan(mean):
            red, green, blue, _ = cmap(norm(mean))
            light = 0.3 * red + 0.59 * green + 0.11 * blue > 0.5
            weight = "bold" if mean == known.max() else "normal"
            color = "black" if light else "white"
            text = f"{mean:.2f}"
            axes.text(column, row, text, ha="center", va="center", color=color, weight=weight, fontsize=9)
    across.apply(axes, "x", size[0] - 2.6)
    down.apply(axes, "y", math.inf)
    axes.set_xlim(-0.5, means.shape[1] - 0.5)
    # Numbers rise upwards, as on an axis; names are read from the top.
    axes.set_ylim(*((-0.5, means.shape[0] - 0.5) if down.numeric else (means.shape[0] - 0.5, -0.5)))
    axes.set_xticks(np.arange(means.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(means.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    several = any(len(values) > 1 for values in found.values())
    axes.set(xlabel=names[1], ylabel=names[0], title=f"{TITLE}, means" if several else TITLE)
    _color_bar(figure, axes, image, clipped=bool((known < low).any()))
    return figure


def plane(
    names: tuple[str, str],
    rows: Sequence[float | None],
    columns: Sequence[float | None],
    accuracies: Sequence[float],
    finished: Sequence[bool],
) -> Figure:
    """Draw each run as a point at its values of two numeric settings, in the colour of its accuracy.

    names: of the vertical axis' setting and of the horizontal axis'. The best run has a ring.
    """
    up, across = _Scale.of(rows), _Scale.of(columns)
    kept = [
        i
        for i, (row, column) in enumerate(zip(rows, columns, strict=True))
        if up.has(row) and across.has(column)
    ]
    kept.sort(key=lambda i: accuracies[i])  # the best on top
    x = np.array([across.place(columns[i]) for i in kept])
    y = np.array([up.place(rows[i]) for i in kept])
    z = np.array([100 * accuracies[i] for i in kept])
    done = np.array([finished[i] for i in kept], dtype=bool)
    low, high = _range(z, done)

    figure = Figure(figsize=(7.2, 5.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(x[~done], y[~done], s=30, zorder=2, **_OTHERS)
    norm = Normalize(low, high) if low < high else Normalize(low - 0.5, high + 0.5)
    points = axes.scatter(
        x[done], y[done], s=60, c=z[done], cmap="viridis", norm=norm, edgecolor="0.3", linewidth=0.5, zorder=3
    )
    entries = []
    if done.any():
        axes.scatter(x[done][-1:], y[done][-1:], s=150, zorder=4, **_RING)
        entries.append(_entry(f"best: {z[done].max():.2f}", size=11, **_RING))
    if not done.all():
        entries.append(_entry("not finished", **_OTHERS))
    across.apply(axes, "x", 5.2)
    up.apply(axes, "y", math.inf)
    axes.set(xlabel=names[1], ylabel=names[0], title=TITLE)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=entries, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    _color_bar(figure, axes, points, clipped=bool((z[done] < low).any()))
    return figure


_FINISHED: dict[str, Any] = {"facecolor": BLUE, "edgecolor": "white", "linewidth": 0.5, "alpha": 0.75}
_OTHERS: dict[str, Any] = {"facecolor": "none", "edgecolor": GREY, "linewidth": 1.0}
_RING: dict[str, Any] = {"facecolor": "none", "edgecolor": VERMILION, "linewidth": 2.0}


@dataclass(frozen=True)
class _Scale:
    """Where the values of a setting lie on an axis: as they are, by their logarithm, or in a column each."""

    values: Sequence[Any]  # the different ones, in their order
    numeric: bool
    kind: Literal["linear", "log", "columns"]

    @classmethod
    def of(cls, values: Sequence[Any], as_columns: bool = False) -> "_Scale":
        if not are_numbers(values):
            return cls(list(dict.fromkeys(map(_text, values))), False, "columns")
        numbers = sorted({float(value): value for value in values if value is not None}.values())
        if as_columns:
            return cls(numbers, True, "columns")
        if numbers[0] > 0 and numbers[-1] >= 10 * numbers[0]:
            return cls(numbers, True, "log")
        span = numbers[-1] - numbers[0]
        gaps = [after - before for before, after in pairwise(numbers)]
        # 0, 1e-5 and 1e-2 would lie on each other: they are set apart evenly.
        crowded = len(numbers) <= FEW and min(gaps, default=span) < 0.02 * span
        return cls(numbers, True, "columns" if crowded else "linear")

    def has(self, value: Any) -> bool:
        """Return whether a run with this value can be drawn."""
        return not (self.numeric and value is None)

    def place(self, value: Any) -> float:
        if self.kind != "columns":
            return float(value)
        return self.values.index(value if self.numeric else _text(value))

    def apply(self, axes: Axes, which: Literal["x", "y"], inches: float) -> None:
        """Give an axis of `axes`, so many inches long, its scale, limits and ticks."""
        axis = axes.xaxis if which == "x" else axes.yaxis
        labels = [_short(value) for value in self.values]
        if self.kind == "columns":
            axis.set_ticks(range(len(labels)), labels)
            axis.set_tick_params(length=0)
            axes.set(**{f"{which}lim": (-0.6, len(labels) - 0.3)})
            if max(map(len, labels)) * LETTER > 0.9 * inches / len(labels):
                for label in axis.get_ticklabels():
                    label.set(rotation=35, ha="right", rotation_mode="anchor")
            return
        axes.set(**{f"{which}scale": self.kind})
        axes.margins(x=0.06) if which == "x" else axes.margins(y=0.06)
        if self._fit(labels, inches):
            axis.set_major_locator(FixedLocator(self.values))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(NullLocator())
        elif self.kind == "log":
            decades = math.log10(self.values[-1] / self.values[0])
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())

    def _fit(self, labels: Sequence[str], inches: float) -> bool:
        """Return whether each value can have its own tick: few, short, and apart."""
        if len(labels) > FEW or max(map(len, labels)) > 7:
            return False
        places = [math.log10(value) if self.kind == "log" else value for value in self.values]
        span = (places[-1] - places[0]) * 1.12 or 1.0
        length = inches if math.isfinite(inches) else 3.5
        widths = [LETTER * (1 + max(map(len, pair))) for pair in pairwise(labels)]
        gaps = [(after - before) / span * length for before, after in pairwise(places)]
        return all(gap > width for gap, width in zip(gaps, widths, strict=True))


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def _short(value: Any) -> str:
    if isinstance(value, float):
        exact = f"{value:g}"
        return exact if len(exact) <= 6 else f"{value:.3g}"
    value = str(value)
    return value if len(value) <= 20 else f"{value[:19]}…"


def _range(percent: Any, finished: Any) -> tuple[float, float]:
    """Return what to show of accuracies in percent: all of them, but for those that are far worse.

    A run that has not learnt would otherwise press all others into one line.
    """
    if not len(percent):
        return 0.0, 100.0
    top = float(percent.max())
    upper = float(np.quantile(percent[finished] if finished.any() else percent, 0.75))
    usual = max(5 * (top - upper), min(max(3 * (100 - top), 3.0), 15.0))
    return float(percent[percent >= top - usual].min()), top


def _entry(label: str, marker: str = "o", size: float = 6, **style: Any) -> Line2D:
    """Return a point for the legend, styled as scatter's points are."""
    return Line2D(
        [],
        [],
        linestyle="none",
        marker=marker,
        markersize=size,
        label=label,
        markerfacecolor=style["facecolor"],
        markeredgecolor=style["edgecolor"],
        markeredgewidth=style.get("linewidth", 1.0),
        alpha=style.get("alpha"),
    )


def _color_bar(figure: Figure, axes: Axes, mapped: Any, clipped: bool) -> None:
    bar = figure.colorbar(mapped, ax=axes, extend="min" if clipped else "neither")
    bar.ax.spines[:].set_visible(False)
    bar.outline.set_visible(False)
