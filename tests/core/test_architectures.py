"""Architectures of every kind convert with one command and agree with PyTorch in f16; some, both ways captured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'tlkit[hf]'")

from benchmarks.architectures import measured
from fixtures.architectures import ARCHITECTURES, build
from fixtures.catalogue import catalogue, missing
from tlkit.core.convert.convert import convert

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

CANNOT: dict[tuple[str, str], str] = {}
"""(architecture, way): why it cannot be converted. Each is a strict expected failure."""

CASES = [
    pytest.param(
        name,
        way == "export",
        id=f"{name}-{way}",
        marks=[pytest.mark.xfail(strict=True, reason=CANNOT[name, way])] if (name, way) in CANNOT else [],
    )
    for name in ARCHITECTURES
    for way in ("trace", "export")
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "export"), CASES)
def test_agrees_with_pytorch(name: str, export: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    result = convert(build(name), tmp_path / "m.mlpackage", inputs=ARCHITECTURES[name].inputs, export=export)
    assert result.verification is not None
    assert result.verification.reasons == ()
    assert set(result.verification.outputs) == set(ARCHITECTURES[name].keep)
    assert min(found.cosine for found in result.verification.outputs.values()) >= 0.999


QUICK = {"s4d", "dlrm"}
"""Of complex numbers and of bags: in every run."""
SEEN = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in catalogue()
    if name not in ARCHITECTURES
]


@pytest.mark.parametrize("name", SEEN)
def test_one_command_is_enough(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if absent := missing(catalogue()[name]):
        pytest.skip(f"{absent} is not installed")
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    row = measured(name)
    assert row.verdict == "agrees", row.reason


def test_how_many_kinds_there_are() -> None:
    groups = [kind.group for kind in catalogue().values()]
    assert groups.count("timm") >= 51
    assert groups.count("transformers") >= 58
    assert groups.count("others") >= 48
