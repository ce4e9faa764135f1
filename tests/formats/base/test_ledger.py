"""The account of a file's bytes: what is claimed, and what is left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tlkit.formats.base.ledger import Ledger, sentences
from tlkit.types import LeftOut

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted).map(tuple), max_size=8)


@given(claims=spans)
def test_what_is_left_is_what_no_claim_covers(claims: list[tuple[int, int]]) -> None:
    ledger = Ledger()
    ledger.enter("a", 60, "A")
    for start, end in claims:
        ledger.claim("a", start, end)
    free = set(range(60)).difference(*(range(start, end) for start, end in claims))
    assert sum(item.bytes or 0 for item in ledger.rest("r")) == len(free)


def test_claims_on_what_was_never_entered_count_for_nothing() -> None:
    ledger = Ledger()
    ledger.enter("a", 8, "A")
    ledger.claim("b")
    assert [(item.name, item.bytes, item.kind) for item in ledger.rest("r")] == [("A", 8, "unnamed")]
    ledger.claim("a")
    assert not list(ledger.rest("r")) and ledger.total == 8


def test_one_sentence_a_reason() -> None:
    items = [LeftOut(f"t{index}", "why", 4) for index in range(5)] + [LeftOut("m", "gone", None, "missing")]
    first, second = sentences(items)
    assert first == "left out: 't0', 't1', 't2' and 2 more (20 bytes): why" and second == "left out: 'm': gone"
