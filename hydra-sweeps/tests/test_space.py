"""Sweep overrides as distributions, and values as overrides."""

import importlib.util
import sys
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hydra_sweeps import space
from hydra_sweeps.interface import SweepError
from hydra_sweeps.space import Distributions, Value, as_override, split

REPOSITORY = Path(__file__).parents[2]


def split_lines(*lines: str) -> tuple[list[str], Distributions]:
    return split(OverridesParser.create().parse_overrides(list(lines)))


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ("sgd,adam", CategoricalDistribution(["sgd", "adam"])),
        ("2,2.5,true,null,'a b'", CategoricalDistribution([2, 2.5, True, None, "a b"])),
        ("shuffle(sort(c,a,b))", CategoricalDistribution(["a", "b", "c"])),
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
        ("interval(start=1,end=10)", IntDistribution(1, 10)),
        ("interval(0,0.5)", FloatDistribution(0.0, 0.5)),
        ("int(interval(1.0,10.5))", IntDistribution(1, 10)),
        ("float(interval(1,10))", FloatDistribution(1.0, 10.0)),
        ("tag(log, interval(1e-4, 1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("tag(log, int(interval(8, 64)))", IntDistribution(8, 64, log=True)),
    ],
)
def test_sweep_overrides_are_converted_to_distributions(sweep: str, expected: object) -> None:
    fixed, distributions = split_lines("seed=1", f"optim.x={sweep}")
    assert fixed == ["seed=1"]
    found = distributions["optim.x"]
    if isinstance(expected, CategoricalDistribution) and "shuffle" in sweep:
        assert isinstance(found, CategoricalDistribution)
        assert set(found.choices) == set(expected.choices)
        return
    assert found == expected
    assert str(found) == str(expected)  # distinguishes 1 and True


@pytest.mark.parametrize("sweep", ["range(0,0.9,0.3)", "range(0,1,0.1)", "range(5,1,-2)", "range(0,2,0.25)"])
def test_ranges_have_the_values_of_hydra(sweep: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"x={sweep}"])
    found = space.values(split([override])[1]["x"])
    assert found == pytest.approx(sorted(override.sweep_iterator()))  # type: ignore[type-var]


def test_discrete_distributions_are_enumerated() -> None:
    _, found = split_lines("a=x,y", "b=interval(2,4)", "c=range(0,1,0.25)", "d=interval(0.0,1.0)")
    listed = {name: space.values(distribution) for name, distribution in found.items()}
    assert listed == {"a": ["x", "y"], "b": [2, 3, 4], "c": [0.0, 0.25, 0.5, 0.75], "d": None}


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("tag(geometric, interval(1,2))", "log"),
        ("tag(log, choice(1,2))", "log"),
        ("tag(log, interval(0,1.0))", "low"),
        ("tag(log, range(1,9,2))", "step"),
        ("interval(3.0,1.0)", "low"),
        ("range(3,3)", "no value"),
        ("range(1,5,0)", "no value"),
        ("1,1.0", "equal"),
        ("glob(*)", "ConfigLoader"),
    ],
)
def test_invalid_sweeps_are_refused(sweep: str, message: str) -> None:
    with pytest.raises(SweepError, match=message) as raised:
        split_lines(f"optim.lr={sweep}")
    assert f"optim.lr={sweep}" in str(raised.value)


def test_glob_expands_to_the_options_of_a_group() -> None:
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        overrides = OverridesParser.create(loader).parse_overrides(["optim=glob(*,exclude=[r*,n*])"])
        _, distributions = split(overrides)
    assert distributions["optim"] == CategoricalDistribution(["adam", "adamw", "sgd"])


def test_the_last_override_of_a_key_counts() -> None:
    assert split_lines("a=1,2", "a=3") == (["a=3"], {})
    fixed, distributions = split_lines("a=3", "b=4", "a=1,2", "+a=5,6")
    assert fixed == ["b=4"]
    assert distributions == {"+a": CategoricalDistribution([5, 6])}


def test_deletions_and_additions_are_kept() -> None:
    fixed, distributions = split_lines("~callbacks.pictures", "+optim.dampening=0,0.1", "model@net=simple")
    assert fixed == ["~callbacks.pictures", "model@net=simple"]
    assert distributions == {"+optim.dampening": CategoricalDistribution([0, 0.1])}


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)


@given(st.sampled_from(["optim", "optim.lr", "+a.b_c", "hydra/launcher"]), scalars | st.text())
def test_overrides_round_trip(name: str, value: Value) -> None:
    assume(not isinstance(value, str) or not value.startswith(("[", "{")))
    (override,) = OverridesParser.create().parse_overrides([as_override(name, value)])
    assert override.get_key_element() == name
    assert override.value() == value
    assert type(override.value()) is type(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("adam", "adam"),
        ("conv-5/relu", "conv-5/relu"),
        ("null", "'null'"),
        ("TRUE", "'TRUE'"),
        ("1e3", "'1e3'"),
        ("a, b=c", "'a, b=c'"),
        ("[1,2]", "[1,2]"),
        ("{a:1}", "{a:1}"),
        ("[half", "'[half'"),
        (None, "null"),
        (True, "true"),
        (1e-5, "1e-05"),
    ],
)
def test_values_are_quoted_only_if_necessary(value: Value, expected: str) -> None:
    assert as_override("x", value) == f"x={expected}"


@pytest.mark.parametrize("module", ["space", "search"])
def test_a_missing_optuna_is_reported(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "optuna"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    path = Path(str(space.__file__)).with_name(f"{module}.py")
    spec = importlib.util.spec_from_file_location("fresh", path)
    assert spec is not None and spec.loader is not None
    with pytest.raises(SweepError, match=r"pip install optuna"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
