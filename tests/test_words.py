"""Sizes and counts as they are printed."""

from __future__ import annotations

import pytest

from tlkit.words import BYTES, byte_text, count_text, macs_text, number_of, one, quantity


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (62_345, "62.3 kB"), (999_499, "999 kB"), (999_500, "1 MB"),
        (1_134_567_890, "1.13 GB"), (5.1e15, "5100 TB"), (None, "-"),
    ],
)  # fmt: skip
def test_bytes_have_three_figures_and_decimal_units(count: int | None, text: str) -> None:
    assert byte_text(count) == text


@pytest.mark.parametrize(("count", "text"), [(7, "7"), (999, "999"), (25_557_032, "25.6M"), (1_236_000_000, "1.24B")])
def test_counts_have_three_figures(count: int, text: str) -> None:
    assert count_text(count) == text


def test_a_noun_takes_an_s_where_it_is_not_one() -> None:
    assert [number_of(count, "job") for count in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 MACs"), (4_089_184_256, "4.09 GMACs"), (300_774_272, "301 MMACs")]
)
def test_macs_have_their_unit(count: int, text: str) -> None:
    assert macs_text(count) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("500MB", 5e8), ("1.5 GiB", 1.5 * 2**30), ("2k", 2000), (" .5 kb ", 500), ("3B", 3), ("1TiB", 2**40),
        ("5", None), ("5 XB", None), ("1.2.3 GB", None), ("-1GB", None), ("GB", None), ("5 G B", None), ("", None),
    ],
)  # fmt: skip
def test_a_quantity_is_a_number_and_a_unit(text: str, found: float | None) -> None:
    assert quantity(text, BYTES) == found


def test_an_article_goes_by_the_first_letter() -> None:
    assert one("wordTagger") == "a wordTagger" and one("audioFeaturePrint") == "an audioFeaturePrint"
