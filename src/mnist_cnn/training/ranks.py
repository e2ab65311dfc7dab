"""What the variables of torchrun and Slurm say about the processes of a job. It imports no torch."""

import os
import threading
import time
from datetime import datetime

from mnist_cnn.errors import UserError

RANK_TIMEOUT = 600.0  # seconds that a rank waits for another, by default
RUN_ID = "mnist_cnn"  # by which torch's launcher marks the ranks that train.py or evaluate.py has started


def is_first_rank() -> bool:
    """Return whether this process is the first of its job, which alone writes files and messages."""
    if "RANK" in os.environ:  # of torchrun
        return os.environ["RANK"] == "0"
    return os.environ.get("SLURM_PROCID", "0") == "0"


def is_rank_of_a_job() -> bool:
    """Return whether train.py or evaluate.py has started this process as a rank of its own job."""
    return os.environ.get("TORCHELASTIC_RUN_ID") == RUN_ID


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


def name_of_start() -> str:
    """Return the minute in which this run started, or what is the same in all its processes.

    That is the step of Slurm, or the microsecond in which torchrun has started the first of them. Raises
    `UserError` if they cannot agree on it.
    """
    now = datetime.now()
    if processes_started() is None or is_rank_of_a_job():  # which is told its folder
        return now.strftime("%m%d-%H%M")
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return f"slurm-{os.environ['SLURM_JOB_ID']}.{os.environ['SLURM_STEP_ID']}"  # also after a requeue
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise UserError(
            "The processes of this run cannot agree on a folder. Give each of them the same one: "
            "hydra.run.dir=logs/runs/NAME"
        )
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return str(store.compare_set("mnist_cnn/start", "", now.strftime("%m%d-%H%M%S-%f")).decode())


def end_with_parent() -> None:
    """End this process when the process that has started it ends in any way, even by SIGKILL."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
