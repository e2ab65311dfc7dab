"""The space of a search: Hydra's sweep syntax as Optuna's distributions."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice, product
from typing import TypeAlias

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
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

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
    except (ValueError, HydraException) as error:
        raise SweepError(f"{override.input_line}: {error}") from error


def _choice(override: Override) -> CategoricalDistribution:
    choices: list[Value] = []
    for element in override.sweep_iterator():
        if isinstance(element, QuotedString):
            # With its quotes where it would be taken for a list or a dict.
            choices.append(element.with_quotes() if element.text.startswith(("[", "{")) else element.text)
        elif isinstance(element, list | dict):
            choices.append(Transformer.str(element))
        else:
            choices.append(element)
    if len(set(choices)) < len(choices):
        raise ValueError("two of the values are equal, so that a study cannot tell them apart.")
    return CategoricalDistribution(choices)


def _range(sweep: RangeSweep, logarithmic: bool) -> IntDistribution | FloatDistribution:
    values = list(sweep.range()) if sweep.step else []
    if not values:
        raise ValueError("there is no value in this range.")
    low, high, step = min(values), max(values), abs(sweep.step or 1)
    if isinstance(sweep.range(), range):
        return IntDistribution(int(low), int(high), log=logarithmic, step=int(step))
    # rounded, since 3 * 0.1 is more than 0.3
    low, high = round(float(low), 12), round(float(high), 12)
    return FloatDistribution(low, high, log=logarithmic, step=float(step))


def _interval(override: Override, logarithmic: bool) -> IntDistribution | FloatDistribution:
    sweep = override.value()
    assert isinstance(sweep, IntervalSweep) and sweep.start is not None and sweep.end is not None
    # Hydra makes floats of the ends of interval(1,10).
    text = str(override.input_line).replace(" ", "")
    typed = re.search(r"interval\((\w+=)?-?\d+,(\w+=)?-?\d+\)", text) and "float(" not in text
    if typed or isinstance(sweep.start, int):
        return IntDistribution(int(sweep.start), int(sweep.end), log=logarithmic)
    return FloatDistribution(float(sweep.start), float(sweep.end), log=logarithmic)
