"""`hydra/launcher=submitit_slurm`, `submitit_local` and `ray`: the jobs of a sweep on a cluster."""

from collections.abc import Mapping
from typing import Any

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mnist_cnn.sweeps import remote
from mnist_cnn.sweeps.launching import Jobs, Results, StreamingLauncher


class RemoteLauncher(StreamingLauncher):
    """What the launchers for clusters have in common."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.sweep = remote.Sweep(hydra_context, task_function, config)


class SubmititLauncher(RemoteLauncher):
    """Submits each job to Slurm, or runs it in a process of its own; see conf/hydra/launcher/submitit_*."""

    def __init__(self, cluster: str, n_jobs: int, parameters: Mapping[str, Any], poll: float) -> None:
        self.options: dict[str, Any] = {"cluster": cluster, "n_jobs": n_jobs, "poll": poll}
        self.parameters = parameters

    def stream(self, jobs: Jobs) -> Results:
        return remote.run_with_submitit(self.sweep, jobs, parameters=self.parameters, **self.options)


class RayLauncher(RemoteLauncher):
    """Runs each job on a Ray cluster; see conf/hydra/launcher/ray.yaml."""

    def __init__(self, n_jobs: int, num_cpus: float, num_gpus: float, init: Mapping[str, Any]) -> None:
        self.options: dict[str, Any] = {"n_jobs": n_jobs, "num_cpus": num_cpus, "num_gpus": num_gpus}
        self.init = init

    def stream(self, jobs: Jobs) -> Results:
        return remote.run_with_ray(self.sweep, jobs, init=self.init, **self.options)
