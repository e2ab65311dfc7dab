"""The YAML files of this package, which Hydra finds as `pkg://hydra_sweeps.conf`."""
