"""The results of a run: metrics.json, the console's last lines, and the figures of the test."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from hydra_sweeps import METRICS
from mnist_cnn.data import ImageData
from mnist_cnn.data.datamodule import Batch, rank_indices
from mnist_cnn.errors import UserError
from mnist_cnn.files import shown_path, write_json
from mnist_cnn.reporting import card, figures, loggers, scores
from mnist_cnn.reporting.epochs import Progress, log_detail
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.trainer import describe_device

log = logging.getLogger(__name__)


class LogitCollector(L.Callback):
    """Collects the `logits` (N, K) of all tested images, float32 on the CPU, in the data's order.

    Every rank gets all of them. They are empty if nothing was tested.
    """

    def __init__(self) -> None:
        self.logits = torch.empty(0)
        self._batches: list[Tensor] = []

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._batches.append(outputs)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        local = torch.cat(self._batches).cpu()
        self._batches.clear()
        parts: list[Any] = [local]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, local)
        total = sum(map(len, parts))
        self.logits = local.new_empty(total, local.shape[1])
        for rank, part in enumerate(parts):
            self.logits[list(rank_indices(total, rank, trainer.world_size))] = part


def collect(
    trainer: L.Trainer, classifier: Classifier, progress: Progress, tested: int, best_epoch: int, pruned: bool
) -> dict[str, Any]:
    """Return the content of `metrics.json`: the metrics of the chosen epoch and of the test, and run facts.

    `tested` is the number of test images. `epochs` counts completed epochs only, `steps` all optimizer
    steps. Raises `UserError` if no step was run, because the metrics would be those of an untrained network.
    """
    if trainer.global_step == 0:
        raise UserError(
            "No training step was run, so there is no result. Check trainer.limit_train_batches, "
            "trainer.max_epochs and trainer.max_time."
        )
    best = next((row for row in classifier.history if row["epoch"] == best_epoch), {})
    result = _of_split(best, "train") | _of_split(best, "val")
    if tested:
        result |= test_metrics(classifier, tested)
    return result | {
        "status": "pruned" if pruned else "finished",
        "epochs": trainer.current_epoch - progress.partial_epochs,
        "steps": trainer.global_step,
        "best_epoch": best_epoch,
        "images_per_second": round(progress.images_per_second, 1),
        "seconds": round(progress.elapsed, 1),
        "precision": trainer.precision,
        "device": describe_device(classifier.device),
        "devices": trainer.world_size,
    }


def test_metrics(classifier: Classifier, tested: int) -> dict[str, Any]:
    """Return the metrics of the test, and the number of images as `test/images`."""
    return _of_split(classifier.history[-1], "test") | {"test/images": tested}


def _of_split(row: Mapping[str, Any], split: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name.startswith(f"{split}/")}


@rank_zero_only
def report(
    run_dir: Path,
    classifier: Classifier,
    data: ImageData,
    logits: Tensor,
    metrics: Mapping[str, Any],
    run_loggers: Sequence[Logger],
) -> None:
    """Write `metrics.json`, the figures and, unless it was pruned, the model card of a run that has ended.

    Also print its results, and close its loggers; only the first rank does this. `logits` (N, K) are those of
    the first N test images, empty if nothing was tested. The figures also go to the loggers that take
    figures. A figure or card that fails is a warning.
    """
    # The loggers write the results of the test after metrics.json, which marks the run as finished.
    step, tested = metrics["steps"], _of_split(metrics, "test")
    if tested:
        values = {name: value for name, value in tested.items() if name != "test/images"}
        for logger in run_loggers:
            logger.log_metrics(values | {"epoch": classifier.current_epoch}, step)
    write_json(run_dir / METRICS, metrics)
    for logger in run_loggers:
        logger.save()
    split, name = ("val", "validation") if "val/loss" in metrics else ("train", "train")
    if f"{split}/loss" in metrics:
        log.info(f"best epoch: {metrics['best_epoch']}   {name} {scores.split_metrics(metrics, split)}")
    if metrics["status"] == "pruned":
        log.info(f"pruned after epoch {metrics['epochs']}: other trials were better at that epoch")
    elif tested:
        _log_test(tested)
    else:
        log.info("no test: trainer.limit_test_batches leaves no test images")

    with figures.warn_on_error("the figures of the test"):
        for tag, figure in _test_figures(classifier, data, logits).items():
            if tag == "visuals/predictions_test":
                figures.save(figure, run_dir / "predictions.png")
            loggers.log_figure(run_loggers, tag, figure, step)
    with figures.warn_on_error("the figure loss_curve.png"):
        figures.save(figures.loss_curve(classifier.history), run_dir / "loss_curve.png")
    if metrics["status"] == "finished":
        with figures.warn_on_error("checkpoints/README.md"):
            card.write(run_dir, classifier, data, logits, metrics)
    loggers.close(run_loggers)

    log_detail(f"run folder: {shown_path(run_dir)}")
    if any(isinstance(logger, TensorBoardLogger) for logger in run_loggers):
        log_detail(f"view: tensorboard --logdir {shown_path(run_dir)}")
        log_detail("all runs: make tensorboard")


def _test_figures(classifier: Classifier, data: ImageData, logits: Tensor) -> dict[str, Figure]:
    """Return the figures of the test by tag; none if nothing was tested."""
    if not len(logits):
        return {}
    images, targets = data.test[: len(logits)]
    confidence, predicted = classifier.scores(logits).max(1)
    counts = multiclass_confusion_matrix(predicted, targets, data.num_classes)
    percent = classifier.gives_probabilities
    return {
        "visuals/predictions_test": figures.predictions(
            images[:6], targets[:6], predicted[:6], confidence[:6], data.classes, percent
        ),
        "visuals/most_wrong": figures.most_wrong(
            images, targets, predicted, confidence, data.classes, percent
        ),
        "visuals/confusion_matrix": figures.confusion_matrix(counts, data.classes),
    }


def report_evaluation(run_dir: Path, classifier: Classifier, data: ImageData, logits: Tensor) -> None:
    """Write confusion_matrix.png and evaluation.json, and print the accuracy of each class."""
    metrics = test_metrics(classifier, len(logits))
    counts = multiclass_confusion_matrix(logits.argmax(1), data.test.targets[: len(logits)], data.num_classes)
    correct, total = counts.diagonal(), counts.sum(1)
    figures.save(figures.confusion_matrix(counts, data.classes), run_dir / "confusion_matrix.png")
    classes: list[dict[str, Any]] = [
        {"class": name, "correct": int(right), "images": int(images)}
        for name, right, images in zip(data.classes, correct, total, strict=True)
    ]
    parts = _accuracy_by_part(data, logits)
    write_json(
        run_dir / "evaluation.json", metrics | {"classes": classes} | ({"parts": parts} if parts else {})
    )

    width = max(map(len, data.classes))
    for row in classes:
        share = f"{row['correct'] / row['images']:.2%}" if row["images"] else "–"
        log.info(f"{row['class']:>{width}}  {share:>7}  {row['correct']:>5} of {row['images']:>5}")
    for name, accuracy in parts.items():
        log.info(f"{name:>{max(map(len, parts))}}  {accuracy:7.2%}")
    _log_test(metrics, ", all parts together" if parts else "")
    log.info(f"data: {data.name}, {data.source_label}")
    log.info(f"folder: {shown_path(run_dir)}")


def _accuracy_by_part(data: ImageData, logits: Tensor) -> dict[str, float]:
    """Return the accuracy in each part of the test images that the source names, and their mean."""
    names, right = data.source.parts, logits.argmax(1) == data.test.targets[: len(logits)]
    if not names or len(right) < len(data.test):
        return {}
    accuracies = right.view(len(names), -1).double().mean(1).tolist()
    by_name = dict(zip(names, accuracies, strict=True))
    corrupted = [value for name, value in by_name.items() if name != "clean"]
    return by_name | {"mean of the corruptions": sum(corrupted) / len(corrupted)}


def _log_test(metrics: Mapping[str, Any], which: str = "") -> None:
    for name, value in metrics.items():
        if name not in ("test/acc", "test/images"):
            log.info(f"{name.replace('/', ' ')}: {scores.metric(name, value)}")
    log.info(f"test accuracy: {metrics['test/acc']:.2%} of {metrics['test/images']:,} images{which}")
