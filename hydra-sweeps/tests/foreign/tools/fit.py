"""An app that knows nothing of sweeps: in a subfolder, with its own config folder; it returns a number."""

import os
import signal
import sys
import time

import hydra
from omegaconf import DictConfig

from hydra_sweeps import current_trial


@hydra.main(version_base=None, config_path="settings", config_name="large")
def fit(config: DictConfig) -> float:
    if config.problem == "error":
        raise ValueError("wanted")
    if config.problem == "exit":
        sys.exit("a reason")
    if config.problem == "hang" and not os.path.exists("go"):
        time.sleep(60)
    os.environ["LEFT_BEHIND"] = os.environ.get("LEFT_BEHIND", "") + "x"
    assert os.environ["LEFT_BEHIND"] == "x"
    trial = current_trial()  # the one thing that pruning needs
    loss = 0.0
    for epoch in range(1, config.epochs + 1):
        loss = (config.model.width - 3) ** 2 + 1 / epoch
        if trial is not None and trial.report(loss, epoch):
            break
    if config.problem == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return loss


fit()  # without a guard for imports
