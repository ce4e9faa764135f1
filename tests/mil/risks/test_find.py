"""Each rule on a program that its row is about, and on the nearest one that it is not about.

Covers tlkit/mil/risks/kit.py, tlkit/mil/risks/loading.py, tlkit/mil/risks/numbers.py, tlkit/mil/risks/placing.py,
tlkit/mil/risks/windows.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.mil.programs import tensor
from tests.mil.risks.programs import F16, FALL, ROW, chain, one
from tlkit.mil import ops
from tlkit.mil.program import Function, Value
from tlkit.mil.risks.find import FAMILIES, find_risks, merged
from tlkit.mil.risks.kit import Level, rules
from tlkit.types import ImageSpec, TensorSpec


def said(found: Function, row: str, phrase: str, **more: Any) -> bool:
    return any(risk.row == row and phrase in risk.text for risk in find_risks(found, **more))


@pytest.mark.parametrize("phrase", FALL)
def test_a_rule_finds_what_its_row_is_about_and_nothing_beside(phrase: str) -> None:
    row, about, beside = FALL[phrase]
    assert [said(program, row, phrase) for program in about] == [True] * len(about)
    assert [said(program, row, phrase) for program in beside] == [False] * len(beside)


def port(name: str, **more: Any) -> TensorSpec:
    return TensorSpec(name, more.pop("dtype", "float32"), (1, 4), **more)


def test_ports_and_sizes() -> None:
    net, open_net = one("relu", ROW), one("relu", tensor(F16, 1, None))
    many = [(1, size) for size in range(129)]
    assert said(net, "C3", "128 listed", inputs=[port("x", enumerated=tuple(many))])
    assert not said(net, "C3", "128 listed", inputs=[port("x", enumerated=tuple(many[:128]))])
    assert said(net, "I5", "int8", inputs=[port("x", dtype="int8")])
    assert said(net, "I5", "int8", outputs=[port("y", dtype="int8")])
    assert not said(net, "I5", "int8", inputs=[port("x", dtype="int32")])
    picture = port("y", kind="image", image=ImageSpec("RGB", 4, 4))
    assert said(open_net, "I5", "image output", outputs=[picture]) and not said(
        net, "I5", "image output", outputs=[picture]
    )
    assert said(net, "C2", "1 GB", weights=10**9 + 1) and not said(net, "C2", "1 GB", weights=10**9)


def test_every_rule_is_tested_and_each_is_found_by_its_words() -> None:
    texts = [item.text for item in rules()]
    here = set(FALL) | {"128 listed", "int8 inputs", "image output", "1 GB of weights"}
    for text in texts:
        assert sum(phrase in text for phrase in here) == 1, text
    assert len(texts) == len(here) and len({family.__name__ for family in FAMILIES}) == 4


def test_risks_are_told_once_gravest_first_with_all_their_places() -> None:
    bad = chain(tensor(F16, 1, None), ("cumsum", tensor(F16, 1, None), {}), ("cumsum", tensor(F16, 1, None), {}))
    found = find_risks(bad)
    assert [risk.level for risk in found] == sorted((risk.level for risk in found), key=list(Level).index)
    assert next(risk.places for risk in found if risk.row == "C8") == ("y0", "y1")
    both = merged([found, find_risks(one("cumsum", ROW))])
    assert [risk.places for risk in both if risk.row == "C8"] == [("y0", "y1", "y")]


ROWS = re.compile(r"^\| ([A-Z]\d+) \|", re.MULTILINE)


def page(root: Path) -> dict[str, str]:
    """What docs/fidelity.md says of each row that tlkit makes of it."""
    lines = (root / "docs/fidelity.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {row[0]: row[-1] for row in cells if re.fullmatch(r"[A-Z]\d+", row[0])}


def test_the_page_says_what_the_code_does(root: Path) -> None:
    told = page(root)
    static = {item.row for item in rules()}
    assert {row for row in static if "warned" not in told[row]} == set()
    measured = {found.row for found in ops.measurements()}
    assert {row for row in measured if not told[row].startswith("rule")} == set()
    assert all(re.match(r"rule|kept|warned|later|noted|profile|no\b", words) for words in told.values()), told


def test_the_page_has_every_row_of_the_collection(root: Path) -> None:
    collection = next(
        (base / "shared/coreml/QUIRKS.md" for base in root.parents if (base / "shared/coreml/QUIRKS.md").is_file()),
        None,
    )
    if collection is None:
        pytest.skip("the collection of measurements is not here")
    assert set(ROWS.findall(collection.read_text())) == set(page(root))


def test_a_damaged_program_is_looked_at_as_far_as_it_goes() -> None:
    scale = Value(tensor(F16), (float("nan"),))
    step = Value(tensor(F16), (float("inf"),))
    for bad in (
        one("upsample_nearest_neighbor", tensor(F16, 1, None), scale_factor_height=scale),
        one("range_1d", tensor(F16, 1, None), step=step, end=Value(tensor("int32"), b"")),
        one("layer_norm", tensor(F16, 1, None), axes=Value(tensor("int32", 1), b"12345")),
    ):
        assert [risk.row for risk in find_risks(bad) if risk.row == "C17"], bad
