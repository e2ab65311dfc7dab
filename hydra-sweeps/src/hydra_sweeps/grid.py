"""A sweep of all combinations."""

from collections.abc import Iterator
from itertools import product
from math import prod

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from hydra_sweeps.contract import Job, SweepError
from hydra_sweeps.sweep import BaseSweep

MAX_CHECKED = 50  # choices of one setting that are tried before the first job


class Grid(BaseSweep):
    """Every combination of the given values, as with Hydra's basic sweeper.

    Before the first job each choice is composed with the first ones of the other settings.
    """

    def begin(self, swept: list[Override], resumed: bool) -> None:
        self.values = [_values(override) for override in swept]
        self.total = prod(map(len, self.values))
        if resumed:
            return
        first = [values[0] for values in self.values]
        self.compose(first)
        for index, override in enumerate(swept):
            if override.is_choice_sweep():  # the numbers of a range differ in nothing
                for value in self.values[index][1:MAX_CHECKED]:
                    self.compose([*first[:index], value, *first[index + 1 :]])

    def propose(self) -> Iterator[Job]:
        for number, chosen in enumerate(product(*self.values)):
            yield Job(number, chosen)


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
