"""A small part of `make fuzz`, the same in every run: no reader crashes, hangs, or takes memory."""

import pytest

from tests.fuzz.run import run
from tests.fuzz.targets import TARGETS

INPUTS = 60
FEW = {"arguments": 6, "report": 20, "run_settings": 30}  # a millisecond and more each


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_input_is_read_or_refused(name: str) -> None:
    inputs = FEW.get(name, INPUTS)
    result = run(name, inputs, derandomize=True)
    assert result.inputs >= inputs / 2
