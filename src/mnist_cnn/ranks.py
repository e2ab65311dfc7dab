"""What the variables of torchrun, Slurm and Lightning say about the processes of a job; needs no torch."""

import os
from datetime import datetime

from mnist_cnn.errors import UserError

_ASK_FOR_FOLDER = (
    "The processes of this run cannot agree on a folder. Give each of them the same one: "
    "hydra.run.dir=logs/runs/NAME"
)


def is_first_rank() -> bool:
    """Return whether this process is the first of its job, which alone writes files and messages."""
    if "RANK" in os.environ:  # of torchrun
        return os.environ["RANK"] == "0"
    ranks = (os.environ.get(name) or "0" for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))
    return all(rank == "0" for rank in ranks)


def processes_started() -> tuple[int, int] | None:
    """Return the processes of each node, and the nodes, if torchrun or srun has started all ranks."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        per_node, total = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        return per_node, total // per_node
    total = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # of srun; a batch script has no step
    if total == 1:
        return None
    nodes = int(os.environ["SLURM_STEP_NUM_NODES"])
    return total // nodes, nodes


def is_restarted() -> bool:
    """Return whether torchrun or Slurm has started the job again, after a failure or a requeue."""
    counts = (os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return any(count != "0" for count in counts)


def name_of_start(nodes: int | None) -> str:
    """Return the time at which this run started, or the step of Slurm: the same in all its processes.

    Raises `UserError` where they cannot agree on it.
    """
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    if processes_started() is None:
        if (nodes or 1) > 1:  # somebody starts a process on each node
            raise UserError(f"trainer.num_nodes={nodes}: {_ASK_FOR_FOLDER}")
        return now
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return f"slurm-{os.environ['SLURM_JOB_ID']}.{os.environ['SLURM_STEP_ID']}"  # also after a requeue
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise UserError(_ASK_FOR_FOLDER)
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return str(store.compare_set("mnist_cnn/start", "", now).decode())
