"""``convert --plan``: a placement, and nothing written.

Covers tlkit/core/inspect/plan.py, tlkit/core/convert/capture/places.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import Shell
from tlkit import convert
from tlkit.core.inspect.plan import Plan
from tlkit.errors import UsageError

SOURCE = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(64, 64, 3)
    def forward(self, x):
        return torch.sinh(self.conv(x))
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(SOURCE)
    return f"{tmp_path / 'net.py'}:Net"


def test_a_source_is_placed_and_nothing_is_written(tlkit: Shell, source: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    done = tlkit("convert", source, "--input", "x=1x64x32x32", "--plan", "--units", "ane,cpu", "--json")
    assert done.code == 0, done.err
    ane, cpu = done.json()["placement"]
    assert [row["type"] for row in ane["per_op"] if row["type"] in ("conv", "sinh")] == ["conv", "sinh"]
    assert {row["rule"] for row in ane["reasons"]} >= {"ANE-op"}
    told = {row["type"]: (row["module"], row["line"], row["after"]) for row in ane["per_op"]}
    assert (told["conv"], told["sinh"]) == (("conv", "net.py:8", ""), ("", "net.py:8", ""))
    assert "net.py:8" in ane["reasons"][0]["modules"][-1]
    assert (ane["setting"], cpu["setting"], cpu["counts"]["ane"]) == ("ane", "cpu", 0)
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "__pycache__"] == before


def test_a_module_is_placed(source: str) -> None:
    import torch

    found = convert(torch.nn.Conv2d(4, 4, 3), inputs={"x": (1, 4, 8, 8)}, plan=True)
    assert isinstance(found, Plan) and found.source == "Conv2d"
    assert any(placed.type == "conv" for placed in found.predictions[0].operations)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"plan": True, "chip": "m99"}, "unknown chip 'm99'"),
        ({"plan": True, "output": "x.onnx"}, "--plan is for packages"),
        ({"output": "x.mlpackage", "chip": "m4"}, "--chip goes with --plan"),
        ({}, "nowhere to write to"),
    ],
)
def test_wrong_calls(source: str, how: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        convert(source, **how)  # type: ignore[arg-type]


def test_an_exported_module_tells_its_lines_and_a_package_keeps_them(tlkit: Shell, source: str, tmp_path: Path) -> None:
    package = tmp_path / "net.mlpackage"
    done = tlkit("convert", source, "--input", "x=1x64x32x32", "--export", "--no-verify", "-o", package)
    assert done.code == 0, done.err
    (found,) = tlkit("inspect", package, "--placement", "--json").json()["placement"]
    told = {row["type"]: (row["module"], row["line"]) for row in found["per_op"]}
    assert (told["conv"], told["sinh"]) == (("conv", "net.py:8"), ("", "net.py:8"))
    assert "tlkit.places" not in tlkit("inspect", package, "--json").json()["metadata"]["user"]
