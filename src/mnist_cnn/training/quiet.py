"""Silences messages that libraries print about themselves, so that the output of a run is about the run."""

import logging
import threading
import warnings

import torch


def quiet_libraries() -> None:
    """Hide Lightning's tips and announcements, and deprecations between libraries.

    Warnings that a user can act on are still shown. Call it after Lightning has been imported.
    """
    # "GPU available", "Trainer.fit stopped", tips for other products: the run prints what it uses itself.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The table of layers is printed if its callback is chosen.
    logging.getLogger("lightning.pytorch.callbacks.model_summary").setLevel(logging.INFO)
    # Lightning's own handler would repeat what the handlers of the root logger print.
    logging.getLogger("lightning").handlers.clear()

    # Lightning 2.6 uses torch's pytree in a way that torch 2.14 deprecates.
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    # Lightning recommends worker processes; batches from memory are faster without (data.datamodule).
    warnings.filterwarnings("ignore", message=r"The '\w+' does not have many workers")
    # Lightning warns about a run without validation images, which data.val_size=0 asks for.
    warnings.filterwarnings("ignore", message=r"Total length of `list` across ranks is zero")
    # Lightning warns where an epoch ends without a validation, as trainer.check_val_every_n_epoch=2 asks for.
    warnings.filterwarnings("ignore", message=r"`ModelCheckpoint\(monitor=.*could not find the monitored key")
    # Lightning warns that a resumed run writes to the folder that it is resumed from.
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
    # Lightning asks for the Timer of trainer.max_time where a run is resumed without that limit.
    warnings.filterwarnings("ignore", message=r"Be aware that when using `ckpt_path`.*: \['Timer'\]")
    # Lightning expects its own protocol of loaders for this; training.resume has another way.
    warnings.filterwarnings(
        "ignore", message=r"You're resuming from a checkpoint that ended before the epoch"
    )
    # Lightning warns about epochs of less than 50 batches, of which it would log no step.
    warnings.filterwarnings("ignore", message=r"The number of training batches .* is smaller than")
    # Under trainer.overfit_batches Lightning announces that it stops shuffling, which that option implies.
    warnings.filterwarnings("ignore", message=r"You requested to overfit but enabled .* shuffling")
    # Lightning recommends srun wherever Slurm is installed; sweeps submit their jobs themselves.
    warnings.filterwarnings("ignore", message=r"The `srun` command is available")
    # The table of layers gives sizes in 32 bits, whatever the precision.
    warnings.filterwarnings("ignore", message=r"Precision .* is not supported by the model summary")

    threading.excepthook = _report_in_thread

    # Lightning's deterministic=True makes torch fill every new tensor with NaN, as a help for debugging
    # that costs 9 to 15 % of a training step on a CPU. It has no influence on results.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _report_in_thread(error: threading.ExceptHookArgs) -> None:
    # TensorBoard raises an error of its writer, as of a full disk, again in the thread that writes next.
    if not isinstance(error.exc_value, OSError):
        threading.__excepthook__(error)
