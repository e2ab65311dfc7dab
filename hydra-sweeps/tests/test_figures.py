"""The figures of a sweep: points, means, scales and texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hydra_sweeps.report.figures import Results, by_setting, heat_map

OPTIMS = ["sgd", "adam", "sgd", "adam"]
ACCURACIES = [0.97, 0.98, 0.975, 0.985]


def accuracies(values: Sequence[float], finished: Sequence[bool] | None = None) -> Results:
    done = [True] * len(values) if finished is None else finished
    return Results("val/acc", True, np.array(values), np.array(done))


def losses(values: Sequence[float]) -> Results:
    return Results("val/loss", False, np.array(values), np.array([True] * len(values)))


def render(figure: Figure) -> None:
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]


def points(axes: Axes) -> list[tuple[float, float]]:
    found = np.concatenate([np.asarray(collection.get_offsets()) for collection in axes.collections])
    return sorted((round(float(x), 6), round(float(y), 6)) for x, y in found)


def ticks(axes: Axes, which: str = "x") -> list[str]:
    return [label.get_text() for label in getattr(axes, f"get_{which}ticklabels")()]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


# --- by one setting ------------------------------------------------------------------------------


def test_names_have_columns_with_means() -> None:
    [axes] = by_setting("optim", OPTIMS, accuracies(ACCURACIES)).axes
    assert (axes.get_xlabel(), axes.get_title()) == ("optim", "val/acc in %")
    assert ticks(axes) == ["sgd", "adam"]
    assert points(axes) == [(0, 97.0), (0, 97.5), (1, 98.0), (1, 98.5)]
    assert texts(axes) == ["97.25", "98.25"]
    assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx([97.25, 98.25])


def test_few_numbers_have_columns_in_order() -> None:
    [axes] = by_setting("decay", [0.01, 0, None, 1e-5], accuracies(ACCURACIES)).axes
    assert ticks(axes) == ["–", "0", "1e-05", "0.01"]
    assert [x for x, _ in points(axes)] == [0, 1, 2, 3]


@pytest.mark.parametrize(("factor", "scale"), [(2.0, "log"), (1.1, "linear")])
def test_the_axis_of_many_numbers_is_logarithmic_from_a_factor_of_ten(factor: float, scale: str) -> None:
    rates = [0.001 * factor**n for n in range(8)]
    figure = by_setting("lr", rates, accuracies([0.98] * 8))
    [axes] = figure.axes
    assert axes.get_xscale() == scale
    assert [x for x, _ in points(axes)] == pytest.approx(rates, abs=1e-6)
    assert len(axes.lines) == 0
    render(figure)


def test_runs_without_a_number_have_no_place_on_an_axis() -> None:
    figure = by_setting("momentum", [None, *range(8)], accuracies([0.98] * 9))
    render(figure)
    assert figure.axes[0].get_xlim()[0] > -1


def test_unfinished_runs_are_hollow_and_not_in_means() -> None:
    figure = by_setting("optim", OPTIMS, accuracies([0.97, 0.98, 0.95, 0.96], [True, True, False, False]))
    [axes] = figure.axes
    assert texts(axes) == ["97.00", "98.00"]
    assert len(points(axes)) == 4
    hollow = [one for one in axes.collections if not len(one.get_facecolor())]
    assert [y for one in hollow for _, y in np.asarray(one.get_offsets())] == [95.0, 96.0]
    assert legend(figure) == ["finished", "not finished"]


def test_a_diverged_run_is_at_the_edge() -> None:
    [axes] = by_setting("lr", [1, 2, 3, 4, 5], accuracies([0.985, 0.988, 0.986, 0.098, 0.987])).axes
    assert axes.get_ylim()[0] > 98
    assert points(axes)[3] == (3, 98.5)
    assert axes.get_title() == "val/acc in %; the worst, 9.80, is at the edge"
    assert texts(axes)[3] == "9.80"


def test_a_worse_setting_is_inside_the_range() -> None:
    [axes] = by_setting("lr", [1, 2, 3, 4], accuracies([0.991, 0.99, 0.99, 0.975])).axes
    assert points(axes)[3] == (3, 97.5)


@pytest.mark.parametrize("done", [True, False])
def test_one_run_can_be_drawn(done: bool) -> None:
    render(by_setting("optim", ["sgd"], accuracies([0.0], [done])))


# --- by two settings -----------------------------------------------------------------------------


def test_cells_have_the_means_of_finished_runs() -> None:
    figure = heat_map(
        ("optim", "loss"),
        ["sgd", "sgd", "sgd", "adam", "adam"],
        ["ce", "ce", "mse", "ce", "mse"],
        accuracies([0.97, 0.98, 0.96, 0.99, 0.5], [True, True, True, True, False]),
    )
    axes = figure.axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("optim", "loss")
    assert (ticks(axes, "y"), ticks(axes)) == (["sgd", "adam"], ["ce", "mse"])
    cells = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "97.50", (0, 1): "96.00", (1, 0): "99.00"}
    assert [text.get_text() for text in axes.texts if text.get_weight() == "bold"] == ["99.00"]
    render(figure)


def test_colours_omit_diverged_runs() -> None:
    figure = heat_map(("a", "b"), list("xxyy"), list("pqpq"), accuracies([0.98, 0.985, 0.99, 0.1]))
    assert figure.axes[0].images[0].get_clim() == pytest.approx((98.0, 99.0))
    assert "10.00" in texts(figure.axes[0])


@pytest.mark.parametrize("done", [True, False])
def test_one_cell_or_none_can_be_drawn(done: bool) -> None:
    figure = heat_map(("a", "b"), ["x"], [None], accuracies([0.98], [done]))
    assert texts(figure.axes[0]) == (["98.00"] if done else [])
    render(figure)


def test_a_loss_is_shown_as_it_is_with_the_low_values_as_the_best() -> None:
    values: list[Any] = [1, 2, 3, 4]
    results = losses([0.1, 0.12, 0.11, 2.5])
    [axes] = by_setting("lr", values, results).axes
    assert axes.get_title() == "val/loss; the worst, 2.5, is at the edge"
    assert points(axes)[3] == (3, 0.12)
    figure = heat_map(("a", "b"), list("xxyy"), list("pqpq"), results)
    assert [text.get_text() for text in figure.axes[0].texts if text.get_weight() == "bold"] == ["0.1"]


def test_dollar_signs_are_no_formulas() -> None:
    values = [r"$\frac$", "$_$"]
    results = Results("$_$", True, np.array([0.5, 0.75]), np.array([True, True]))
    render(by_setting("$_$", values, results))
    render(heat_map(("$_$", "$^$"), values, values, results))
