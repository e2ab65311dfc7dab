"""The figures of a sweep: points, means, scales and texts."""

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hydra_sweeps.goal import Goal
from hydra_sweeps.report.figures import by_setting, heat_map

ACCURACY, LOSS = Goal({"val/acc": "maximize"}, None), Goal({"val/loss": "minimize"}, None)


def render(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    return figure


def points(axes: Axes) -> list[tuple[float, float]]:
    return sorted((float(x), float(y)) for x, y in np.asarray(axes.collections[0].get_offsets()))


def ticks(axes: Axes, which: str = "x") -> list[str]:
    return [label.get_text() for label in getattr(axes, f"get_{which}ticklabels")()]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_names_have_columns_with_means() -> None:
    scores = np.array([97.0, 98.0, 97.5, 98.5])
    [axes] = render(by_setting("optim", ["sgd", "adam", "sgd", "adam"], scores, ACCURACY)).axes
    assert (axes.get_xlabel(), axes.get_title()) == ("optim", "val/acc in %")
    assert ticks(axes) == ["sgd", "adam"]
    assert points(axes) == [(0, 97.0), (0, 97.5), (1, 98.0), (1, 98.5)]
    assert texts(axes) == ["mean 97.25", "mean 98.25"]


def test_few_numbers_have_columns_in_order() -> None:
    [axes] = by_setting("decay", [0.01, 0, None, 1e-5], np.array([97.0, 98, 99, 96]), ACCURACY).axes
    assert ticks(axes) == ["–", "0", "1e-05", "0.01"]
    assert [x for x, _ in points(axes)] == [0, 1, 2, 3]


@pytest.mark.parametrize(("factor", "scale"), [(2.0, "log"), (1.1, "linear")])
def test_the_axis_of_many_numbers_is_logarithmic_from_a_factor_of_ten(factor: float, scale: str) -> None:
    rates = [0.001 * factor**n for n in range(8)]
    [axes] = render(by_setting("lr", rates, np.full(8, 98.0), ACCURACY)).axes
    assert axes.get_xscale() == scale
    assert [x for x, _ in points(axes)] == pytest.approx(rates)


def test_runs_without_a_number_have_no_place_on_an_axis() -> None:
    figure = render(by_setting("momentum", [None, *range(8)], np.full(9, 98.0), ACCURACY))
    assert figure.axes[0].get_xlim()[0] > -1


def test_a_diverged_run_is_at_the_edge_with_its_own_mean() -> None:
    values = [1, 2, 3, 4, 5]
    [axes] = by_setting("lr", values, np.array([98.5, 98.8, 98.6, 9.8, 98.7]), ACCURACY).axes
    assert points(axes)[3] == (3, 98.5)
    assert texts(axes)[3] == "mean 9.8"
    [axes] = by_setting("lr", values, np.array([0.1, 0.12, 0.11, 2.5, 0.1]), LOSS).axes
    assert (points(axes)[3], axes.get_title()) == ((3, 0.12), "val/loss")
    [axes] = by_setting("lr", [1, 2, 3, 4], np.array([99.1, 99, 99, 97.5]), ACCURACY).axes
    assert points(axes)[3] == (3, 97.5)  # worse, but no outlier


def test_cells_have_means_and_outliers_no_colour_of_their_own() -> None:
    rows, columns = ["sgd", "sgd", "sgd", "adam", "adam"], ["ce", "ce", "mse", "ce", "mse"]
    scores = np.array([97.0, 98.0, 96.0, 99.0, 9.8])
    axes = render(heat_map(("optim", "loss"), rows, columns, scores, ACCURACY)).axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("optim", "loss")
    assert (ticks(axes, "y"), ticks(axes)) == (["sgd", "adam"], ["ce", "mse"])
    cells = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "97.5", (0, 1): "96", (1, 0): "99", (1, 1): "9.8"}
    assert axes.images[0].get_clim() == (96.0, 99.0)


def test_dollar_signs_are_no_formulas_and_one_run_can_be_drawn() -> None:
    values: list[Any] = [r"$\frac$", "$_$"]
    goal = Goal({"$_$": "maximize"}, None)
    render(by_setting("$_$", values, np.array([0.5, 0.75]), goal))
    render(heat_map(("$_$", "$^$"), values, values, np.array([0.5, 0.75]), goal))
    render(heat_map(("a", "b"), ["x"], [None], np.array([0.0]), goal))
