"""Optuna's plots of a search."""

import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import optuna
from matplotlib import pyplot as plt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from hydra_sweeps.figures import save

# One of Optuna's plots, and a function that arranges its Axes.
Plot: TypeAlias = tuple[Callable[[], Any], Callable[[list[Axes], Figure], None]]

log = logging.getLogger(__name__)


def write(study: optuna.Study, folder: Path) -> list[Path]:
    """Draw a study into PNG files in `folder`, and return their paths.

    Plots for which the study is too small are omitted.
    """
    finished = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if len(finished) < 2:
        return []
    names = study.metric_names or [f"objective {index}" for index in range(len(study.directions))]
    drawn: dict[str, Plot] = {}
    if len(names) == 1:
        history = partial(plots.plot_optimization_history, study, target_name=names[0])
        drawn["history"] = history, _history
        if any(trial.intermediate_values for trial in finished):
            shown = partial(_intermediate_values, metric=names[0])
            drawn["intermediate_values"] = partial(plots.plot_intermediate_values, study), shown
    else:
        drawn["pareto_front"] = partial(plots.plot_pareto_front, study, target_names=names), _pareto_front
    for index, name in enumerate(names):
        of = "" if len(names) == 1 else "_" + name.replace("/", "-")
        high_is_good = study.directions[index] == StudyDirection.MAXIMIZE
        value = partial(_value, index=index)
        # The only evaluator without scikit-learn; it explains low values.
        importance = partial(
            plots.plot_param_importances,
            study,
            evaluator=PedAnovaImportanceEvaluator(),
            target=partial(_value, index=index, sign=-1 if high_is_good else 1),
            target_name=name,
        )
        drawn[f"importance{of}"] = importance, partial(_importance, metric=name)
        parallel = partial(plots.plot_parallel_coordinate, study, target=value, target_name=name)
        drawn[f"parallel{of}"] = parallel, partial(_parallel, high_is_good=high_is_good)
        drawn[f"slice{of}"] = partial(plots.plot_slice, study, target=value, target_name=name), _slice

    plt.switch_backend("agg")  # without windows
    paths = {folder / f"study_{name}.png": plot for name, plot in drawn.items()}
    return [path for path, plot in paths.items() if _saved(plot, path)]


def _value(trial: FrozenTrial, index: int, sign: int = 1) -> float:
    return sign * float(trial.values[index])


def _saved(plot: Plot, path: Path) -> bool:
    """Draw a plot into a file, unless it is empty or Optuna cannot draw it."""
    draw, arrange = plot
    with rc_context({"savefig.bbox": "tight", "savefig.dpi": 120}), warnings.catch_warnings():
        # Optuna calls all its matplotlib plots experimental.
        warnings.simplefilter("ignore", ExperimentalWarning)
        # The axis of a parameter with a single value.
        warnings.filterwarnings("ignore", message="Attempting to set identical low and high")
        # The sign of the target takes care of this.
        warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes")
        # With few trials importances are rough, but equal ones for all parameters mean nothing.
        warnings.filterwarnings("ignore", message="Some regimes for parameter")
        warnings.filterwarnings("error", message=".*Parameter importances will be equal")
        try:
            axes = list(np.ravel(draw()))
            if not any(one.has_data() for one in axes):
                return False
            figure = axes[0].figure
            arrange(axes, figure)
            save(figure, path)
        except (
            ValueError,
            RuntimeError,
            UserWarning,
        ) as error:  # too few trials, or all values are equal
            log.debug(f"{path.name} is omitted: {error}")
            return False
        finally:
            plt.close("all")
    return True


def _history(axes: list[Axes], figure: Figure) -> None:
    figure.set_size_inches(8, 4.5)
    axes[0].set_title("Search by trial")
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))


def _pareto_front(axes: list[Axes], figure: Figure) -> None:
    figure.set_size_inches(8, 5)
    axes[0].set_title("Pareto front")


def _intermediate_values(axes: list[Axes], figure: Figure, metric: str) -> None:
    figure.set_size_inches(8, 4.5)
    axes[0].set(title="Trials by epoch; the short ones were pruned", xlabel="Epoch", ylabel=metric)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    legend = axes[0].get_legend()
    if legend is not None:  # more than ten colours cannot be told apart
        if len(legend.get_texts()) > 10:
            legend.remove()
        else:
            legend.set_loc("upper left")


def _importance(axes: list[Axes], figure: Figure, metric: str) -> None:
    bars = len(axes[0].get_yticks())
    figure.set_size_inches(7, 1.2 + 0.45 * bars)
    axes[0].set(xlabel="Importance", ylabel="")
    axes[0].set_title(f"Importance for {metric}", loc="left")
    axes[0].set_xlim(0, 1.1 * axes[0].get_xlim()[1])  # room for the number at the longest bar
    legend = axes[0].get_legend()
    if legend is not None:
        legend.remove()


def _parallel(axes: list[Axes], figure: Figure, high_is_good: bool) -> None:
    labels = axes[0].get_xticklabels()
    figure.set_size_inches(2 + 1.6 * len(labels), 4.5)
    axes[0].set_title("Trials by parameter; the best are the darkest", y=1.03)
    axes[0].tick_params(axis="x", labelrotation=0, pad=10)
    for lines in axes[0].collections:
        lines.set_cmap("Blues" if high_is_good else "Blues_r")
    for other in figure.axes[1:]:
        for label in other.get_yticklabels():  # lines run behind them
            label.set_bbox({"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1})


def _slice(axes: list[Axes], figure: Figure) -> None:
    figure.set_size_inches(2 + 2.4 * len(axes), 4)
    figure.suptitle("Trials by each parameter; the latest are the darkest", y=0.98)
    for one in axes:
        one.xaxis.set_minor_formatter(NullFormatter())  # they overlap on short log axes
        names = [label.get_text() for label in one.get_xticklabels()]
        if any(name.startswith("'") for name in names):
            one.set_xticks(one.get_xticks(), [name.strip("'") for name in names], rotation=20)
            one.set_xlim(-0.5, len(names) - 0.5)
