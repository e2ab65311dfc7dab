"""The TensorBoard events of a run, in the run's own folder."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.plugins.hparams import plugin_data_pb2
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.utils.tensorboard import summary

# TensorBoard opens the HPARAMS tab with five columns: first those marked as differing, then by name.
# These are marked as not differing, so that network, optimizer, loss, learning rate and the overrides
# of the command line come first.
SHOWN_LAST = ("scheduler", "data", "batch_size", "max_epochs", "seed")

# published without types
_hparams: Callable[[dict[str, Any], dict[str, Any]], tuple[Any, Any, Any]] = summary.hparams


class RunLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger, writing into the run folder itself, with a correct HPARAMS tab.

    Lightning writes the settings once, with a placeholder metric. Here they are written when the run
    starts, with `hparams_metrics` (tags of scalars) as further columns of the HPARAMS tab, and the session
    ends when the run has succeeded. `first_epoch` is above 1 in a resumed run: what an earlier process
    logged from that epoch on is dropped.
    """

    def __init__(
        self,
        run_dir: str | Path,
        first_epoch: int = 1,
        hparams_metrics: Sequence[str] = ("val/acc", "test/acc", "test/loss"),
    ) -> None:
        self.hparams_metrics = list(hparams_metrics)
        # TensorBoard drops every value, by epoch or by step, whose step is `purge_step` or later. A run that
        # was interrupted in its first epoch starts again, with everything.
        self.purge_step: int | None = None
        if any(Path(run_dir).glob("events.out.tfevents.*")):
            self.purge_step = None
        super().__init__(run_dir, name="", version="", default_hp_metric=False, purge_step=self.purge_step)

    @rank_zero_only
    def log_settings(self, hparams: Mapping[str, Any], config: str) -> None:
        """Write the settings: `hparams` for the HPARAMS tab, the whole `config` (YAML) as text."""
        values = {k: v if isinstance(v, int | float) else str(v) for k, v in hparams.items()}
        experiment, start, _ = _hparams(values, dict.fromkeys(self.hparams_metrics, 0))
        # torch does not write the order of the columns
        carrier = experiment.value[0].metadata.plugin_data
        data = plugin_data_pb2.HParamsPluginData.FromString(carrier.content)
        for info in data.experiment.hparam_infos:
            info.differs = info.name not in SHOWN_LAST
        carrier.content = data.SerializeToString()
        self._write(experiment)
        self._write(start)
        self.experiment.add_text("config", "    " + config.replace("\n", "\n    "))

    @rank_zero_only
    def restore_step_metrics(self, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Write again the points (global step, metrics) that `purge_step` has dropped."""
        for step, metrics in points:
            if self.purge_step is not None and step >= self.purge_step:
                self.log_metrics(metrics, step)

    @rank_zero_only
    def log_network_graph(self, network: nn.Module, images: Tensor) -> None:
        """Write the graph of `network`, traced with `images` (B, C, H, W)."""
        with warnings.catch_warnings():
            # SummaryWriter.add_graph is built on torch.jit.trace, which torch 2.14 deprecates
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)
            # tracing does not record checks of the images' shape, which the graph need not show
            warnings.filterwarnings("ignore", category=TracerWarning)
            self.experiment.add_graph(network, images)

    @rank_zero_only
    def save(self) -> None:
        """Flush the events to disk; the run folder holds the settings in `.hydra/`."""
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush the events to disk after each fit and test; `close` ends the run."""
        self.experiment.flush()

    @rank_zero_only
    def close(self) -> None:
        """Mark the run as successful for the HPARAMS tab and close the file.

        A failed or interrupted run is not marked: it can be resumed, and TensorBoard keeps the first end
        that it reads.
        """
        _, _, end = _hparams({}, {})
        self._write(end)
        self.experiment.close()

    def _write(self, summary: Any) -> None:
        self.experiment._get_file_writer().add_summary(summary)
