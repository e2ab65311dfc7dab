"""Hostile content of a file: random bytes, and valid files with a few changes; and keys of settings."""

import random
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

# Numbers at the ends of their ranges, in the forms in which headers hold them.
NUMBERS = [
    struct.pack(form, number & (256 ** struct.calcsize(form) - 1))
    for form in ("B", "<H", ">H", "<I", ">I", "<Q")
    for number in (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, -1)
]


def hostile(samples: Sequence[bytes], tokens: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """Return samples with one to five changes, and one time in ten random bytes.

    An input is a function of one number, which is much faster than a choice of each change.
    """
    return st.integers(0, 2**64 - 1).map(lambda seed: _made(random.Random(seed), samples, tokens))


def keys_of(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted keys of all settings and sections."""
    keys = []
    for key, value in settings.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            keys += keys_of(value, f"{prefix}{key}.")
    return keys


def _made(chance: random.Random, samples: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    if chance.random() < 0.1:
        return chance.randbytes(chance.choice([0, 1, 10, 100, 2000]))
    content = bytearray(chance.choice(samples))
    for _ in range(chance.randint(1, 5)):
        _change(content, chance, [*tokens, *tokens, *NUMBERS])
    return bytes(content)


def _change(content: bytearray, chance: random.Random, pieces: Sequence[bytes]) -> None:
    """Flip a bit, overwrite a number, cut the end off, or remove, repeat or insert a piece."""
    # headers are short and matter most
    place = chance.randint(0, chance.choice([min(64, len(content)), len(content)]))
    length = chance.choice([1, 2, 4, 30, 100])
    match chance.choice(["bit", "bit", "number", "number", "end", "remove", "repeat", "insert", "insert"]):
        case "bit" if place < len(content):
            content[place] ^= 1 << chance.randrange(8)
        case "number":
            number = chance.choice(NUMBERS)
            content[place : place + len(number)] = number
        case "end":
            del content[place:]
        case "remove":
            del content[place : place + length]
        case "repeat":
            content[place:place] = content[place : place + length] * chance.choice([1, 2, 50])
        case "insert":
            content[place:place] = chance.choice(pieces)
