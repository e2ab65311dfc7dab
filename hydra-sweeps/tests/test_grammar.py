"""Overrides: quoting, values, the last of a key, and names of folders."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given
from hypothesis import strategies as st

from hydra_sweeps import quote, unquote
from hydra_sweeps.grammar import Value, as_override, folder_name, last_of_each, parse, with_chosen


def last(*lines: str) -> list[str]:
    return [str(one.input_line) for one in last_of_each(parse(lines))]


@pytest.mark.parametrize("value", ["a", "lr=0.1,x", "it's", r"a\b", r"a\'b", "a b", "[1,2]", "null", "ä"])
def test_quoted_values_are_read_unchanged(value: str) -> None:
    override = OverridesParser.create().parse_override(f"x={quote(value)}")
    assert not override.is_sweep_override()
    assert getattr(override.value(), "text", override.value()) == value
    assert unquote(quote(value)) == value


@pytest.mark.parametrize("value", ["a", "'a','b'", "'half"])
def test_other_values_are_not_unquoted(value: str) -> None:
    assert unquote(value) == value


def test_the_last_override_of_a_key_counts() -> None:
    assert last("a=1,2", "a=3") == ["a=3"]
    assert last("a=3", "b=4", "a=1,2", "+a=5,6") == ["b=4", "+a=5,6"]


def test_deletions_and_additions_are_kept() -> None:
    lines = ["~callbacks.pictures", "+optim.dampening=0,0.1", "model@net=simple", "~model@net"]
    assert last(*lines) == lines


def test_chosen_values_take_the_place_of_their_sweep() -> None:
    overrides = parse(["opt={a:10},{a:11}", "opt.a=5", "+b=1,2", "c=3"])
    chosen = ["+b=2", "opt={a:11}", "suggested=0.1"]
    assert with_chosen(overrides, chosen) == ["opt={a:11}", "opt.a=5", "+b=2", "c=3", "suggested=0.1"]


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)


@given(st.sampled_from(["optim", "optim.lr", "+a.b_c", "hydra/launcher"]), scalars | st.text())
def test_overrides_round_trip(name: str, value: Value) -> None:
    assume(not isinstance(value, str) or not value.lstrip("'\"").startswith(("[", "{")))
    (override,) = parse([as_override(name, value)])
    assert override.get_key_element() == name
    assert override.value() == value
    assert type(override.value()) is type(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("adam", "adam"),
        ("conv-5/relu", "conv-5/relu"),
        ("/a/b", "/a/b"),
        ("'[1,2]'", "'[1,2]'"),
        ("null", "'null'"),
        ("TRUE", "'TRUE'"),
        ("1e3", "'1e3'"),
        ("a, b=c", "'a, b=c'"),
        ("[1,2]", "[1,2]"),
        ("{a:1}", "{a:1}"),
        (None, "null"),
        (True, "true"),
        (1e-5, "1e-05"),
    ],
)
def test_values_are_quoted_only_if_necessary(value: Value, expected: str) -> None:
    assert as_override("x", value) == f"x={expected}"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("lr=0.1,optim=sgd", "lr-0.1_optim-sgd"),
        ("optim.lr=1e-05,+data.std=2", "optim.lr-1e-05_+data.std-2"),
        ("""fail='a b/c:*?"<>|\\\\',x={a: 1}""", "fail-a_b-c-_x-a-_1"),
        (f"fail='{'数' * 300}'", f"fail-{'数' * 65}"),
    ],
)
def test_names_of_folders_need_no_quotes_anywhere(overrides: str, name: str) -> None:
    assert folder_name(overrides) == name
    assert not set(folder_name(overrides)) & set(""":*?"<>|=, '\\/""")
    assert len(folder_name(overrides).encode()) <= 200
