"""Several processes for one job: each rank runs the settings of the job, and none outlives the job.

Lightning starts the other ranks by running `sys.argv` again. Under Hydra this is wrong: with `-m` every
rank would start a sweep of its own, and the settings of a job need not follow from the command line.
Here a rank is started with a command that the caller gives. After the job its processes, its process
group and the variables that Lightning left in the environment are removed, so that the next job of a
sweep starts afresh.

This module is the only one that uses the private API of Lightning's launcher, checked with Lightning 2.6.6.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed import distributed_c10d as c10d

from mnist_cnn.errors import UserError

# Lightning sets these for the ranks and leaves them set; a later job would take itself for a rank.
RANK_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")

# Seconds in which a rank that has finished must exit.
EXIT_TIMEOUT = 60.0

# Seconds that a rank waits for the others, by default, and at the start, when they import libraries. While
# they wait, the first alone writes files; for the download of the data Lightning sets no limit.
RANK_TIMEOUT = 600.0

# Port of the first rank at which the ranks that it has started report that they are alive.
STARTED_PORT = "MNIST_CNN_STARTED_PORT"

_LOCAL = "127.0.0.1"
_GLOO_ERRORS = ("gloo/transport", "pair closure")  # which have no class of their own


class JobLauncher(_SubprocessScriptLauncher):
    """Starts the ranks after the first with `command`, and with LOCAL_RANK in their environment."""

    def __init__(
        self,
        command: Sequence[str],
        cluster_environment: ClusterEnvironment,
        num_processes: int,
        num_nodes: int,
    ) -> None:
        super().__init__(cluster_environment, num_processes, num_nodes)
        self.command = list(command)
        self.started: TCPStore | None = None  # which counts the ranks that this process has started
        self.threads: int | None = None  # the number of threads of this process before the job

    def launch(
        self,
        function: Callable[..., Any],
        *args: Any,
        trainer: L.Trainer | None = None,
        **kwargs: Any,
    ) -> Any:
        """Start the other ranks, unless torchrun, Slurm or an earlier call did, and call `function`."""
        # Lightning would also start a thread here that kills this process, and with it a whole sweep,
        # when a rank of one job fails.
        self.cluster_environment.validate_settings(self.num_processes, self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._start_ranks()
        if self.threads is None:
            # By default each rank would start as many threads as there are cores.
            self.threads = torch.get_num_threads()
            torch.set_num_threads(max(1, self.threads // self.num_processes))
        return function(*args, **kwargs)

    def _start_ranks(self) -> None:
        self.started = TCPStore(_LOCAL, 0, is_master=True, wait_for_workers=False)
        cluster = self.cluster_environment
        os.environ["MASTER_ADDR"] = cluster.main_address
        os.environ["MASTER_PORT"] = str(cluster.main_port)
        os.environ["NODE_RANK"] = str(cluster.node_rank())
        os.environ["LOCAL_RANK"] = str(cluster.local_rank())
        os.environ["WORLD_SIZE"] = str(self.num_processes * self.num_nodes)
        for local_rank in range(1, self.num_processes):
            environment = os.environ | {
                "LOCAL_RANK": str(local_rank),
                STARTED_PORT: str(self.started.port),
            }
            self.procs.append(subprocess.Popen(self.command, env=environment))

    def wait_for_ranks(self) -> None:
        """Wait until the ranks that this process has started are alive.

        Raises `UserError` if one has ended: the process group would wait for it until its time limit.
        """
        end = time.monotonic() + RANK_TIMEOUT
        while self.started and self.started.add("started", 0) < len(self.procs) and time.monotonic() < end:
            if any(process.poll() is not None for process in self.procs):
                raise UserError(f"{_lost_rank(self.procs)} It had not started.")
            time.sleep(0.1)


class JobDDPStrategy(DDPStrategy):
    """DDP that starts its ranks with `command` instead of repeating `sys.argv`.

    Once all ranks have started, one that has waited `seconds` for another fails.
    """

    def __init__(self, command: Sequence[str], seconds: float = RANK_TIMEOUT) -> None:
        super().__init__(timeout=timedelta(seconds=RANK_TIMEOUT))
        self.command = list(command)
        self.seconds = seconds

    def setup_distributed(self) -> None:
        if port := os.environ.pop(STARTED_PORT, None):
            TCPStore(_LOCAL, int(port), is_master=False).add("started", 1)
        elif isinstance(self._launcher, JobLauncher) and not torch.distributed.is_initialized():
            self._launcher.wait_for_ranks()
        super().setup_distributed()
        # the private name before torch 2.14
        set_timeout = getattr(torch.distributed, "set_timeout", None) or c10d._set_pg_timeout
        set_timeout(timedelta(seconds=self.seconds))

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = JobLauncher(
            self.command, self.cluster_environment, self.num_processes, self.num_nodes
        )


@contextmanager
def shut_down_ranks(trainer: L.Trainer) -> Iterator[None]:
    """End the ranks of the job when the block ends, in the process that started them.

    After a success it waits for them to exit, after a failure it kills them. A rank that fails after the
    others have finished fails the job. Raises `UserError` where a rank was killed or does not answer.
    """
    strategy, launcher = trainer.strategy, trainer.strategy.launcher
    if not isinstance(strategy, JobDDPStrategy) or not isinstance(launcher, JobLauncher):
        yield
        return
    try:
        yield
    except BaseException as error:
        reason = None
        if _is_of_connection(error):
            reason = _lost_rank(launcher.procs) or _no_answer(trainer, error)
        for process in launcher.procs:
            process.kill()
        if reason is not None:
            raise UserError(reason) from error
        raise
    else:
        codes = [process.wait(EXIT_TIMEOUT) for process in launcher.procs]
        failed = [str(rank) for rank, code in enumerate(codes, start=1) if code]
        if failed:
            raise RuntimeError(f"Rank {', '.join(failed)} failed; its output is above.")
    finally:
        if launcher.threads is not None:
            torch.set_num_threads(launcher.threads)
        if launcher.started:
            for process in launcher.procs:
                process.kill()
                process.wait()
            launcher.started = None  # closes its port
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            for name in RANK_VARIABLES:
                os.environ.pop(name, None)
            rank_zero_only.rank = 0  # type: ignore[attr-defined]


def _is_of_connection(error: BaseException) -> bool:
    """Return whether `error` is of the connection to other ranks."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _GLOO_ERRORS)


def _lost_rank(processes: Sequence["subprocess.Popen[Any]"]) -> str | None:
    """Return how the first of the ranks 1, 2, … that has ended did so; None if all of them run."""
    codes: dict[int, int] = {}
    for rank, process in enumerate(processes, start=1):
        with suppress(subprocess.TimeoutExpired):
            codes[rank] = process.wait(1.0)  # its connections close before it can be waited for
    for rank, code in codes.items():
        if code < 0:  # before those that have failed for that reason
            return f"Rank {rank} was killed by {signal.Signals(-code).name}."
    return next((f"Rank {rank} has ended with exit code {code}." for rank, code in codes.items()), None)


def _no_answer(trainer: L.Trainer, error: BaseException) -> str:
    assert isinstance(trainer.strategy, JobDDPStrategy)
    rank = trainer.global_rank
    if not torch.distributed.is_initialized():
        return f"Rank {rank} has waited {RANK_TIMEOUT:g} s for all ranks to start."
    if "timed out" in str(error).lower() or "timeout" in str(error):
        return (
            f"Rank {rank} has waited {trainer.strategy.seconds:g} s for another rank. If that was not "
            "enough, set trainer.rank_timeout to more seconds."
        )
    return f"Rank {rank} has lost its connection to another rank, whose output above says why."
