"""``tlkit compare``: the verdict as text, JSON, an exit code and a page.

Covers tlkit/cli/compare.py, tlkit/cli/views/judge/compare.py, tlkit/cli/views/judge/compare_page.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.commands import Shell
from tests.formats import packages


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return packages.linear(tmp_path / "linear.mlpackage")


def test_the_verdict_is_the_exit_code(tlkit: Shell, linear: Path) -> None:
    outcome = tlkit("compare", linear, "--precision", "f32,f16")
    assert outcome.code == 0 and "they agree" in outcome.out
    outcome = tlkit("compare", linear, "--precision", "f32,f16", "--min-snr", 300)
    assert outcome.code == 1 and "they DIFFER" in outcome.out


def test_json_and_page_hold_the_figures(tlkit: Shell, linear: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    outcome = tlkit("compare", linear, "--precision", "f32,f16", "--json", "--report", page)
    document = outcome.json()
    (found,) = document["outputs"]
    assert document["ok"] is True and found["difference"]["snr_db"] > 60 and found["top1"] == 1.0
    text = page.read_text()
    assert f"{found['difference']['snr_db']:.1f}" in text and 'class="bars"' in text
    # The bars count every error once.
    shares = [float(share) for share in re.findall(r"<span>([\d.]+)%</span>", text)]
    assert sum(shares) == pytest.approx(100, abs=1)
    again = tlkit("compare", linear, "--precision", "f32,f16", "--report", page)
    assert again.code == 2 and "--force" in again.err


def test_mistakes_are_two_lines(tlkit: Shell, linear: Path) -> None:
    for words in (("--metric", "psnr"), ("--precision", "f16,f32,f16"), ("--save-worst", "x.txt"), ()):
        outcome = tlkit("compare", linear, *words)
        assert outcome.code == 2 and len(outcome.err.strip().splitlines()) == 2, outcome.err


def test_a_nan_is_found_and_is_exit_1(tlkit: Shell, linear: Path) -> None:
    outcome = tlkit("compare", linear, "--find-nan", "--input", "x=[[1e38,0,0,0]]", "--json")
    document = outcome.json()
    assert outcome.code == 1 and document["ok"] is False and document["infinite"] + document["nan"] > 0
    outcome = tlkit("compare", linear, "--find-nan", "--input", "x=[[1,0,0,0]]")
    assert outcome.code == 0 and "finite" in outcome.out
    outcome = tlkit("compare", linear, linear, "--find-nan")
    assert outcome.code == 2 and "one model" in outcome.err
