"""What every command shows at 50 columns: no line is longer, and no figure that a wide screen shows is lost."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import Shell
from tests.core.rows import row, run
from tests.formats import packages
from tlkit.core.bench.rows import OpCost, Placement
from tlkit.core.bench.saved import SCHEMA_VERSION

COMMANDS = [
    "inspect net.mlpackage",
    "inspect net.mlpackage --ops",
    "inspect net.mlpackage --ops --depth 1",
    "inspect net.mlpackage --weights",
    "inspect net.mlpackage --stats",
    "inspect net.mlpackage --tree",
    "inspect net.mlpackage --risks",
    "inspect net.mlpackage --placement --per-op",
    "inspect .",
    "run net.mlpackage --seed 1",
    "run net.mlpackage --until linear_0",
    "ops conv*",
    "bench --show run.json",
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from tlkit.cli.views.bench.formats import document
    from tlkit.words import jsonable

    packages.classifier(tmp_path / "net.mlpackage")
    op = OpCost("block_1_conv_with_a_long_name", "conv", "cpu", 0.75, 123456.0, 1, ("1x64x56x56",), ("1x64x28x28",))
    plan = Placement("measured", {"cpu": 3}, {"cpu": 1.0}, (op, op), {"gmacs_per_s": 123.4, "gb_per_s": 23.4})
    rows = [row("cpu", 1.2345e6, placement=plan), row("net.py:SomeNetwork/gpu", 2.5e6, seed=3)]
    import json

    told = {"schema_version": 1} | jsonable(document(run(*rows), (), ()))
    assert told["run_version"] == SCHEMA_VERSION
    (tmp_path / "run.json").write_text(json.dumps(told))
    np.save(tmp_path / "x.npy", np.ones(3))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _figures(text: str) -> Counter[str]:
    return Counter(re.findall(r"(?<![\w.])\d[\d.,x]*\d|(?<![\w.])\d(?![\w.])", text))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", [50, 60, 80])
def test_no_line_is_longer_and_no_figure_is_lost(
    tlkit: Shell, here: Path, monkeypatch: pytest.MonkeyPatch, command: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", "900")
    wide = tlkit(*command.split())
    monkeypatch.setenv("COLUMNS", str(columns))
    narrow = tlkit(*command.split())
    assert wide.code == narrow.code == 0
    for line in narrow.out.splitlines():
        longest = max((len(word) for word in line.split()), default=0)
        # A command is there to be pasted; one word can be longer than the screen.
        assert len(line) <= columns or longest > columns - 24 or line.lstrip().startswith("tlkit "), line
    lost = _figures(wide.out) - _figures(narrow.out)
    assert not lost, narrow.out
