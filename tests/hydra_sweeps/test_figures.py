"""The figures of a sweep: points, scales, texts and colours."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from hydra_sweeps import figures
from hydra_sweeps.figures import Measure

by_setting = partial(figures.by_setting, measure=Measure("val/acc"))
heat_map = partial(figures.heat_map, measure=Measure("val/acc"))
plane = partial(figures.plane, measure=Measure("val/acc"))

OPTIMS = ["sgd", "adam", "sgd", "adam"]
ACCURACIES = [0.97, 0.98, 0.975, 0.985]


def points(axes: Axes) -> list[tuple[float, float]]:
    """Return the points of the runs, without those outside the range."""
    found = [c.get_offsets() for c in axes.collections if isinstance(c, PathCollection) and not is_arrow(c)]
    return sorted((round(float(x), 6), round(float(y), 6)) for x, y in np.concatenate(found))


def arrows(axes: Axes) -> list[float]:
    return [
        float(x)
        for c in axes.collections
        if isinstance(c, PathCollection) and is_arrow(c)
        for x, _ in np.asarray(c.get_offsets())
    ]


def is_arrow(collection: PathCollection) -> bool:
    return len(collection.get_paths()[0].vertices) == 4  # a triangle, closed


def render(figure: Figure) -> None:
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]


def ticks(axes: Axes, which: str = "x") -> list[str]:
    return [label.get_text() for label in getattr(axes, f"get_{which}ticklabels")()]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Return the pairs of texts that overlap."""
    render(figure)
    shown = [
        text
        for axes in figure.axes
        for text in [
            *axes.get_xticklabels(),
            *axes.get_yticklabels(),
            axes.title,
            axes.xaxis.label,
            *axes.texts,
        ]
        if text.get_text() and text.get_visible() and not text.get_rotation()
    ]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
    return [
        (one, other)
        for i, (one, box) in enumerate(boxes)
        for other, beside in boxes[i + 1 :]
        if box.overlaps(beside)
    ]


# --- by one setting ------------------------------------------------------------------------------


def test_names_have_columns_with_means() -> None:
    figure = by_setting("optim", OPTIMS, ACCURACIES, [True] * 4)
    [axes] = figure.axes
    assert axes.get_xlabel() == "optim"
    assert "%" in axes.get_title()
    assert ticks(axes) == ["sgd", "adam"]
    assert points(axes) == [(0, 97.0), (0, 97.5), (1, 98.0), (1, 98.5)]
    assert texts(axes) == ["97.25", "98.25"]
    assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx([97.25, 98.25])
    assert legend(figure) == ["finished run", "mean of finished runs"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.001, 0.01], "log"),
        ([1, 10], "log"),
        ([0.1, 0.9], "linear"),
        ([0.0, 10.0], "linear"),
        ([-1.0, 10.0], "linear"),
    ],
)
def test_the_axis_is_logarithmic_from_a_factor_of_ten(values: list[float], scale: str) -> None:
    [axes] = by_setting("lr", values, [0.9, 0.95], [True] * 2).axes
    assert axes.get_xscale() == scale
    assert points(axes) == [(values[0], 90.0), (values[1], 95.0)]


def test_means_of_numbers_are_connected() -> None:
    [axes] = by_setting("lr", [0.2, 0.1, 0.2, 0.1], ACCURACIES, [True] * 4).axes
    [line] = axes.lines
    assert list(line.get_xdata()) == [0.1, 0.2]
    assert list(line.get_ydata()) == pytest.approx([98.25, 97.25])
    assert ticks(axes) == ["0.1", "0.2"]


def test_the_points_of_a_search_are_not_connected() -> None:
    figure = by_setting(
        "lr", [0.001 * 1.5**n for n in range(13)], [0.9 + n / 200 for n in range(13)], [True] * 13
    )
    assert len(figure.axes[0].lines) == 0
    assert len(points(figure.axes[0])) == 13
    assert legend(figure) == ["finished run"]


