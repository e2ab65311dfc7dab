"""Everything that TensorBoard shows of a run, in the run's own folder."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from tensorboard.plugins.hparams import plugin_data_pb2
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.utils.tensorboard import summary

from mnist_cnn.data import ImageData
from mnist_cnn.errors import UserError
from mnist_cnn.reporting import figures
from mnist_cnn.training.classifier import Classifier

# The columns of the HPARAMS tab beside the settings; their values are the scalars of that name.
HPARAMS_METRICS = ("val/acc", "test/acc", "test/loss")

# The tab opens with five columns, of those that are said to differ and then by the alphabet. These are
# said not to, so that network, optimizer, loss, learning rate and what the command line set come first.
SHOWN_LAST = ("scheduler", "data", "batch_size", "max_epochs", "seed")

PICTURED = 12  # images in the row of predictions

# published without types
_hparams: Callable[[dict[str, Any], dict[str, Any]], tuple[Any, Any, Any]] = summary.hparams


class RunLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger with the run's folder as it is, and an HPARAMS tab that is true.

    Lightning would write the settings with a placeholder metric, once; here they are written when the
    run starts, and the session is closed when it has succeeded. `first_epoch` is above 1
    in a resumed run: what an earlier process logged from that epoch on is dropped.
    """

    def __init__(self, run_dir: str | Path, first_epoch: int = 1) -> None:
        purge_step = first_epoch if first_epoch > 1 else None
        super().__init__(run_dir, name="", version="", default_hp_metric=False, purge_step=purge_step)

    @rank_zero_only
    def log_settings(self, hparams: Mapping[str, Any], config: str) -> None:
        """Write the settings: `hparams` for the HPARAMS tab, the whole `config` (YAML) as text."""
        plain = {k: v if isinstance(v, int | float) else str(v) for k, v in hparams.items()}
        experiment, start, _ = _hparams(plain, dict.fromkeys(HPARAMS_METRICS, 0))
        # the order of the columns is not in what torch writes
        carrier = experiment.value[0].metadata.plugin_data
        data = plugin_data_pb2.HParamsPluginData.FromString(carrier.content)
        for info in data.experiment.hparam_infos:
            info.differs = info.name not in SHOWN_LAST
        carrier.content = data.SerializeToString()
        self._write(experiment)
        self._write(start)
        self.experiment.add_text("config", "    " + config.replace("\n", "\n    "))

    @rank_zero_only
    def log_figure(self, tag: str, figure: Figure, epoch: int) -> None:
        """Write a figure as an image."""
        self.experiment.add_image(tag, figures.to_image(figure), epoch, dataformats="HWC")

    @rank_zero_only
    def log_graph_of(self, network: nn.Module, images: Tensor) -> None:
        """Write the graph of `network` as it treats `images` (B, C, H, W)."""
        with warnings.catch_warnings():
            # SummaryWriter.add_graph is built on torch.jit.trace, which torch 2.14 deprecates
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)
            # tracing does not record the check of the images' shape, which the graph need not show
            warnings.filterwarnings("ignore", category=TracerWarning)
            self.experiment.add_graph(network, images)

    @rank_zero_only
    def save(self) -> None:
        """Put what was logged on the disk; the settings have their own file in the run's folder."""
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Put what was logged on the disk, after each fit and test; `close` ends the run."""
        self.experiment.flush()

    @rank_zero_only
    def close(self) -> None:
        """Write that the run succeeded, for the HPARAMS tab, and close the file.

        Of one that failed or was interrupted nothing is written: it can be resumed, and TensorBoard keeps
        the first end that it reads.
        """
        _, _, end = _hparams({}, {})
        self._write(end)
        self.experiment.close()

    def _write(self, summary: Any) -> None:
        self.experiment._get_file_writer().add_summary(summary)


class Pictures(L.Callback):
    """Shows how the network sees: at the start, every `every_n_epochs` epochs and at the end.

    Writes to TensorBoard the predictions for some validation images (training images where no
    validation split was made), the kernels of the first convolution, and the outputs of every layer
    for one image. Does nothing with other loggers.
    """

    def __init__(self, every_n_epochs: int) -> None:
        if every_n_epochs < 1:
            raise UserError(f"callbacks.pictures.every_n_epochs={every_n_epochs}: give 1 or more.")
        self.every_n_epochs = every_n_epochs

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 0:
            self._draw(trainer, pl_module, epoch=0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs:
            self._draw(trainer, pl_module, epoch)

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: int) -> None:
        if not isinstance(trainer.logger, RunLogger) or not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ImageData) and isinstance(pl_module, Classifier)
        dataset = data.val if data.val else data.train
        assert dataset is not None
        images, targets = dataset[:PICTURED]
        batch = data.normalize(images.to(pl_module.device))
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            outputs = layer_outputs(pl_module.network, batch[:1])
            scores = pl_module.scores(pl_module(batch)).cpu()
        confidence, predicted = scores.max(1)
        shown = confidence if pl_module.gives_probabilities else None
        convolutions = [m for m in pl_module.network.modules() if isinstance(m, nn.Conv2d)]
        logger = trainer.logger
        logger.log_figure(
            "predictions/validation" if data.val else "predictions/train",
            figures.predictions(images, targets, predicted, shown, data.classes),
            epoch,
        )
        if convolutions:
            kernels = figures.kernels(convolutions[0].weight.detach())
            logger.log_figure("kernels/first_convolution", kernels, epoch)
        logger.log_figure("feature_maps/layer_by_layer", figures.feature_maps(images[0], outputs), epoch)
        if epoch == 0:
            logger.log_graph_of(pl_module.network, batch[:1])


def layer_outputs(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return what each convolution and linear layer of `network` makes of one of `images` (1, C, H, W).

    The values are float32 on the CPU, of shape (C, H, W) or (F,), in the order of computation.
    """
    outputs: dict[str, Tensor] = {}
    hooks = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):

            def keep(module: nn.Module, args: Any, output: Tensor, name: str = name) -> None:
                outputs[name] = output[0].detach().float().cpu()

            hooks.append(layer.register_forward_hook(keep))
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs
