"""Jobs of a sweep that a cluster runs: what is sent to it, and waiting for the first that ends."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from mnist_cnn.errors import UserError
from mnist_cnn.sweeps.launching import Jobs, Results, composed, failed

# What a job that is cancelled has to end its ranks.
SECONDS_TO_STOP = 10.0


@dataclass
class Sweep:
    """What all jobs of a sweep need to run where they are sent."""

    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig


class RemoteJob:
    """One job, to be sent to another process that sees the same files, and called there.

    It returns None, or what the job failed of. Submitit asks a job that is preempted, or out of time, for
    its `checkpoint`: it is submitted again and goes on from its last epoch.
    """

    def __init__(self, sweep: Sweep, number: int, overrides: Sequence[str], threads: int | None) -> None:
        config = composed(sweep.hydra_context.config_loader, sweep.config, number, overrides)
        with open_dict(config):
            config.hydra.sweep.dir = str(Path(config.hydra.sweep.dir).absolute())
        self.sweep = sweep
        self.config = config
        self.threads = threads
        self.singletons = Singleton.get_state()
        self.folder = os.getcwd()

    def __call__(self) -> str | None:
        os.chdir(self.folder)
        if self.threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(self.threads)
        Singleton.set_state(self.singletons)
        setup_globals()
        result = run_job(
            hydra_context=self.sweep.hydra_context,
            task_function=self.sweep.task_function,
            config=self.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if result.status is JobStatus.COMPLETED:
            return None
        return f"{type(result._return_value).__name__}: {result._return_value}"

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        self.config.resume = str(Path(self.config.hydra.sweep.dir) / self.config.hydra.sweep.subdir)
        return DelayedSubmission(self)


def ended(error: str | None) -> JobReturn:
    """Return how a job ended, as Hydra has it."""
    if error is None:
        return JobReturn(status=JobStatus.COMPLETED)
    return failed(RuntimeError(error))


def run_with_submitit(
    sweep: Sweep, jobs: Jobs, cluster: str, n_jobs: int, parameters: Mapping[str, Any], poll: float
) -> Results:
    """Run the jobs on `cluster`, "slurm" or "local", at most `n_jobs` at a time.

    `parameters` are those of submitit's `update_parameters`, of which those that are None are left out.
    What has been submitted is cancelled where this ends early.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise UserError("hydra/launcher=submitit_* needs submitit: pip install -e '.[cluster]'") from None

    _refuse_count(n_jobs)
    folder = Path(sweep.config.hydra.sweep.dir).absolute() / "submitit"
    executor = submitit.AutoExecutor(folder, cluster=cluster)
    given = {name: value for name, value in parameters.items() if value is not None}
    try:
        executor.update_parameters(**given)
    except (TypeError, NameError, ValueError) as error:
        raise UserError(f"hydra.launcher.parameters: submitit refuses them: {error}") from error
    threads = given.get("cpus_per_task")
    waiting, running = iter(jobs), dict[int, Any]()
    try:
        while True:
            if following := list(islice(waiting, n_jobs - len(running))):
                with executor.batch():  # what is submitted together is one array of Slurm's
                    for number, overrides in following:
                        running[number] = executor.submit(RemoteJob(sweep, number, overrides, threads))
            if not running:
                return
            over = [number for number, job in running.items() if job.done()]
            for number in over:
                job = running.pop(number)
                try:
                    said = job.result()
                except Exception as failure:  # of the process, or of the cluster
                    said = f"{failure} See {folder}/{job.job_id}_*"
                yield number, ended(said)
            if not over:
                time.sleep(poll)
    finally:
        for job in running.values():
            job.cancel(check=False)
        deadline = time.monotonic() + SECONDS_TO_STOP
        while any(not job.done() for job in running.values()) and time.monotonic() < deadline:
            time.sleep(0.1)


def run_with_ray(
    sweep: Sweep, jobs: Jobs, n_jobs: int, num_cpus: float, num_gpus: float, init: Mapping[str, Any]
) -> Results:
    """Run the jobs on a Ray cluster, at most `n_jobs` at a time, each with so many CPUs and GPUs.

    `init` are arguments of `ray.init`, `address` among them. What is running is cancelled where this ends
    early.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError("hydra/launcher=ray needs Ray: pip install -e '.[ray]'") from None

    _refuse_count(n_jobs)
    # Ray would otherwise make a worker's GPUs invisible to a job that asked for none, and warn of that.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(**init)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"hydra.launcher.init: Ray cannot be reached: {error}") from error
    # A job has its process to itself, so that nothing is left to the next, and is not repeated by Ray.
    run = ray.remote(max_calls=1, max_retries=0, num_cpus=num_cpus, num_gpus=num_gpus)(_called)
    threads = max(1, int(num_cpus))
    waiting, running = iter(jobs), dict[Any, int]()
    try:
        while True:
            for number, overrides in islice(waiting, n_jobs - len(running)):
                job = RemoteJob(sweep, number, overrides, threads)
                running[run.options(name=f"job {number}").remote(job)] = number
            if not running:
                return
            for reference in ray.wait(list(running), num_returns=1)[0]:
                number = running.pop(reference)
                try:
                    said = ray.get(reference)
                except ray.exceptions.RayError as failure:
                    said = str(failure)
                yield number, ended(said)
    finally:
        for reference in running:
            ray.cancel(reference)  # a KeyboardInterrupt, on which a job ends its ranks
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=SECONDS_TO_STOP)
        ray.shutdown()


def _refuse_count(n_jobs: object) -> None:
    if not isinstance(n_jobs, int) or n_jobs < 1:
        raise UserError(f"hydra.launcher.n_jobs={n_jobs}: it must be a whole number from 1 on.")


def _called(job: RemoteJob) -> str | None:
    return job()
