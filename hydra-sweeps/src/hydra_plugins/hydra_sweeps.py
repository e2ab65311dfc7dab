"""Where Hydra finds the sweepers and launchers of `hydra_sweeps`: it accepts only classes defined here."""

from hydra_sweeps import pool, remote, sweepers


class GridSweeper(sweepers.Grid):
    """`hydra/sweeper=grid`"""


class OptunaSweeper(sweepers.Search):
    """`hydra/sweeper=optuna`"""


class PoolLauncher(pool.Pool):
    """`hydra/launcher=pool`"""


class SubmititLauncher(remote.SubmititLauncher):
    """`hydra/launcher=submitit_slurm` and `submitit_local`"""


class RayLauncher(remote.RayLauncher):
    """`hydra/launcher=ray`"""
