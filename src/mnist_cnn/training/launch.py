"""The processes of a job on several devices: started together, supervised, and ended together.

This is what `torchrun` is made of. Each rank is a process of its own that reads its settings from the folder
of the run; the process that starts them joins no process group and keeps no trace of the job.
"""

import logging
import math
import os
import signal
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mnist_cnn.errors import Interrupted, UserError
from mnist_cnn.training.ranks import RUN_ID


def run_ranks(command: Sequence[str], count: int, seconds: float, signals: Sequence[signal.Signals]) -> None:
    """Run `command`, a script of Python and its arguments, in `count` ranks, and wait for them.

    If a rank fails, the others are ended. One of `signals` is passed on to the ranks, which have `seconds` to
    end; then it raises `Interrupted`. Raises `UserError` that says how the first rank failed.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=RUN_ID,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle=",".join(number.name for number in signals),
        shutdown_timeout=math.ceil(seconds),
    )
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    handlers = {number: signal.getsignal(number) for number in signals}
    environment = dict(os.environ)
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException as error:
        raise Interrupted(error.sigval) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise UserError(_describe(rank, failure)) from None
    finally:  # the launcher sets both and leaves them
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)


def _describe(rank: int, failure: ProcessFailure) -> str:
    if failure.exitcode < 0:
        return f"Rank {rank} was killed by {failure.signal_name()}."
    return f"Rank {rank} has ended with exit code {failure.exitcode}; its output is above."
