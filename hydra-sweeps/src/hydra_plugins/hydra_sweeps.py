"""Where Hydra finds the plugins of `hydra_sweeps`: it accepts only classes defined here."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from hydra_sweeps import grid, search
from hydra_sweeps.launchers import pool, ray, slurm


class SweepsSearchPath(SearchPathPlugin):
    """Adds the YAML files of this package, after those of the app, and what they use."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="hydra-sweeps", path="pkg://hydra_sweeps.conf")
        # The mode of Hydra for `sweep.resume`: a sweep is resumed without -m, too.
        OmegaConf.register_new_resolver("mode_to_resume", lambda folder: folder and "MULTIRUN", replace=True)


class GridSweeper(grid.Grid):
    """`hydra/sweeper=grid`"""


class OptunaSweeper(search.Search):
    """`hydra/sweeper=optuna`"""


class PoolLauncher(pool.Pool):
    """`hydra/launcher=pool`"""


class SubmititLauncher(slurm.SubmititLauncher):
    """`hydra/launcher=submitit_slurm` and `submitit_local`"""


class RayLauncher(ray.RayLauncher):
    """`hydra/launcher=ray`"""
