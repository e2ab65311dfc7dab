"""Settings that are searched only where others make them matter."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Trial

# Lowest and highest learning rate that are worth a try.
_LEARNING_RATES = {
    "sgd": (1e-3, 0.3),
    "nesterov": (1e-3, 0.3),
    "adam": (1e-4, 1e-2),
    "adamw": (1e-4, 1e-2),
    "rmsprop": (1e-4, 1e-2),
}


def by_optimizer(config: Any, trial: "Trial") -> None:
    """Suggest the learning rate in the range of the trial's optimizer, and what only that optimizer has.

    An example of `hydra.sweeper.conditional`, of which you can write your own: any function of the
    settings without the swept ones and an Optuna trial, which has those in `trial.params`. What it
    suggests is set under the name it is suggested by. Use it as

        python train.py -m hydra/sweeper=optuna optim=sgd,adam,rmsprop \\
            hydra.sweeper.conditional=mnist_cnn.sweeps.conditional.by_optimizer

    What is swept on the command line is left as it was chosen.
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
