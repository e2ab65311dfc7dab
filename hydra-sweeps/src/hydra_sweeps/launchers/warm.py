"""Imported by the server of the pool before it forks: what every job of a Hydra app would do again."""

from hydra.core.plugins import Plugins

from hydra_sweeps.grammar import parse

Plugins.instance()  # finds and imports all plugins
parse(["+a.b='c d'", "e/f=g", "h=[1,2.5]", "~i"])  # the parser learns its grammar when it is used
