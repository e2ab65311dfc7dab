"""What the tests of the commands read from the folders and processes of a run."""

import signal
from pathlib import Path
from typing import Any

import psutil
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_cnn.app.paths import CONF
from mnist_cnn.app.start import register_resolvers

CPU = "trainer.accelerator=cpu"
# Without the figures during training, and on few images, which saves seconds a run.
SHORT = (
    CPU,
    "model=cnnnet",
    "callbacks=none",
    "trainer.limit_train_batches=12",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=2",
)
ALL_TEST_IMAGES = "trainer.limit_test_batches=null"  # after SHORT
SMOKE = (CPU, "model=cnnnet", "callbacks=none", "debug=smoke")


def only_run(folder: Path, kind: str = "runs") -> Path:
    """Return the folder of the only run (or sweep, or evaluation) below `folder`."""
    (found,) = (folder / "logs" / kind).iterdir()
    return found


def jobs_of(sweep: Path) -> list[Path]:
    """Return the folders of the jobs of a sweep, in the order of their numbers."""
    folders = [path.parent for path in sweep.glob("*/.hydra")]
    return sorted(folders, key=lambda folder: int(folder.name.split("_")[0]))


def weights(run_dir: Path, name: str = "last") -> torch.Tensor:
    """Return all weights in a checkpoint of a run as one vector."""
    state = torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
    return torch.cat([value.flatten() for value in state.values()])


def scalars(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the (step, value) pairs of each TensorBoard tag of a run."""
    events = EventAccumulator(str(run_dir)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def allow_interrupts() -> None:
    """Let a process that is started take SIGINT, which may be ignored by inheritance, as under nohup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of the processes of runs in `folder`."""
    listed = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [line for line in listed if str(folder) in line and "train.py" in line]


def compose_train(*overrides: str) -> DictConfig:
    """Return the config that Hydra composes for train.py, of a job in the folder /run."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=list(overrides), return_hydra_config=True)
    with open_dict(config):
        config.hydra.runtime.update({"output_dir": "/run", "cwd": "/"})
    HydraConfig.instance().set_config(config)
    return config


def settings_of(config: DictConfig) -> dict[str, Any]:
    """Return the settings of a composed config with nothing left to interpolate."""
    settings = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]), resolve=True
    )
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}
