"""Sweeps for any Hydra app: grids and searches that can be resumed, launchers, reports. See README.md."""
