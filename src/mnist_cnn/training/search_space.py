"""A search space in which some settings depend on others."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Trial

# Lowest and highest learning rate to try.
_LEARNING_RATES = {
    "sgd": (1e-3, 0.3),
    "nesterov": (1e-3, 0.3),
    "adam": (1e-4, 1e-2),
    "adamw": (1e-4, 1e-2),
    "rmsprop": (1e-4, 1e-2),
}


def by_optimizer(config: Any, trial: "Trial") -> None:
    """Suggest the learning rate and the other settings of the trial's optimizer.

    An example of `hydra.sweeper.conditional`, which names a function of the sweep's settings and an Optuna
    trial; `trial.params` has what is swept. Each suggestion sets the setting it is named after:

        python train.py -m hydra/sweeper=optuna optim=sgd,adam,rmsprop \\
            hydra.sweeper.conditional=mnist_cnn.training.search_space.by_optimizer

    Settings that are swept or set on the command line are not suggested.
    """
    optimizer = trial.params.get("optim") or config.hydra.runtime.choices.optim
    typed = {override.split("=")[0] for override in config.hydra.overrides.task}

    def suggest(name: str, low: float, high: float, log: bool = False) -> None:
        if name not in trial.params and name not in typed:
            trial.suggest_float(name, low, high, log=log)

    if optimizer in _LEARNING_RATES:
        suggest("optim.lr", *_LEARNING_RATES[optimizer], log=True)
    if optimizer in ("sgd", "nesterov"):
        suggest("optim.momentum", 0.5, 0.99)
    elif optimizer in ("adam", "adamw"):
        suggest("optim.weight_decay", 1e-6, 1e-1, log=True)
    elif optimizer == "rmsprop":
        suggest("optim.alpha", 0.9, 0.999)
