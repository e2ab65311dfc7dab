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

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mnist_cnn.errors import Interrupted, UserError
from mnist_cnn.training.ranks import RUN_ID


def run_ranks(command: Sequence[str], count: int, seconds: float, signals: Sequence[signal.Signals]) -> None:
    """Run `command`, a script of Python and its arguments, in `count` ranks, and wait for them.

    If a rank fails, the others are ended. One of `signals` is passed on to the ranks, which have `seconds` to
    end; then it raises `Interrupted`. Raises `RankFailed` that says how the first rank failed.
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
    for name in ("agent.server", "multiprocessing"):  # each has a level of its own
        logging.getLogger(f"torch.distributed.elastic.{name}.api").setLevel(logging.CRITICAL)
    handlers = {number: signal.getsignal(number) for number in signals}
    environment = dict(os.environ)
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException as error:
        raise Interrupted(error.sigval) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise RankFailed(rank, failure) from None
    finally:  # the launcher sets both and leaves them
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)


def leave_process_group() -> None:
    """Leave the group of ranks at the end of a job; otherwise a thread of gloo may abort the process then."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class RankFailed(UserError):
    """A rank has failed; `was_killed` tells whether by a signal, so that it could not say why."""

    def __init__(self, rank: int, failure: ProcessFailure) -> None:
        self.was_killed = failure.exitcode < 0
        ending = f"was killed by {failure.signal_name()}." if self.was_killed else "has failed; see above."
        super().__init__(f"Rank {rank} {ending}")


def is_of_connection(error: BaseException) -> bool:
    """Return whether `error` is of the connection to another rank, which has ended or does not answer."""
    if isinstance(error, torch.distributed.DistError):
        return True
    # errors of gloo, for CPUs, have no class of their own
    return isinstance(error, RuntimeError) and ("gloo" in str(error) or "pair closure" in str(error))
