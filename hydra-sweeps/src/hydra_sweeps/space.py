"""The space of a search: Hydra's sweep syntax as Optuna's distributions, and values as overrides."""

import decimal
import re
from collections.abc import Iterable, Iterator
from itertools import islice, product
from typing import TypeAlias

from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Sweep,
    Transformer,
)
from hydra.errors import HydraException

from hydra_sweeps.interface import SweepError

try:
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
except ModuleNotFoundError as error:
    raise SweepError("hydra/sweeper=optuna needs Optuna: pip install optuna") from error

Value: TypeAlias = str | int | float | bool | None
Distributions: TypeAlias = dict[str, BaseDistribution]

# Strings that need no quotes.
_PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan)\Z)[a-z_][\w./-]*", re.IGNORECASE | re.ASCII)


def split(overrides: Iterable[Override]) -> tuple[list[str], Distributions]:
    """Divide overrides into the fixed ones, as they were given, and distributions by the swept key.

    The last override of a key counts. A key keeps its + or ++. Raises `SweepError` for an invalid sweep.
    """
    fixed: list[Override] = []
    distributions: dict[str, tuple[Override, BaseDistribution]] = {}
    for override in overrides:
        distributions = {key: (o, d) for key, (o, d) in distributions.items() if not _same(o, override)}
        if override.is_sweep_override():
            fixed = [one for one in fixed if one.is_delete() or not _same(one, override)]
            distributions[override.get_key_element()] = (override, _distribution(override))
        else:
            fixed.append(override)
    lines = [str(override.input_line) for override in fixed]
    return lines, {key: distribution for key, (_, distribution) in distributions.items()}


def as_override(name: str, value: Value) -> str:
    """Return the override that sets `name` to `value`.

    A string in the form of a list or dict, as `split` returns it, is not quoted.
    """
    if value is None:
        return f"{name}=null"
    if isinstance(value, bool):
        return f"{name}={str(value).lower()}"
    if isinstance(value, float):
        return f"{name}={float(value)!r}"  # NumPy's floats have another repr()
    if isinstance(value, int):
        return f"{name}={value}"
    if _PLAIN.fullmatch(value) or _is_container(value):
        return f"{name}={value}"
    return f"{name}={QuotedString(value, Quote.single).with_quotes()}"


def values(distribution: BaseDistribution) -> list[Value] | None:
    """Return all values of a distribution in order, or None if it is continuous."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    assert isinstance(distribution, FloatDistribution)
    if distribution.step is None:
        return None
    # in decimals, in which 3 * 0.1 is 0.3
    low, high, step = (
        decimal.Decimal(str(x)) for x in (distribution.low, distribution.high, distribution.step)
    )
    return [float(low + step * index) for index in range(int((high - low) / step) + 1)]


def examples(distributions: Distributions) -> Iterator[list[str]]:
    """Yield overrides of jobs in which each choice of text, such as that of a group, occurs with each other.

    At most 100, since each takes time to compose.
    """
    points = [
        [as_override(name, one) for one in _examples(distribution)]
        for name, distribution in distributions.items()
    ]
    yield from map(list, islice(product(*points), 100))


def _examples(distribution: BaseDistribution) -> list[Value]:
    """Return values of which one can be composed if any can: all texts, or a number."""
    if isinstance(distribution, CategoricalDistribution):
        return [one for one in distribution.choices if isinstance(one, str)] or [*distribution.choices[:1]]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low]


def _same(one: Override, other: Override) -> bool:
    return (one.key_or_group, one.package) == (other.key_or_group, other.package)


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


def _is_container(value: str) -> bool:
    if not value.startswith(("[", "{")):
        return False
    try:
        return isinstance(OverridesParser.create().parse_rule(value, "element"), list | dict)
    except HydraException:
        return False