def test_crowded_numbers_have_columns() -> None:
    [axes] = by_setting("decay", [0.01, 0, 1e-5, 1e-4], [0.98] * 4, [True] * 4).axes
    assert ticks(axes) == ["0", "1e-05", "0.0001", "0.01"]
    assert [x for x, _ in points(axes)] == [0, 1, 2, 3]


def test_unfinished_runs_are_hollow_and_not_in_means() -> None:
    figure = by_setting("optim", OPTIMS, [0.97, 0.98, 0.95, 0.96], [True, True, False, False])
    [axes] = figure.axes
    assert texts(axes) == ["97.00", "98.00"]
    assert len(points(axes)) == 4
    hollow = [c for c in axes.collections if isinstance(c, PathCollection) and not len(c.get_facecolor())]
    assert [y for c in hollow for _, y in np.asarray(c.get_offsets())] == [95.0, 96.0]
    assert "not finished" in legend(figure)


def test_a_diverged_run_is_an_arrow_at_the_edge() -> None:
    accuracies = [0.985, 0.988, 0.986, 0.098, 0.987]
    figure = by_setting("lr", [1, 2, 3, 4, 5], accuracies, [True] * 5)
    [axes] = figure.axes
    assert axes.get_ylim()[0] > 98
    assert arrows(axes) == [4]
    assert len(points(axes)) == 4
    assert "below, down to 9.80" in legend(figure)


def test_a_mean_outside_the_range_is_labelled_at_the_edge() -> None:
    [axes] = by_setting("optim", ["sgd", "sgd", "adam", "adam"], [0.98, 0.1, 0.99, 0.985], [True] * 4).axes
    assert texts(axes) == ["↓ 54.00", "98.75"]
    assert axes.texts[0].get_position()[1] > axes.get_ylim()[0]


def test_a_worse_setting_is_inside_the_range() -> None:
    [axes] = by_setting("lr", [1, 2, 3, 4], [0.991, 0.99, 0.99, 0.975], [True] * 4).axes
    assert arrows(axes) == []
    assert axes.get_ylim()[0] < 97.5
    assert axes.get_ylim()[1] <= 100.1


def test_runs_without_a_number_are_omitted() -> None:
    [axes] = by_setting("momentum", [None, 0.9, 0.5], [0.98, 0.97, 0.96], [True] * 3).axes
    assert [x for x, _ in points(axes)] == [0.5, 0.9]
    [axes] = by_setting("precision", [None, "bf16"], [0.98, 0.97], [True] * 2).axes
    assert ticks(axes) == ["–", "bf16"]


@pytest.mark.parametrize("count", [2, 5, 12])
@pytest.mark.parametrize("name", ["v{}", "quite_a_long_name_{}"])
def test_names_do_not_overlap(count: int, name: str) -> None:
    values = [name.format(n) for n in range(count)]
    figure = by_setting("optim", values, [0.98 + n / 1000 for n in range(count)], [True] * count)
    assert overlapping(figure) == []


@pytest.mark.parametrize(
    "values",
    [
        [16, 32, 64, 128, 256, 512, 1024],
        [0.0, 0.5, 0.9, 0.95, 0.99],
        [1e-5 * 3**n for n in range(12)],
        [0.0001, 0.0001001, 0.5],
    ],
)
def test_numbers_do_not_overlap(values: list[float]) -> None:
    assert overlapping(by_setting("x", values, [0.98] * len(values), [True] * len(values))) == []


# --- by two settings -----------------------------------------------------------------------------


def heat(values: Any) -> Any:
    return values.axes[0].images[0].get_array()


