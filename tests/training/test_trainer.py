"""The Trainer of a run: what it refuses, what it clips, and the progress bars and tables of Lightning."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelSummary, RichProgressBar
from torch import nn

from mnist_cnn.data import ImageData
from mnist_cnn.errors import UserError
from mnist_cnn.models import CnnNet
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.trainer import build_trainer

OPTIONS = {"accelerator": "cpu", "devices": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf15"}, "refuses these settings: .*bf15"),
        ({"foo": 1}, "refuses these settings: .*foo"),
        ({"num_nodes": 2}, r"trainer\.num_nodes=2: start the processes on all nodes with torchrun or srun"),
        ({"profiler": "fast"}, r"trainer\.profiler=fast is unknown; choose one of simple, advanced, pytorch"),
        ({"devices": 2, "strategy": "ddp_spawn"}, r"trainer\.strategy=ddp_spawn is not supported"),
        ({"devices": 2, "overfit_batches": 5}, r"trainer\.overfit_batches=5 with 2 devices"),
        ({"logger": True}, r"trainer\.logger cannot be set"),
    ],
)
def test_value_that_the_trainer_does_not_take_is_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        build_trainer(OPTIONS | options, tmp_path, [], [])


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_of_a_fused_optimizer_are_clipped(
    algorithm: str, tmp_path: Path, small_data: ImageData
) -> None:
    network = CnnNet(image_size=28)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    classifier = Classifier(
        network, nn.CrossEntropyLoss(), 10, lambda parameters: torch.optim.SGD(parameters, lr=1.0, fused=True)
    )
    clipped = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": algorithm}
    short = {"max_epochs": 1, "limit_train_batches": 1}
    trainer = build_trainer(OPTIONS | short | clipped, tmp_path, [], [])
    trainer.fit(classifier, small_data)
    changes = [(new - old).abs().max() for new, old in zip(network.parameters(), before, strict=True)]
    assert 0 < max(changes) <= 1.01e-3


def test_progress_bar_and_table_of_layers_of_lightning_are_used_where_they_are_chosen(tmp_path: Path) -> None:
    chosen = [RichProgressBar(), ModelSummary(max_depth=2)]
    trainer = build_trainer(OPTIONS, tmp_path, chosen, [])
    assert trainer.progress_bar_callback is chosen[0]
    assert [one for one in trainer.callbacks if one in chosen] == chosen
    assert build_trainer(OPTIONS, tmp_path, [], []).progress_bar_callback is None
