"""The Trainer of a run."""

from pathlib import Path

from lightning.pytorch.callbacks import ModelSummary, RichProgressBar

from mnist_cnn.training.trainer import build_trainer

OPTIONS = {"accelerator": "cpu", "devices": 1}


def test_progress_bar_and_table_of_layers_of_lightning_are_used_where_they_are_chosen(tmp_path: Path) -> None:
    chosen = [RichProgressBar(), ModelSummary(max_depth=2)]
    trainer = build_trainer(OPTIONS, tmp_path, chosen, [])
    assert trainer.progress_bar_callback is chosen[0]
    assert [one for one in trainer.callbacks if one in chosen] == chosen
    assert build_trainer(OPTIONS, tmp_path, [], []).progress_bar_callback is None
