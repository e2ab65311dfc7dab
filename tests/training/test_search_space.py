"""The settings that a search tries with each optimizer."""

import optuna
import pytest

from mnist_cnn.training.search_space import by_optimizer
from tests.runs import compose_train


@pytest.mark.parametrize(
    ("optim", "typed", "suggested"),
    [
        ("sgd", [], {"optim.lr", "optim.momentum"}),
        ("adam", [], {"optim.lr", "optim.weight_decay"}),
        ("rmsprop", [], {"optim.lr", "optim.alpha"}),
        ("adamw", ["optim.lr=0.1"], {"optim.weight_decay"}),
    ],
)
def test_settings_of_the_optimizer_are_suggested_unless_they_are_typed(
    optim: str, typed: list[str], suggested: set[str]
) -> None:
    choices = optuna.distributions.CategoricalDistribution([optim])
    trial = optuna.create_study().ask({"optim": choices})
    by_optimizer(compose_train(*typed), trial)
    assert trial.params.keys() == {"optim", *suggested}
    compose_train(*(f"{key}={value}" for key, value in trial.params.items()))  # the optimizer has them
