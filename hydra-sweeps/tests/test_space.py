"""Sweep overrides as distributions, and values as overrides."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hydra_sweeps import SweepError
from hydra_sweeps.grammar import parse
from hydra_sweeps.space import Distributions, distributions_of


def distributions(*lines: str) -> Distributions:
    return distributions_of(parse(lines))


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ("sgd,adam", CategoricalDistribution(["sgd", "adam"])),
        ("2,2.5,true,null,'a b'", CategoricalDistribution([2, 2.5, True, None, "a b"])),
        ("sort(c,a,b)", CategoricalDistribution(["a", "b", "c"])),
        ("[1,2],{a:1,b:'x y'}", CategoricalDistribution(["[1,2]", "{a:1,b:'x y'}"])),
        ("range(1,10,3)", IntDistribution(1, 7, step=3)),
        ("range(4)", IntDistribution(0, 3)),
        ("range(10,1,-3)", IntDistribution(4, 10, step=3)),
        ("range(0,1,0.1)", FloatDistribution(0.0, 0.9, step=0.1)),
        ("range(0,0.9,0.3)", FloatDistribution(0.0, 0.9, step=0.3)),  # as in Hydra, with binary fractions
        ("int(range(0.0,10.0,2.0))", IntDistribution(0, 8, step=2)),
        ("float(range(0,4))", FloatDistribution(0.0, 3.0, step=1.0)),
        ("tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("interval(1,10)", IntDistribution(1, 10)),
        ("'[1,2]','[INST] a'", CategoricalDistribution(["'[1,2]'", "'[INST] a'"])),  # no lists
        ("interval(start=1,end=10)", IntDistribution(1, 10)),
        ("interval(end=10,start=1)", IntDistribution(1, 10)),
        ("interval(0,0.5)", FloatDistribution(0.0, 0.5)),
        ("int(interval(1.0,10.5))", IntDistribution(1, 10)),
        ("float(interval(1,10))", FloatDistribution(1.0, 10.0)),
        ("tag(log, interval(1e-4, 1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("tag(log, int(interval(8, 64)))", IntDistribution(8, 64, log=True)),
    ],
)
def test_sweep_overrides_are_converted_to_distributions(sweep: str, expected: object) -> None:
    found = distributions(f"optim.x={sweep}")["optim.x"]
    assert found == expected
    assert str(found) == str(expected)  # distinguishes 1 and True


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("tag(geometric, interval(1,2))", "log"),
        ("tag(log, choice(1,2))", "log"),
        ("tag(log, interval(0,1.0))", "low"),
        ("tag(log, range(1,9,2))", "step"),
        ("interval(3.0,1.0)", "low"),
        ("range(3,3)", "no value"),
        ("1,1.0", "equal"),
        ("range(1,5,0)", "no value"),
        ("glob(*)", "ConfigLoader"),
    ],
)
def test_invalid_sweeps_are_refused(sweep: str, message: str) -> None:
    with pytest.raises(SweepError, match=message) as raised:
        distributions(f"optim.lr={sweep}")
    assert f"optim.lr={sweep}" in str(raised.value)
