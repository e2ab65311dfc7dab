"""Randomness as a function of seed, epoch and rank, so that a resumed run repeats an uninterrupted one."""

import random

import lightning as L
import numpy as np
import torch


class ReseedEachEpoch(L.Callback):
    """Seeds the generators of Python, NumPy and torch (all devices) at the start of each training epoch.

    Lightning's checkpoints hold no state of generators. With a seed for each epoch, dropout and random
    augmentation draw the same numbers in epoch n whether or not the run was interrupted before it. The
    ranks of one run draw different numbers.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seed = epoch_seed(self.seed, trainer.current_epoch, trainer.global_rank)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Return the seed of one rank for one epoch, in [0, 2**32)."""
    return int(np.random.SeedSequence((seed, epoch, rank)).generate_state(1)[0])
