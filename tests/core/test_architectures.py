"""Twenty-one architectures of ``transformers`` convert, run here and agree with PyTorch in f16, both ways captured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'tlkit[hf]'")

from fixtures.architectures import ARCHITECTURES, build
from tlkit.core.convert.convert import convert

pytestmark = [
    pytest.mark.slow,
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


@pytest.mark.parametrize(("name", "export"), CASES)
def test_agrees_with_pytorch(name: str, export: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    result = convert(build(name), tmp_path / "m.mlpackage", inputs=ARCHITECTURES[name].inputs, export=export)
    assert result.verification is not None
    assert result.verification.reasons == ()
    assert set(result.verification.outputs) == set(ARCHITECTURES[name].keep)
    assert min(found.cosine for found in result.verification.outputs.values()) >= 0.999
