"""Imported by the server of the pool before it forks: what every job of a Hydra app would do again."""

from hydra import compose, initialize

# Imports all plugins; and the parsers of Hydra and OmegaConf learn their grammars when they are used.
with initialize(config_path=None, version_base=None):
    compose(overrides=["+a.b='c d'", "+h=[1,2.5]"], return_hydra_config=True)
