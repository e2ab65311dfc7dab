"""What a run leaves: its predictions on the test images, its pictures and metrics.json."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from mnist_cnn.data import ImageData
from mnist_cnn.data.datamodule import Batch
from mnist_cnn.files import write_json
from mnist_cnn.reporting import figures
from mnist_cnn.reporting.progress import Progress
from mnist_cnn.reporting.tensorboard import RunLogger
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.trainer import describe_device

log = logging.getLogger(__name__)


class TestOutputs(L.Callback):
    """Keeps the `logits` (N, K) of all test images, in their order, on rank 0."""

    __test__ = False  # it is no test, whatever its name starts with

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
        mine = torch.cat(self._batches).cpu()
        self._batches.clear()
        shares: list[Any] = [mine]
        if trainer.world_size > 1:
            shares = [None] * trainer.world_size
            torch.distributed.all_gather_object(shares, mine)
        # Rank r of w has the images r, r + w, r + 2w, … (see rank_indices).
        self.logits = mine.new_empty(sum(map(len, shares)), mine.shape[1])
        for rank, share in enumerate(shares):
            self.logits[rank :: trainer.world_size] = share


def collect(
    trainer: L.Trainer, classifier: Classifier, progress: Progress, best_epoch: int, pruned: bool
) -> dict[str, Any]:
    """Return the run's result: the metrics of the chosen epoch, those of the test, and how it was got."""
    epochs = {int(row["epoch"]): row for row in classifier.history}
    result: dict[str, Any] = {
        name: value
        for name, value in epochs.get(best_epoch, {}).items()
        if name.startswith(("train/", "val/"))
    }
    result |= {name: value for name, value in classifier.history[-1].items() if name.startswith("test/")}
    return result | {
        "status": "pruned" if pruned else "finished",
        "epochs": trainer.current_epoch,
        "best_epoch": best_epoch,
        "images_per_second": round(progress.images_per_second, 1),
        "seconds": round(progress.elapsed, 1),
        "precision": trainer.precision,
        "device": describe_device(classifier.device),
        "devices": trainer.world_size,
    }


def report(
    run_dir: Path,
    classifier: Classifier,
    data: ImageData,
    logits: Tensor,
    metrics: Mapping[str, Any],
    logger: Logger | None,
) -> None:
    """Write an ended run's pictures and `metrics.json` into its folder, and say how it ended.

    `logits` (N, K) are those of the first N test images, none if the run was pruned. The pictures go to
    TensorBoard, too, where `logger` is for it.
    """
    tested = metrics["status"] == "finished"
    if tested:
        _picture_test(run_dir, classifier, data, logits, metrics, logger)
    if isinstance(logger, RunLogger):
        logger.close()
    figures.save(figures.loss_curve(classifier.history), run_dir / "loss_curve.png")
    write_json(run_dir / "metrics.json", metrics)

    if "val/acc" in metrics:
        log.info(f"best epoch: {metrics['best_epoch']}, validation accuracy {metrics['val/acc']:.2%}")
    if tested:
        _say_test(metrics)
    else:
        log.info(f"pruned after epoch {metrics['epochs']}: other trials were better by then")
    log.info(f"run folder: {shown_path(run_dir)}")
    if isinstance(logger, RunLogger):
        log.info(f"look at it: tensorboard --logdir {shown_path(run_dir)}   (all runs: make tensorboard)")


def _picture_test(
    run_dir: Path,
    classifier: Classifier,
    data: ImageData,
    logits: Tensor,
    metrics: Mapping[str, Any],
    logger: Logger | None,
) -> None:
    assert data.test is not None
    images, targets = data.test[: len(logits)]
    confidence, predicted = classifier.scores(logits).max(1)
    shown = confidence[:6] if classifier.gives_probabilities else None
    drawn = {
        "predictions/test": figures.predictions(images[:6], targets[:6], predicted[:6], shown, data.classes),
        "most_wrong/test": figures.most_wrong(images, targets, predicted, confidence, data.classes),
        "confusion_matrix/test": figures.confusion_matrix(
            multiclass_confusion_matrix(predicted, targets, data.num_classes), data.classes
        ),
    }
    if isinstance(logger, RunLogger):
        for tag, figure in drawn.items():
            logger.log_figure(tag, figure, int(metrics["epochs"]))
    figures.save(drawn["predictions/test"], run_dir / "predictions.png")


def report_evaluation(run_dir: Path, data: ImageData, logits: Tensor, metrics: Mapping[str, float]) -> None:
    """Write the confusion matrix, the accuracy of each class and evaluation.json, and say them."""
    assert data.test is not None
    counts = multiclass_confusion_matrix(logits.argmax(1), data.test.targets[: len(logits)], data.num_classes)
    correct, total = counts.diagonal(), counts.sum(1)
    figures.save(figures.confusion_matrix(counts, data.classes), run_dir / "confusion_matrix.png")
    figures.save(figures.class_accuracy(correct, total, data.classes), run_dir / "class_accuracy.png")
    classes: list[dict[str, Any]] = [
        {"class": name, "correct": int(right), "images": int(images)}
        for name, right, images in zip(data.classes, correct, total, strict=True)
    ]
    values = {name: metrics[name] for name in ("test/loss", "test/acc")} | {"classes": classes}
    write_json(run_dir / "evaluation.json", values)

    width = max(map(len, data.classes))
    for row in classes:
        share = row["correct"] / row["images"] if row["images"] else float("nan")
        log.info(f"{row['class']:>{width}}  {share:7.2%}  {row['correct']:>5} of {row['images']:>5}")
    _say_test(metrics)
    log.info(f"folder: {shown_path(run_dir)}")


def _say_test(metrics: Mapping[str, Any]) -> None:
    log.info(f"test loss: {metrics['test/loss']:.4f}")
    log.info(f"Test accuracy: {metrics['test/acc']:.2%}")


def shown_path(path: Path) -> Path:
    """Return `path` relative to the current folder where it lies in it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
