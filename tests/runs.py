"""What the tests of the commands ask of the folders and processes that a command leaves."""

from pathlib import Path

import psutil
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CPU = "trainer.accelerator=cpu"
SHORT = (CPU, "model=cnnnet", "trainer.limit_train_batches=12", "trainer.limit_val_batches=1")


def only_run(folder: Path, kind: str = "runs") -> Path:
    (found,) = (folder / "logs" / kind).iterdir()
    return found


def jobs_of(sweep: Path) -> list[Path]:
    """The folders of a sweep's jobs, in the order of their numbers."""
    folders = [path.parent for path in sweep.glob("*/.hydra")]
    return sorted(folders, key=lambda folder: int(folder.name.split("_")[0]))


def weights(run_dir: Path, name: str = "last") -> torch.Tensor:
    state = torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
    return torch.cat([value.flatten() for value in state.values()])


def scalars(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run_dir)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def processes_of(folder: Path) -> list[str]:
    """The command lines of the processes that were started for runs in `folder`."""
    listed = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [line for line in listed if str(folder) in line and "train.py" in line]
