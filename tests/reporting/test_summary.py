"""metrics.json, history.json and the console lines of a run."""

import json
import logging
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning as L
import pytest
import torch

from mnist_cnn.data import ImageData
from mnist_cnn.errors import UserError
from mnist_cnn.reporting import figures
from mnist_cnn.reporting.epochs import WIDTH, Progress, describe_run, images_per_epoch
from mnist_cnn.reporting.summary import LogitCollector, collect, report, report_evaluation
from mnist_cnn.training.classifier import Classifier
from tests.reporting.short_run import fit, make_classifier, make_trainer

Run = tuple[Classifier, L.Trainer, Progress, LogitCollector]


def run(folder: Path, data: ImageData, **options: Any) -> Run:
    """Train and test; three batches per epoch."""
    progress, outputs = Progress(folder), LogitCollector()
    classifier, trainer = fit(data, [progress, outputs], **options)
    trainer.test(classifier, data, verbose=False)
    return classifier, trainer, progress, outputs


def test_metrics_hold_every_metric_and_what_was_run(tmp_path: Path, small_data: ImageData) -> None:
    classifier, trainer, progress, _ = run(tmp_path, small_data)
    classifier.history[0]["val/f1"] = 0.25  # as a further metric would appear
    classifier.history[1]["test/f1"] = 0.5
    metrics = collect(trainer, classifier, progress, 37, best_epoch=1, pruned=False)
    names = {f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "acc")}
    assert names | {"val/f1", "test/f1", "test/images"} == {name for name in metrics if "/" in name}
    assert metrics["val/acc"] == classifier.history[0]["val/acc"]
    assert metrics["test/acc"] == classifier.history[1]["test/acc"]
    assert (metrics["status"], metrics["epochs"], metrics["steps"]) == ("finished", 2, 6)


@pytest.mark.parametrize(("max_steps", "epochs", "batches"), [(2, 0, 2), (3, 1, None), (4, 1, 1)])
def test_epoch_that_ends_early_is_not_counted(
    max_steps: int, epochs: int, batches: int | None, tmp_path: Path, small_data: ImageData, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "mnist_cnn")
    classifier, trainer, progress, _ = run(tmp_path, small_data, max_steps=max_steps)
    metrics = collect(trainer, classifier, progress, 37, best_epoch=1, pruned=False)
    assert (metrics["epochs"], metrics["steps"]) == (epochs, max_steps)
    ended = [line for line in caplog.messages if "ended after" in line]
    assert len(ended) == (batches is not None)
    if batches:
        assert f"ended after {batches} of 3 batches" in ended[0]


def test_counts_survive_a_resume() -> None:
    progress, resumed = Progress(Path()), Progress(Path())
    progress.images, progress.seconds, progress.partial_epochs = 96, 0.5, 1
    resumed.load_state_dict(progress.state_dict())
    assert (resumed.images_per_second, resumed.partial_epochs) == (192, 1)
    assert resumed.elapsed >= progress.elapsed - 1


