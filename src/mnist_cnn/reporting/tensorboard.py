"""The TensorBoard events of a run, in the run's own folder."""

import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.hparams import plugin_data_pb2
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]
from torch.utils.tensorboard import summary

# TensorBoard opens the HPARAMS tab with five columns: first those marked as differing, then by name. These
# settings are marked as not differing, so that network, optimizer, loss, learning rate and the overrides of
# the command line come first.
SHOWN_LAST = ("scheduler", "data", "batch_size", "max_epochs", "seed")

# published without types
_hparams: Callable[[dict[str, Any], dict[str, Any]], tuple[Any, Any, Any]] = summary.hparams


class RunLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger, writing into the run folder `save_dir` itself.

    `hparams_metrics` are the tags of the scalars that the HPARAMS tab shows beside the settings. Lightning
    writes the settings once, with a placeholder metric; here they are written when the run starts, and the
    session ends when the run has succeeded. The CUSTOM SCALARS tab shows the training and the validation
    curve of a metric in one card.
    """

    def __init__(
        self, save_dir: str, hparams_metrics: Sequence[str] = ("val/acc", "test/acc", "test/loss")
    ) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False)
        self.hparams_metrics = list(hparams_metrics)

    @rank_zero_only
    def begin(self, step: int) -> None:
        """Drop what an earlier process of this run logged after global step `step`; if it is 0, everything.

        This writes what `SummaryWriter(purge_step=…)` writes: TensorBoard drops the values of that step and
        later ones.
        """
        purge_step = step + 1 if step else 0
        self.experiment.file_writer.add_event(
            Event(session_log=SessionLog(status=SessionLog.START)), purge_step
        )

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, metrics: Any = None, step: int | None = None
    ) -> None:
        """Write the settings for the HPARAMS tab, and the layout of the CUSTOM SCALARS tab."""
        settings = params if isinstance(params, dict) else vars(params)
        values = {k: v if isinstance(v, int | float) else str(v) for k, v in settings.items()}
        experiment, start, _ = _hparams(values, dict.fromkeys(self.hparams_metrics, 0))
        # torch does not write the order of the columns.
        carrier = experiment.value[0].metadata.plugin_data
        data = plugin_data_pb2.HParamsPluginData.FromString(carrier.content)
        for info in data.experiment.hparam_infos:
            info.differs = info.name not in SHOWN_LAST
        carrier.content = data.SerializeToString()
        self.experiment.file_writer.add_summary(experiment)
        self.experiment.file_writer.add_summary(start)

        names = dict.fromkeys(["loss", "acc", *(tag.partition("/")[2] for tag in self.hparams_metrics)])
        charts = {name: ["Multiline", [f"^(train|val)/{name}$"]] for name in names}
        steps = {"loss": ["Multiline", ["^train/loss_step$"]], "learning rate": ["Multiline", ["^train/lr$"]]}
        self.experiment.add_custom_scalars({"by epoch": charts, "by step": steps})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars, the "epoch" among the training curves: alone it would be the first card of all."""
        tagged = {"train/epoch" if name == "epoch" else name: value for name, value in metrics.items()}
        super().log_metrics(tagged, step)

    @rank_zero_only
    def log_config(self, config: str) -> None:
        """Write the whole config (YAML) as text."""
        self.experiment.add_text("config", "    " + config.replace("\n", "\n    "))

    @rank_zero_only
    def log_network_graph(self, network: nn.Module, images: Tensor) -> None:
        """Write the graph of `network`, traced with `images` (B, C, H, W)."""
        with warnings.catch_warnings():
            # SummaryWriter.add_graph is built on torch.jit.trace, which torch 2.14 deprecates.
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)
            # Tracing does not record checks of the images' shape, which the graph need not show.
            warnings.filterwarnings("ignore", category=TracerWarning)
            self.experiment.add_graph(network, images)

    @rank_zero_only
    def save(self) -> None:
        """Flush the events to disk. Lightning would write the settings to a file of its own, too."""
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
        self.experiment.file_writer.add_summary(end)
        self.experiment.close()