def test_cells_have_the_means_of_finished_runs() -> None:
    figure = heat_map(
        ("optim", "loss"),
        ["sgd", "sgd", "sgd", "adam", "adam"],
        ["ce", "ce", "mse", "ce", "mse"],
        [0.97, 0.98, 0.96, 0.99, 0.5],
        [True, True, True, True, False],
    )
    axes = figure.axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("optim", "loss")
    assert (ticks(axes, "y"), ticks(axes)) == (["sgd", "adam"], ["ce", "mse"])
    cells = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "97.50", (0, 1): "96.00", (1, 0): "99.00"}
    assert heat(figure).mask.tolist() == [[False, False], [False, True]]
    assert [text.get_text() for text in axes.texts if text.get_weight() == "bold"] == ["99.00"]


def test_numbers_increase_upwards() -> None:
    figure = heat_map(("decay", "lr"), [0.2, 0.1], [10, 2], [0.9, 0.8], [True] * 2)
    axes = figure.axes[0]
    assert (ticks(axes, "y"), ticks(axes)) == (["0.1", "0.2"], ["2", "10"])
    low, high = axes.get_ylim()
    assert low < high


def test_colours_omit_diverged_runs() -> None:
    figure = heat_map(("a", "b"), list("xxyy"), list("pqpq"), [0.98, 0.985, 0.99, 0.1], [True] * 4)
    image = figure.axes[0].images[0]
    assert image.get_clim() == pytest.approx((98.0, 99.0))
    assert "10.00" in texts(figure.axes[0])


@pytest.mark.parametrize("done", [True, False])
def test_one_cell_or_none_can_be_drawn(done: bool) -> None:
    figure = heat_map(("a", "b"), ["x"], [1], [0.98], [done])
    assert texts(figure.axes[0]) == (["98.00"] if done else [])
    render(figure)


def test_cells_do_not_overlap() -> None:
    rows = [f"quite_a_long_name_{n}" for n in range(12) for _ in range(12)]
    columns = [1e-5 * 3.3**n for n in range(12)] * 12
    figure = heat_map(("a", "lr"), rows, columns, [0.98 + n / 1e4 for n in range(144)], [True] * 144)
    assert overlapping(figure) == []


def test_a_plane_shows_runs_as_coloured_points() -> None:
    lrs, sizes = [1e-4, 1e-2, 1e-3, 1e-1], [16, 48, 64, 32]
    figure = plane(("batch_size", "lr"), sizes, lrs, [0.97, 0.99, 0.98, 0.95], [True, True, True, False])
    axes = figure.axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("batch_size", "lr")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    hollow, coloured, ring = axes.collections
    assert np.asarray(hollow.get_offsets()).tolist() == [[1e-1, 32]]
    assert np.asarray(coloured.get_offsets()).tolist() == [[1e-4, 16], [1e-3, 64], [1e-2, 48]]
    assert list(coloured.get_array()) == pytest.approx([97, 98, 99])
    assert np.asarray(ring.get_offsets()).tolist() == [[1e-2, 48]]
    assert legend(figure) == ["best: 99.00", "not finished"]


def test_a_plane_without_finished_runs_has_no_best() -> None:
    figure = plane(("a", "b"), [1, None, 3], [1, 2, None], [0.9, 0.8, 0.7], [False] * 3)
    assert legend(figure) == ["not finished"]
    render(figure)


def test_a_loss_is_shown_as_it_is_with_the_low_values_as_the_best() -> None:
    loss = Measure("val/loss", maximize=False)
    losses = [0.1, 0.12, 0.11, 2.5]
    [axes] = figures.by_setting("lr", [1, 2, 3, 4], losses, [True] * 4, loss).axes
    assert axes.get_title() == "val/loss"
    assert arrows(axes) == [4]
    figure = figures.heat_map(("a", "b"), list("xxyy"), list("pqpq"), losses, [True] * 4, loss)
    assert [text.get_text() for text in figure.axes[0].texts if text.get_weight() == "bold"] == ["0.1"]
    figure = figures.plane(("a", "b"), [1, 2, 3, 4], [4, 3, 2, 1], losses, [True] * 4, loss)
    assert legend(figure) == ["best: 0.1"]
