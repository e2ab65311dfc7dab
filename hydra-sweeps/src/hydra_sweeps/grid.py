"""A sweep of all combinations."""

from collections.abc import Iterator
from itertools import islice, product
from math import prod

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from hydra_sweeps.contract import SweepError
from hydra_sweeps.grammar import fixed_and_swept
from hydra_sweeps.sweep import BaseSweep, Job

MAX_CHECKED = 50  # names of one setting that are tried before the first job


class Grid(BaseSweep):
    """Every combination of the given values, as with Hydra's basic sweeper."""

    def begin(self, overrides: list[Override], resumed: bool) -> None:
        self.fixed, swept = fixed_and_swept(overrides)
        self.values = [_values(override) for override in swept]
        self.total = prod(map(len, self.values))
        if not resumed:
            self._check()

    def propose(self) -> Iterator[Job]:
        for number, chosen in enumerate(product(*self.values)):
            yield Job(number, chosen)

    def _check(self) -> None:
        """Raise `SweepError` for a value that cannot be composed with the first ones of the other settings.

        Each name is tried once, and of numbers, which differ in nothing, one: a grid may have thousands of
        jobs.
        """
        first = [values[0] for values in self.values]
        self.compose(first)
        for index, values in enumerate(self.values):
            named = [value for value in values[1:] if not _is_number(value)]
            for value in named[:MAX_CHECKED]:
                self.compose([*first[:index], value, *first[index + 1 :]])
        for job in islice(self.propose(), 2):
            self.ready(job)  # that their folders differ


def _values(override: Override) -> list[str]:
    """Return the overrides with the single values of one that is swept."""
    if not override.is_discrete_sweep():
        raise SweepError(
            f"{override.input_line} is an interval. Give single values, or search in it: add "
            "hydra/sweeper=optuna."
        )
    key = override.get_key_element()
    try:
        values = [f"{key}={value}" for value in override.sweep_string_iterator()]
    except (ValueError, HydraException) as error:
        raise SweepError(f"{override.input_line}: {error}") from error
    if not values:
        raise SweepError(f"{override.input_line} has no value: no job would run.")
    return values


def _is_number(override: str) -> bool:
    try:
        float(override.partition("=")[2])
    except ValueError:
        return False
    return True
