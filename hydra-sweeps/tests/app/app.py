"""A Hydra app to test sweeps on: minimizes (x - target)² by gradient descent, without torch."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hydra_sweeps import HISTORY, METRICS, RESOLVED, current_trial
from hydra_sweeps.files import atomic_write, write_json, write_yaml


class Stopped(BaseException):
    """How an app may end when it was asked to."""

    exit_code = 128 + signal.SIGHUP


@hydra.main(version_base="1.3", config_path="conf", config_name="app")
def main(config: DictConfig) -> float:
    folder = Path(HydraConfig.get().runtime.output_dir)
    history = []
    if config.resume and (folder / RESOLVED).is_file():
        config = OmegaConf.load(folder / RESOLVED)  # type: ignore[assignment]
        history = json.loads((folder / HISTORY).read_text()) if (folder / HISTORY).is_file() else []
        print(f"resumed after epoch {len(history)}", flush=True)
    else:
        write_yaml(folder / RESOLVED, config, resolve=True)
    if config.fail == "error":
        raise ValueError("wanted")
    if config.fail == "exit":
        sys.exit("a reason")
    if config.fail == "stop":
        raise Stopped
    trial, status = current_trial(), "finished"
    x = history[-1]["x"] if history else float(config.seed)
    for epoch in range(len(history) + 1, config.epochs + 1):
        x -= config.lr * 2 * (x - config.target)
        loss = (x - config.target) ** 2
        history.append({"epoch": epoch, "val/loss": loss, "x": x})
        with atomic_write(folder / HISTORY) as file:
            file.write_text(json.dumps(history))
        print(f"epoch {epoch}", flush=True)
        time.sleep(config.sleep)
        if config.fail == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if trial is not None and trial.report(loss, epoch) and epoch != config.epochs:
            status = "pruned"
            break
    metrics = {"val/loss": loss, "epochs": epoch, "x": x, "status": status, "seconds": config.lr}
    metrics["threads"] = os.environ.get("OMP_NUM_THREADS", "")
    write_json(folder / METRICS, metrics)
    return loss


if __name__ == "__main__":
    main()
