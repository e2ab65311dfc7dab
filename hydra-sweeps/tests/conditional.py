"""Settings of a search that depend on others, as an app suggests them."""

from typing import Any

import optuna


def by_optimizer(config: Any, trial: optuna.Trial) -> None:
    """Suggest a learning rate whose range depends on the optimizer, and one more setting for each."""
    optim = trial.params.get("optim", config.optim)
    trial.suggest_float("optim.lr", 1e-4, 0.3 if optim == "sgd" else 0.01, log=True)
    if optim == "sgd":
        trial.suggest_float("optim.momentum", 0.0, 0.99)
    else:
        trial.suggest_float("optim.weight_decay", 1e-6, 1e-2, log=True)
