"""Places in a stored vocabulary are those of a dictionary of it."""

from __future__ import annotations

import struct
from array import array

from hypothesis import given
from hypothesis import strategies as st

from tlkit.core.language.text.places import StoredPlaces
from tlkit.formats.gguf.header import Strings

TOKENS = st.lists(
    st.binary(max_size=6) | st.sampled_from([b"", b"a", b"ab", b"b\0", b"\xff", "é".encode()]), min_size=1
)


def stored(tokens: list[bytes]) -> Strings:
    data, ends = b"", array("Q")
    for token in tokens:
        data += struct.pack("<Q", len(token)) + token
        ends.append(len(data))
    return Strings(memoryview(data), ends, 8)


@given(TOKENS, st.text(max_size=4))
def test_every_string_is_found_where_it_is_first(tokens: list[bytes], other: str) -> None:
    strings = stored(tokens)
    told = [token.decode("utf-8", "surrogateescape") for token in tokens]
    assert list(strings) == strings[:] == told
    places = StoredPlaces(strings)
    assert [places.get(token) for token in told] == [told.index(token) for token in told]
    assert places.get(other) == (told.index(other) if other in told else None)
    assert places.distinct == len(set(told))


def test_strings_that_are_hashed_apart_from_one_another_have_their_places() -> None:
    tokens = [b"t%d" % (place // 2) for place in range(1 << 15)]  # several times what is hashed at once
    places = StoredPlaces(stored(tokens))
    assert [places.get(f"t{number}") for number in (0, 4095, 4096, 16383)] == [0, 8190, 8192, 32766]
    assert places.get("t16384") is None
    assert places.get("\ud800") is None  # no bytes have this text
