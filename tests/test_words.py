"""Sizes and counts as they are printed."""

from __future__ import annotations

import pytest

from tlkit.words import byte_text, count_text, macs_text


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


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 MACs"), (4_089_184_256, "4.09 GMACs"), (300_774_272, "301 MMACs")]
)
def test_macs_have_their_unit(count: int, text: str) -> None:
    assert macs_text(count) == text
