"""Weights & Biases: a resumed run continues its W&B run."""

import hashlib
import re
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from mnist_cnn.errors import UserError


class RunLogger(WandbLogger):
    """Lightning's W&B logger for the run in the folder `save_dir`; `options` are those of `WandbLogger`."""

    def __init__(self, save_dir: str, **options: Any) -> None:
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise UserError(
                "logger=wandb needs the package wandb. Install it with: pip install -e '.[wandb]'"
            ) from error
        if wandb.run is not None:  # of an earlier job of this process, which has failed
            wandb.finish(exit_code=1)
        folder = Path(save_dir)
        super().__init__(**({"name": folder.name, "save_dir": save_dir, "id": run_id(folder)} | options))

    @rank_zero_only
    def log_config(self, config: str) -> None:
        """Write the whole config (YAML) as text."""
        self.log_text("config", columns=["config"], data=[[config]])

    @rank_zero_only
    def close(self) -> None:
        """End the W&B run; a run that is not ended shows as crashed, and can be resumed."""
        self.experiment.finish()


def run_id(folder: Path) -> str:
    """Return the id of the W&B run of a run folder, which is the same after a resume."""
    folder = folder.absolute()
    name = re.sub(r"[/\\#?%:]", "-", f"{folder.parent.name}-{folder.name}")
    if len(name) > 100:  # W&B takes 128 characters
        name = f"{name[:90]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name
