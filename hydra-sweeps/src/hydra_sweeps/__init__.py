"""Sweeps for any Hydra app: what an app may import. See README.md."""

from hydra_sweeps.interface import (
    FAILED,
    HISTORY,
    METRICS,
    RESOLVED,
    SweepError,
    Trial,
    current_trial,
    in_sweep,
    quote,
    resume_arguments,
    unquote,
)

__all__ = [
    "FAILED",
    "HISTORY",
    "METRICS",
    "RESOLVED",
    "SweepError",
    "Trial",
    "current_trial",
    "in_sweep",
    "quote",
    "resume_arguments",
    "unquote",
]
