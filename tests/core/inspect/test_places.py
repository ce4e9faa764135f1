"""What a package records of its operations' origins, and what is made of a record that is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.formats import packages
from tlkit.core.inspect.places import KEY, Origin, place_of, record, recorded
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.package import Package

PLACES = {"conv_0": Origin("blocks.0", "net.py:12"), "add_1": Origin("", "net.py:14"), "add_2": Origin("", "net.py:14")}


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return open_package(packages.accumulator(tmp_path / "a.mlpackage"))


def test_what_is_recorded_is_read_of_its_own_function(package: Package) -> None:
    user = package.model.description.metadata.userDefined
    assert recorded(package) == {}
    user[KEY] = record(PLACES)
    first, second = package.program.functions if package.program else ("", "")
    assert recorded(package) == recorded(package, first) == PLACES
    assert recorded(package, second) == {}
    user[f"tlkit.{second}.places"] = record({"x": Origin("a", "")})
    assert recorded(package, second) == {"x": Origin("a", "")}


@pytest.mark.parametrize("text", ["", "{", "[1]", '[["a","b"]]', '[["a","b",3]]', "null", '{"a":1}'])
def test_a_damaged_record_is_none(package: Package, text: str) -> None:
    package.model.description.metadata.userDefined[KEY] = text
    assert recorded(package) == {}


def test_what_ane_rewrote_comes_from_where_the_original_does() -> None:
    found = [place_of(PLACES, name) for name in ("conv_0", "conv_0_ane", "add_1_ane_3", "add_1_pixels")]
    assert found == [PLACES["conv_0"], PLACES["conv_0"], PLACES["add_1"], None]
