"""Optuna's plots of a search."""

import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from matplotlib import pyplot as plt
from matplotlib import rc_context
from matplotlib.ticker import MaxNLocator
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from hydra_sweeps.figures import save

log = logging.getLogger(__name__)


def write(study: optuna.Study, folder: Path) -> list[Path]:
    """Draw a study into PNG files in `folder`, and return their paths.

    Plots for which the study is too small are omitted.
    """
    finished = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if len(finished) < 2:
        return []
    names = study.metric_names or [f"objective {index}" for index in range(len(study.directions))]
    drawn: dict[str, Callable[[], Any]] = {}
    if len(names) == 1:
        drawn["history"] = partial(plots.plot_optimization_history, study, target_name=names[0])
        if any(trial.intermediate_values for trial in finished):
            drawn["intermediate_values"] = partial(_intermediate_values, study, names[0])
    else:
        drawn["pareto_front"] = partial(plots.plot_pareto_front, study, target_names=names)
    for index, (name, direction) in enumerate(zip(names, study.directions, strict=True)):
        of, target = "", dict[str, Any](target_name=name)
        if len(names) > 1:
            of, target["target"] = "_" + name.replace("/", "-"), partial(_value, index=index)
        drawn[f"parallel{of}"] = partial(plots.plot_parallel_coordinate, study, **target)
        drawn[f"slice{of}"] = partial(plots.plot_slice, study, **target)
        # The only evaluator without scikit-learn; it explains low values.
        sign = -1 if direction == StudyDirection.MAXIMIZE else 1
        low_is_good = partial(_value, index=index, sign=sign)
        evaluator = PedAnovaImportanceEvaluator()
        drawn[f"importance{of}"] = partial(
            plots.plot_param_importances, study, evaluator, target=low_is_good, target_name=name
        )
    plt.switch_backend("agg")  # without windows
    paths = {folder / f"study_{name}.png": draw for name, draw in drawn.items()}
    return [path for path, draw in paths.items() if _saved(draw, path)]


def _value(trial: FrozenTrial, index: int, sign: int = 1) -> float:
    return sign * float(trial.values[index])


def _intermediate_values(study: optuna.Study, metric: str) -> Any:
    axes = plots.plot_intermediate_values(study)
    axes.set(title="Trials by epoch; the short ones were pruned", xlabel="Epoch", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend = axes.get_legend()
    if legend is not None and len(legend.get_texts()) > 10:  # more colours than can be told apart
        legend.remove()
    return axes


def _saved(draw: Callable[[], Any], path: Path) -> bool:
    """Draw a plot into a file, unless it is empty or Optuna cannot draw it."""
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
            axes = np.ravel(draw())
            if not any(one.has_data() for one in axes):
                return False
            figure = axes[0].figure
            figure.set_size_inches(max(8.0, 2.4 * len(figure.axes)), 4.5)
            save(figure, path)
        except (ValueError, RuntimeError, UserWarning) as error:  # too few trials, or all values are equal
            log.debug(f"{path.name} is omitted: {error}")
            return False
        finally:
            plt.close("all")
    return True
