"""Silence for what the libraries say about themselves, so that what a run says is about the run."""

import logging
import warnings


def silence() -> None:
    """Keep Lightning's tips and announcements, and deprecations between libraries, off the terminal.

    Warnings that a user could act on stay. Call it after Lightning has been imported.
    """
    # "GPU available", "Trainer.fit stopped", tips for other products: the run says what it uses itself
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning's own handler would repeat what the handlers of the root logger show
    logging.getLogger("lightning").handlers.clear()

    # Lightning 2.6 asks torch's pytree in a way that torch 2.14 deprecates
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    # Lightning recommends worker processes; batches from memory are faster without (data.datamodule)
    warnings.filterwarnings("ignore", message=r"The '\w+' does not have many workers")
    # Lightning doubts that a run without validation images is meant
    warnings.filterwarnings("ignore", message=r"Total length of `list` across ranks is zero")
    # Lightning finds last.ckpt of the run that is being resumed, which is what resuming means
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
