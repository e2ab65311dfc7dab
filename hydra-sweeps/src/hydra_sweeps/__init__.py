"""Sweeps for any Hydra app: what an app may import. See `contract` for what it and a sweep agree on."""

from hydra_sweeps.contract import FAILED, HISTORY, METRICS, RESOLVED, SweepError, in_sweep
from hydra_sweeps.grammar import quote, unquote
from hydra_sweeps.trial import Trial, current_trial

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
    "unquote",
]
