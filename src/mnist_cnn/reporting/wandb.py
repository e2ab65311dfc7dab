"""Weights & Biases: a resumed run continues its W&B run."""

import secrets
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from mnist_cnn.errors import needs_extra


class RunLogger(WandbLogger):
    """Lightning's W&B logger for the run in the folder `save_dir`; `options` are those of `WandbLogger`.

    The id of the W&B run is kept in the file `wandb_run` of the folder: folders of other machines, whose runs
    go to the same project, may have the same name.
    """

    def __init__(self, save_dir: str, **options: Any) -> None:
        with needs_extra("wandb", "logger=wandb"):
            import wandb
        if wandb.run is not None:  # of an earlier job of this process, which has failed
            wandb.finish(exit_code=1)
        self.id_file = Path(save_dir, "wandb_run")
        run_id = self.id_file.read_text() if self.id_file.exists() else secrets.token_hex(8)
        super().__init__(**({"name": Path(save_dir).name, "save_dir": save_dir, "id": run_id} | options))

    @rank_zero_only
    def begin(self, step: int) -> None:
        """Note the id, by which a resumed run continues this one."""
        self.id_file.parent.mkdir(parents=True, exist_ok=True)
        self.id_file.write_text(str(self.version))

    @rank_zero_only
    def log_config(self, config: str) -> None:
        """Write the whole config (YAML) as text."""
        self.log_text("config", columns=["config"], data=[[config]])

    @rank_zero_only
    def close(self) -> None:
        """End the W&B run; a run that is not ended shows as crashed, and can be resumed."""
        self.experiment.finish()