def test_line_of_epoch_holds_all_metrics_and_fits_the_terminal(
    tmp_path: Path, small_data: ImageData, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mnist_cnn")

    class MoreMetrics(L.Callback):
        def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
            pl_module.history[-1] |= {"val/f1": 0.25, "val/calibration_error": 0.5, "train/f1": 0.75}

    classifier, _ = fit(small_data, [Progress(tmp_path), MoreMetrics()], max_epochs=1)
    (line,) = [line for line in caplog.messages if line.startswith("epoch 1/1")]
    row, text = classifier.history[0], " ".join(line.split())
    assert f"train loss {row['train/loss']:.4f}, {row['train/acc']:.2%} validation loss " in text
    assert f", {row['val/acc']:.2%}, f1 0.2500, calibration_error 0.5000" in text
    assert "0.75" not in text
    assert all(len(part) <= WIDTH for part in line.splitlines())


def test_run_without_a_step_has_no_result(tmp_path: Path, small_data: ImageData) -> None:
    classifier, trainer, progress, _ = run(tmp_path, small_data, limit_train_batches=0)
    with pytest.raises(UserError, match="No training step was run"):
        collect(trainer, classifier, progress, 37, best_epoch=0, pruned=False)


def test_logits_are_in_the_order_of_the_data(small_data: ImageData) -> None:
    outputs, classifier = LogitCollector(), make_classifier()
    make_trainer([outputs]).test(classifier, small_data, verbose=False)
    images = small_data.normalize(small_data.test.images)
    with torch.no_grad():
        torch.testing.assert_close(outputs.logits, classifier.eval()(images))


def finish(folder: Path, data: ImageData, finished: Run) -> dict[str, Any]:
    classifier, trainer, progress, outputs = finished
    tested = len(outputs.logits)
    metrics = collect(trainer, classifier, progress, tested, best_epoch=1, pruned=False)
    report(folder, classifier, data, outputs.logits, metrics, [])
    written: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return written


def test_report_writes_results_and_figures(
    tmp_path: Path, small_data: ImageData, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mnist_cnn")
    metrics = finish(tmp_path, small_data, run(tmp_path, small_data))
    assert {path.name for path in tmp_path.iterdir()} == {
        "metrics.json",
        "history.json",
        "predictions.png",
        "loss_curve.png",
    }
    assert f"test accuracy: {metrics['test/acc']:.2%} of 37 images" in caplog.messages
    best = f"validation loss {metrics['val/loss']:.4f}, {metrics['val/acc']:.2%}"
    assert f"best epoch: 1   {best}" in caplog.messages
    assert caplog.messages[-1] == f"run folder: {tmp_path}"


def test_run_without_test_images_keeps_its_results(
    tmp_path: Path, small_data: ImageData, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mnist_cnn")
    metrics = finish(tmp_path, small_data, run(tmp_path, small_data, limit_test_batches=0))
    assert metrics["status"] == "finished"
    assert "val/acc" in metrics
    assert "test/acc" not in metrics
    assert "no test: trainer.limit_test_batches leaves no test images" in caplog.messages
    assert (tmp_path / "loss_curve.png").is_file()


def test_failing_figure_does_not_lose_the_results(
    tmp_path: Path, small_data: ImageData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any) -> None:
        raise ValueError("no such colour")

    monkeypatch.setattr(figures, "predictions", fail)
    metrics = finish(tmp_path, small_data, run(tmp_path, small_data))
    assert "test/acc" in metrics
    assert "the figures of the test could not be made: ValueError: no such colour" in caplog.messages
    assert (tmp_path / "loss_curve.png").is_file()


class InterruptInSecondEpoch(L.Callback):
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("interrupted")


def test_history_is_complete_up_to_the_last_finished_epoch(tmp_path: Path, small_data: ImageData) -> None:
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(small_data, [Progress(tmp_path), InterruptInSecondEpoch()])
    (row,) = json.loads((tmp_path / "history.json").read_text())
    assert set(row) == {"epoch", "train/loss", "train/acc", "val/loss", "val/acc"}
    assert row["epoch"] == 1


def test_description_names_the_file_that_set_the_learning_rate(small_data: ImageData) -> None:
    classifier, trainer = fit(small_data, [], max_epochs=1)
    assert describe_run(trainer, classifier)["optimizer"] == "SGD, lr 0.01"
    described = describe_run(trainer, classifier, "conf/loss_optim/mse_sgd.yaml")
    assert described["optimizer"] == "SGD, lr 0.01 (set by conf/loss_optim/mse_sgd.yaml)"


def test_evaluation_report_counts_each_class(tmp_path: Path, small_data: ImageData) -> None:
    targets = small_data.test.targets
    logits = torch.nn.functional.one_hot(targets, 10).float()
    logits[0] = logits[0].roll(1)  # one error
    classifier = make_classifier()
    classifier.history = [{"epoch": 3, "test/loss": 0.5, "test/acc": 36 / 37, "test/f1": 0.9}]
    report_evaluation(tmp_path, classifier, small_data, logits)
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert {k: v for k, v in written.items() if k != "classes"} == {
        "test/loss": 0.5,
        "test/acc": 36 / 37,
        "test/f1": 0.9,
        "test/images": 37,
    }
    wrong = [row["class"] for row in written["classes"] if row["correct"] < row["images"]]
    assert wrong == [str(int(targets[0]))]
    assert (tmp_path / "confusion_matrix.png").is_file()


@pytest.mark.parametrize(("batch_size", "batches", "images"), [(32, 3, 96), (36, 3, 96), (36, 2, 72)])
def test_progress_counts_the_images_of_an_epoch(
    batch_size: int, batches: int, images: int, small_data: ImageData
) -> None:
    small_data.batch_size = batch_size
    loader = small_data.train_dataloader()
    trainer = Mock(train_dataloader=loader, num_training_batches=batches, world_size=1)
    assert images_per_epoch(trainer) == (images, batch_size)
