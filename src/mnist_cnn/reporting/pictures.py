"""The callback that draws the network during training: predictions, kernels and feature maps."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from mnist_cnn.data import ImageData
from mnist_cnn.errors import UserError
from mnist_cnn.reporting import figures
from mnist_cnn.reporting.loggers import log_figure, takes_figures
from mnist_cnn.reporting.tensorboard import RunLogger
from mnist_cnn.training.classifier import Classifier

IMAGES = 12  # in the figure of predictions


class Pictures(L.Callback):
    """Logs figures at the start of training, every `every_n_epochs` epochs and at the end.

    They show the predictions for some validation images (training images if there is no validation split),
    the kernels of the first convolution, and the outputs of every layer for one image. The graph of the
    network is logged once. Nothing is drawn if no logger takes figures; a figure that fails is a warning.
    """

    def __init__(self, every_n_epochs: int) -> None:
        if every_n_epochs < 1:
            raise UserError(f"callbacks.pictures.every_n_epochs={every_n_epochs}: give 1 or more.")
        self.every_n_epochs = every_n_epochs

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0:
            self._log(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs:
            self._log(trainer, pl_module)

    def _log(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and any(map(takes_figures, trainer.loggers)):
            with figures.warn_on_error("the figures of the network"):
                _log_figures(trainer, pl_module)


def _log_figures(trainer: L.Trainer, classifier: L.LightningModule) -> None:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, ImageData) and isinstance(classifier, Classifier)
    part = "validation" if data.val else "train"
    images, targets = data.parts()[part][:IMAGES]
    batch = trainer.precision_plugin.convert_input(data.normalize(images.to(classifier.device)))
    modes = {module: module.training for module in classifier.modules()}
    classifier.eval()  # no dropout, no update of running means
    try:
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            outputs = layer_outputs(classifier.network, batch[:1])
            confidence, predicted = classifier.scores(classifier(batch)).cpu().max(1)
        if trainer.global_step == 0:
            for logger in trainer.loggers:
                if isinstance(logger, RunLogger):
                    logger.log_network_graph(classifier.network, batch[:1])
    finally:
        for module, mode in modes.items():
            module.training = mode
    # TensorBoard sorts its cards by tag: these come after the curves, train/ and val/.
    drawn = {
        f"visuals/predictions_{part}": figures.predictions(
            images, targets, predicted, confidence, data.classes, classifier.gives_probabilities
        )
    }
    convolutions = [m for m in classifier.network.modules() if isinstance(m, nn.Conv2d)]
    if convolutions:
        drawn["visuals/kernels"] = figures.kernels(convolutions[0].weight)
    drawn["visuals/feature_maps"] = figures.feature_maps(images[0], outputs)
    for tag, figure in drawn.items():
        log_figure(trainer.loggers, tag, figure, trainer.global_step)


def layer_outputs(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the outputs of each convolution and linear layer of `network` for the first of `images`.

    images: (N, C, H, W). The values are float32 on the CPU, of shape (C, H, W) or (F,), in the order of
    computation.
    """
    names = {
        layer: name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    outputs: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        if module in names:
            outputs[names[module]] = output[0].detach().float().cpu()

    with register_module_forward_hook(keep):
        network(images)
    return outputs
