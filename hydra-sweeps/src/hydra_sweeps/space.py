"""The space of a search: Hydra's sweep syntax as Optuna's distributions."""

import decimal
from collections.abc import Iterable, Iterator
from itertools import islice, product
from typing import TypeAlias

from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
    Sweep,
    Transformer,
)
from hydra.errors import HydraException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from hydra_sweeps.contract import SweepError
from hydra_sweeps.grammar import Value, as_override

Distributions: TypeAlias = dict[str, BaseDistribution]

MAX_EXAMPLES = 30  # since each takes time to compose


def distributions_of(swept: Iterable[Override]) -> Distributions:
    """Return the distributions of swept overrides by their keys, which keep a + or ++.

    Raises `SweepError` for an invalid sweep.
    """
    return {override.get_key_element(): _distribution(override) for override in swept}


def examples(distributions: Distributions) -> Iterator[tuple[str, ...]]:
    """Yield overrides of jobs in which each choice, such as a group's, occurs with each other."""
    points = []
    for name, distribution in distributions.items():
        values = getattr(distribution, "choices", None) or [distribution.low]  # type: ignore[attr-defined]
        points.append([as_override(name, value) for value in values])
    return islice(product(*points), MAX_EXAMPLES)


def _distribution(override: Override) -> BaseDistribution:
    sweep = override.value()
    tags = set(sweep.tags) if isinstance(sweep, Sweep) else set()
    logarithmic = "log" in tags
    if tags - {"log"} or (logarithmic and isinstance(sweep, ChoiceSweep)):
        raise SweepError(
            f"{override.input_line}: the only tag is log, for numbers, as in tag(log, interval(1e-4, 1e-1))."
        )
    try:
        if isinstance(sweep, RangeSweep):
            return _range(sweep, logarithmic)
        if isinstance(sweep, IntervalSweep):
            return _interval(override, logarithmic)
        return _choice(override)
    except (ValueError, HydraException, decimal.DecimalException) as error:
        raise SweepError(f"{override.input_line}: {error}") from error


def _choice(override: Override) -> CategoricalDistribution:
    choices: list[Value] = []
    for element in override.sweep_iterator():
        if isinstance(element, QuotedString):
            choices.append(element.text)
        elif isinstance(element, list | dict):
            choices.append(Transformer.str(element))
        else:
            choices.append(element)
    # Optuna compares choices by ==, as a set does: 1, 1.0 and true are the same.
    if len(set(choices)) < len(choices):
        raise ValueError("two of the choices are equal.")
    return CategoricalDistribution(choices)


def _range(sweep: RangeSweep, logarithmic: bool) -> IntDistribution | FloatDistribution:
    count = len(list(sweep.range())) if sweep.step else 0
    if count == 0:
        raise ValueError("there is no value in this range.")
    # in decimals, in which 3 * 0.1 is 0.3
    start, step = decimal.Decimal(str(sweep.start)), decimal.Decimal(str(sweep.step))
    low, high = sorted((start, start + step * (count - 1)))
    if isinstance(sweep.range(), range):
        return IntDistribution(int(low), int(high), log=logarithmic, step=int(abs(step)))
    return FloatDistribution(float(low), float(high), log=logarithmic, step=float(abs(step)))


def _interval(override: Override, logarithmic: bool) -> IntDistribution | FloatDistribution:
    # Hydra's interval() converts its ends to floats, so the override is parsed again with one that does not.
    functions = create_functions()
    del functions.definitions["interval"]
    functions.register("interval", _ends)
    sweep = OverridesParser(functions).parse_override(str(override.input_line)).value()
    assert isinstance(sweep, IntervalSweep) and sweep.start is not None and sweep.end is not None
    if isinstance(sweep.start, int) and isinstance(sweep.end, int):
        return IntDistribution(sweep.start, sweep.end, log=logarithmic)
    return FloatDistribution(float(sweep.start), float(sweep.end), log=logarithmic)


def _ends(start: int | float, end: int | float) -> IntervalSweep:  # Hydra checks the types of arguments
    return IntervalSweep(start=start, end=end)
