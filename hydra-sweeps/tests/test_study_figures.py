"""The plots of a search."""

import warnings
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from PIL import Image

from hydra_sweeps import study_figures


def make(trials: int, objectives: tuple[str, ...] = ("val/acc",), pruned: bool = False) -> optuna.Study:
    directions = [
        StudyDirection.MINIMIZE if name == "seconds" else StudyDirection.MAXIMIZE for name in objectives
    ]
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.RandomSampler(seed=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(list(objectives))
    for index in range(trials):
        trial = study.ask()
        optimizer = trial.suggest_categorical("optim", ["sgd", "adam"])
        rate = trial.suggest_float("optim.lr", 1e-4, 1e-1, log=True)
        size = trial.suggest_int("data.batch_size", 32, 256, step=32)
        if optimizer == "sgd":
            trial.suggest_float("optim.momentum", 0.5, 0.99)
        if pruned:
            trial.report(rate, 1)
            if index % 3 == 2:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                continue
        study.tell(trial, [rate, 1000.0 / size][: len(objectives)])
    return study


def names(paths: list[Path]) -> set[str]:
    return {path.name.removeprefix("study_").removesuffix(".png") for path in paths}


def test_a_search_has_plots(tmp_path: Path) -> None:
    paths = study_figures.write(make(8), tmp_path)
    assert names(paths) == {"history", "importance", "parallel", "slice"}
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}
    for path in paths:
        with Image.open(path) as image:
            assert image.width > 400 and image.height > 200


def test_a_pruned_search_has_a_plot_by_epoch(tmp_path: Path) -> None:
    assert "intermediate_values" in names(study_figures.write(make(8, pruned=True), tmp_path))


def test_several_objectives_have_a_pareto_front(tmp_path: Path) -> None:
    paths = study_figures.write(make(8, ("val/acc", "seconds")), tmp_path)
    each = {f"{plot}_{of}" for plot in ("importance", "parallel", "slice") for of in ("val-acc", "seconds")}
    assert names(paths) == {"pareto_front"} | each


@pytest.mark.parametrize("trials", [0, 1])
def test_a_search_with_fewer_than_two_results_has_no_plots(trials: int, tmp_path: Path) -> None:
    assert study_figures.write(make(trials), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_plots_that_cannot_be_drawn_are_omitted(tmp_path: Path) -> None:
    study = optuna.create_study()
    for value in (1.0, 1.0, 1.0):  # with one parameter of one value, and nothing that differs
        trial = study.ask()
        trial.suggest_categorical("optim", ["sgd"])
        study.tell(trial, value)
    assert "history" in names(study_figures.write(study, tmp_path))
