"""Figures of many runs: settings and values of a metric in, a matplotlib `Figure` out.

Each function takes N runs: the values of a setting, None for a run without it; the values of the metric; and
which runs have finished. The others are drawn, but not included in means.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

from hydra_sweeps.files import atomic_write

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "0.45"
MAX_TICKS = 12  # values that get a tick each
MAX_MEANS = 6  # values with one run each that are connected by a line
LETTER = 0.085  # approximate width of a letter of a tick's label, in inches


@dataclass(frozen=True)
class Measure:
    """The metric that is shown: accuracies, fractions named `…/acc`, in percent, others as they are."""

    metric: str
    maximize: bool = True

    @property
    def title(self) -> str:
        return f"{self.metric} in %" if self.is_percentage else self.metric

    @property
    def is_percentage(self) -> bool:
        return self.metric.endswith("/acc")

    def scaled(self, values: Sequence[float]) -> list[float]:
        return [100 * value for value in values] if self.is_percentage else list(values)

    def text(self, value: float) -> str:
        return f"{value:.2f}" if self.is_percentage else f"{value:.4g}"

    def limits(self, values: Any, finished: Any) -> tuple[float, float]:
        """Return the range to show: that of all values, except those that are much worse than the others."""
        if not len(values):
            return 0.0, 1.0
        sign = 1 if self.maximize else -1
        good = sign * np.asarray(values, dtype=float)
        top = float(good.max())
        upper = float(np.quantile(good[finished] if finished.any() else good, 0.75))
        usual = 5 * (top - upper)
        if self.is_percentage and self.maximize:
            usual = max(usual, min(max(3 * (100 - top), 3.0), 15.0))
        elif usual == 0:
            usual = math.inf
        worst = float(good[good >= top - usual].min())
        return min(sign * worst, sign * top), max(sign * worst, sign * top)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def are_numbers(values: Sequence[Any]) -> bool:
    """Return whether all values that are not None are numbers."""
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)


def by_setting(
    name: str, values: Sequence[Any], results: Sequence[float], finished: Sequence[bool], measure: Measure
) -> Figure:
    """Draw the result of each run against its value of a setting, and the mean of each value.

    Numbers are on an axis, logarithmic if they span a factor of ten or more; other values have a column each.
    Results that are much worse than the others are drawn as arrows at the edge.
    """
    scale = _Scale.of(values)
    kept = [place for place, value in enumerate(values) if scale.has(value)]
    x = np.array([scale.place(values[i]) for i in kept])
    y = np.array(measure.scaled([results[i] for i in kept]))
    done = np.array([finished[i] for i in kept], dtype=bool)
    low, high = measure.limits(y, done)

    width = min(max(6.4, 1.2 + 0.8 * len(scale.values)), 16.0) if scale.kind == "columns" else 6.4
    figure = Figure(figsize=(width, 4.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    margin = max(0.07 * (high - low), 0.05 if measure.is_percentage else 0.005 * abs(high) or 1e-3)
    bottom, top = low - margin, high + margin
    if measure.is_percentage:
        top = min(top, 100 + margin / 2)
    axes.set_ylim(bottom, top)
    # where the results outside are marked
    arrow = bottom + 0.03 * (top - bottom) if measure.maximize else top - 0.03 * (top - bottom)
    sign, marker, direction = ("↓", "v", "below, down to") if measure.maximize else ("↑", "^", "above, up to")
    outside = (y < low) | (y > high)

    means = {place: statistics.fmean(y[done & (x == place)]) for place in sorted({*x[done]})}
    if not scale.numeric:
        for place, mean in means.items():
            axes.plot([place - 0.25, place + 0.25], [mean, mean], color=VERMILION, linewidth=2.5, zorder=2)
            shown = low <= mean <= high
            height, label = (
                mean if shown else arrow,
                measure.text(mean) if shown else f"{sign} {measure.text(mean)}",
            )
            axes.text(place + 0.29, height, label, color=VERMILION, fontsize=9, va="center")
    elif len(means) <= MAX_MEANS or done.sum() >= 2 * len(means):
        # A line through the single points of a search would be a zigzag.
        axes.plot([*means], [*means.values()], color=VERMILION, linewidth=1.5, zorder=2)

    for which, style in ((done, _FINISHED), (~done, _OTHERS)):
        axes.scatter(x[which & ~outside], y[which & ~outside], s=36, zorder=3, **style)
        beyond = which & outside
        axes.scatter(x[beyond], np.full(beyond.sum(), arrow), s=55, marker=marker, zorder=3, **style)

    scale.apply(axes, "x", width - 1.0)
    axes.set(xlabel=name, title=measure.title)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    entries = [_entry("finished run", **_FINISHED)] if done.any() else []
    if not done.all():
        entries.append(_entry("not finished", **_OTHERS))
    if outside.any():
        worst = measure.text(y.min() if measure.maximize else y.max())
        entries.append(_entry(f"{direction} {worst}", marker=marker, facecolor="0.8", edgecolor=GREY))
    if axes.lines:
        entries.append(Line2D([], [], color=VERMILION, linewidth=2, label="mean of finished runs"))
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), frameon=False, fontsize=9)
    return figure


def heat_map(
    names: tuple[str, str],
    rows: Sequence[Any],
    columns: Sequence[Any],
    results: Sequence[float],
    finished: Sequence[bool],
    measure: Measure,
) -> Figure:
    """Draw the mean result of each combination of two settings; blank where no run has finished.

    names: the settings of the rows and of the columns. The best mean is in bold.
    """
    down, across = (_Scale.of(values, as_columns=True) for values in (rows, columns))
    found: dict[tuple[int, int], list[float]] = {}
    for row, column, result, done in zip(rows, columns, measure.scaled(results), finished, strict=True):
        if done and down.has(row) and across.has(column):
            cell = int(down.place(row)), int(across.place(column))
            found.setdefault(cell, []).append(result)
    means = np.full((len(down.values), len(across.values)), np.nan)
    for cell, values in found.items():
        means[cell] = statistics.fmean(values)
    known = means[~np.isnan(means)]
    low, high = measure.limits(known, np.ones(known.shape, dtype=bool))
    best = (known.max() if measure.maximize else known.min()) if len(known) else None

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
            weight = "bold" if mean == best else "normal"
            color = "black" if light else "white"
            text = measure.text(mean)
            axes.text(column, row, text, ha="center", va="center", color=color, weight=weight, fontsize=9)
    across.apply(axes, "x", size[0] - 2.6)
    down.apply(axes, "y", math.inf)
    axes.set_xlim(-0.5, means.shape[1] - 0.5)
    # Numbers increase upwards, as on an axis; names are read from the top.
    axes.set_ylim(*((-0.5, means.shape[0] - 0.5) if down.numeric else (means.shape[0] - 0.5, -0.5)))
    axes.set_xticks(np.arange(means.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(means.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    several = any(len(values) > 1 for values in found.values())
    axes.set(xlabel=names[1], ylabel=names[0], title=f"{measure.title}, means" if several else measure.title)
    _color_bar(figure, axes, image, below=bool((known < low).any()), above=bool((known > high).any()))
    return figure


def plane(
    names: tuple[str, str],
    rows: Sequence[float | None],
    columns: Sequence[float | None],
    results: Sequence[float],
    finished: Sequence[bool],
    measure: Measure,
) -> Figure:
    """Draw each run as a point at its values of two numeric settings, coloured by its result.

    names: the settings of the vertical and of the horizontal axis. The best run has a ring.
    """
    up, across = _Scale.of(rows), _Scale.of(columns)
    kept = [
        i
        for i, (row, column) in enumerate(zip(rows, columns, strict=True))
        if up.has(row) and across.has(column)
    ]
    kept.sort(key=lambda i: results[i], reverse=not measure.maximize)  # the best on top
    x = np.array([across.place(columns[i]) for i in kept])
    y = np.array([up.place(rows[i]) for i in kept])
    z = np.array(measure.scaled([results[i] for i in kept]))
    done = np.array([finished[i] for i in kept], dtype=bool)
    low, high = measure.limits(z, done)

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
        entries.append(_entry(f"best: {measure.text(z[done][-1])}", size=11, **_RING))
    if not done.all():
        entries.append(_entry("not finished", **_OTHERS))
    across.apply(axes, "x", 5.2)
    up.apply(axes, "y", math.inf)
    axes.set(xlabel=names[1], ylabel=names[0], title=measure.title)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=entries, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    _color_bar(figure, axes, points, below=bool((z[done] < low).any()), above=bool((z[done] > high).any()))
    return figure


_FINISHED: dict[str, Any] = {"facecolor": BLUE, "edgecolor": "white", "linewidth": 0.5, "alpha": 0.75}
_OTHERS: dict[str, Any] = {"facecolor": "none", "edgecolor": GREY, "linewidth": 1.0}
_RING: dict[str, Any] = {"facecolor": "none", "edgecolor": VERMILION, "linewidth": 2.0}


@dataclass(frozen=True)
class _Scale:
    """How the values of a setting are placed: linearly, by their logarithm, or in a column each."""

    values: Sequence[Any]  # distinct, in order
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
        # 0, 1e-5 and 1e-2 would overlap; they get a column each.
        crowded = len(numbers) <= MAX_TICKS and min(gaps, default=span) < 0.02 * span
        return cls(numbers, True, "columns" if crowded else "linear")

    def has(self, value: Any) -> bool:
        """Return whether a run with this value can be drawn."""
        return not (self.numeric and value is None)

    def place(self, value: Any) -> float:
        if self.kind != "columns":
            return float(value)
        return self.values.index(value if self.numeric else _text(value))

    def apply(self, axes: Axes, which: Literal["x", "y"], inches: float) -> None:
        """Set the scale, limits and ticks of an axis of `axes` that is so many inches long."""
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
        """Return whether each value can have its own tick."""
        if len(labels) > MAX_TICKS or max(map(len, labels)) > 7:
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


def _entry(label: str, marker: str = "o", size: float = 6, **style: Any) -> Line2D:
    """Return a point for the legend in the style of a scatter plot."""
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


def _color_bar(figure: Figure, axes: Axes, mapped: Any, below: bool, above: bool) -> None:
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max"}.get(
        (below, above), "both"
    )
    bar = figure.colorbar(mapped, ax=axes, extend=extend)
    bar.ax.spines[:].set_visible(False)
    bar.outline.set_visible(False)
