"""Weights & Biases: a resumed run continues its W&B run."""

import hashlib
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from mnist_cnn.errors import needs_extra


class RunLogger(WandbLogger):
    """Lightning's W&B logger for the run in the folder `save_dir`; `options` are those of `WandbLogger`."""

    def __init__(self, save_dir: str, **options: Any) -> None:
        with needs_extra("wandb", "logger=wandb"):
            import wandb
        if wandb.run is not None:  # of an earlier job of this process, which has failed
            wandb.finish(exit_code=1)
        folder = Path(save_dir).absolute()
        # The same after a resume. Jobs of different sweeps may have the same name.
        run_id = hashlib.sha256(f"{folder.parent.name}/{folder.name}".encode()).hexdigest()[:16]
        super().__init__(**({"name": folder.name, "save_dir": save_dir, "id": run_id} | options))

    @rank_zero_only
    def log_config(self, config: str) -> None:
        """Write the whole config (YAML) as text."""
        self.log_text("config", columns=["config"], data=[[config]])

    @rank_zero_only
    def close(self) -> None:
        """End the W&B run; a run that is not ended shows as crashed, and can be resumed."""
        self.experiment.finish()
