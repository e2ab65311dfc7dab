"""Which process of a job writes its files."""

import os


def is_first_rank() -> bool:
    """Return whether this process is the first of its job, which alone writes files and messages.

    It reads the variables of torchrun, Slurm and Lightning, so that it needs no Trainer and no torch.
    """
    if "RANK" in os.environ:  # of torchrun
        return os.environ["RANK"] == "0"
    ranks = (os.environ.get(name) or "0" for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))
    return all(rank == "0" for rank in ranks)
