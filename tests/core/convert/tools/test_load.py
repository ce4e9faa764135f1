"""Importing coremltools: what is left out, and that nothing is missing for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tlkit.core.convert.tools import load

_TOLD = """
import json, sys, torch
{how}
from coremltools import _deps
from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY as registry
from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY as passes
seen = {{name: value for name, value in vars(_deps).items() if name.startswith("_HAS_")}}
early = "sklearn" in sys.modules
import sklearn.linear_model
told = sorted(registry.name_to_func_mapping), sorted(passes.passes), sorted(vars(coremltools))
print(json.dumps([seen, *told, early]))
"""


@pytest.mark.parametrize(
    ("tools", "learn", "left_out"),
    [("9.0", "1.9.1", True), ("9.0", "0.16", True), ("9.0", "1.5.1", False), ("9.1", "1.9.1", False)],
)
def test_what_coremltools_would_drop(tools: str, learn: str, left_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    monkeypatch.setattr(load, "version", {"coremltools": tools, "scikit-learn": learn}.__getitem__)
    assert load.dropped() is left_out


def test_what_is_imported_already_is_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", sys)
    assert not load.dropped()


@pytest.mark.slow
def test_coremltools_is_as_its_import_makes_it() -> None:
    """It has found the same packages, has the same operations and passes, and scikit-learn can be imported."""
    ways = ("import coremltools", "from tlkit.core.convert.tools.load import load_tools; coremltools = load_tools()")
    plain, ours = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", _TOLD.format(how=how)], capture_output=True, text=True, check=True
            ).stdout.splitlines()[-1]
        )
        for how in ways
    )
    assert ours[:-1] == plain[:-1]
    assert not ours[-1]
