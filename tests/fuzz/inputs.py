"""Hostile content of a file: random bytes, and valid files with a few changes."""

import struct
from collections.abc import Sequence

from hypothesis import strategies as st

# Numbers at the ends of their ranges, in the forms in which headers hold them.
NUMBERS = [
    struct.pack(form, number & (256 ** struct.calcsize(form) - 1))
    for form in ("B", "<H", ">H", "<I", ">I", "<Q")
    for number in (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, -1)
]


@st.composite
def changed(draw: st.DrawFn, samples: Sequence[bytes], tokens: Sequence[bytes] = ()) -> bytes:
    """One of the samples after one to five changes.

    A change flips a bit, overwrites a number, cuts the end off, or removes, repeats or inserts a piece.
    """
    content = bytearray(draw(st.sampled_from(samples)))
    pieces = [*tokens, *NUMBERS]
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["bit", "number", "end", "remove", "repeat", "insert", "insert"])):
            case "bit" if place < len(content):
                content[place] ^= 1 << draw(st.integers(0, 7))
            case "number":
                number = draw(st.sampled_from(NUMBERS))
                content[place : place + len(number)] = number
            case "end":
                del content[place:]
            case "remove":
                del content[place : place + draw(st.integers(1, 100))]
            case "repeat":
                content[place:place] = content[place : place + draw(st.integers(1, 100))] * draw(
                    st.sampled_from([1, 2, 50])
                )
            case "insert":
                content[place:place] = draw(st.sampled_from(pieces) | st.binary(min_size=1, max_size=8))
    return bytes(content)


def hostile(samples: Sequence[bytes], tokens: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """Return changed samples, and now and then random bytes."""
    some = changed(samples, tokens)
    return st.one_of(some, some, some, some, some, some, some, st.binary(max_size=2000))
