import lightning as L
import torch
from torch import nn

from mnist_cnn.data import ImageData
from mnist_cnn.models import SimpleCNN
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.overhead import NoProfiler, reduce_overhead


def trained(data: ImageData, reduced: bool) -> tuple[torch.Tensor, list[dict[str, float]], list[str]]:
    """Return the weights, the history and the batch numbers that `training_step` was given."""
    torch.manual_seed(0)
    calls: list[str] = []

    class Recording(Classifier):
        def training_step(self, batch, batch_idx):
            calls.append(f"{batch_idx} {self._current_fx_name}")
            return super().training_step(batch, batch_idx)

    classifier = Recording(
        SimpleCNN(), nn.CrossEntropyLoss(), 10, optimizer=lambda p: torch.optim.SGD(p, lr=0.1)
    )
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        profiler=NoProfiler() if reduced else None,
    )
    if reduced:
        reduce_overhead(trainer)
    trainer.fit(classifier, data)
    weights = torch.cat([parameter.detach().flatten() for parameter in classifier.parameters()])
    return weights, classifier.history, calls


def test_training_is_the_same_with_less_overhead(small_data):
    weights, history, calls = trained(small_data, reduced=False)
    own_weights, own_history, own_calls = trained(small_data, reduced=True)
    assert torch.equal(own_weights, weights)
    assert own_history == history
    assert own_calls == calls
    assert calls == [f"{batch} training_step" for batch in (0, 1, 2, 0, 1, 2)]


def test_lightning_still_calls_what_is_replaced(small_data, monkeypatch):
    asked: list[str] = []
    profile = NoProfiler.profile
    monkeypatch.setattr(NoProfiler, "profile", lambda self, name: asked.append(name) or profile(self, name))
    trained(small_data, reduced=True)
    assert any(name.endswith(".training_step") for name in asked)
    assert hasattr(L.Trainer(logger=False, enable_checkpointing=False).fit_loop.epoch_loop, "_build_kwargs")
