"""The risks of whole packages: every function's, every stage's, and how a line puts them."""

from __future__ import annotations

from pathlib import Path

from tests.formats import packages
from tlkit.core.inspect.risks import grave, package_risks, risk_text
from tlkit.formats.coreml.open import open_package
from tlkit.mil.risks.kit import Level, Risk


def test_an_open_length_is_grave_and_a_state_is_named_once_for_two_functions(tmp_path: Path) -> None:
    open_one = package_risks(open_package(packages.relu(tmp_path / "o.mlpackage", (1, None), (1, 4))))
    assert [risk.row for risk in grave(open_one)] == ["C17"]
    assert not package_risks(open_package(packages.relu(tmp_path / "f.mlpackage", (1, 4), (1, 4))))
    model = packages.accumulator(tmp_path / "a.mlpackage")
    assert package_risks(open_package(model)) == package_risks(open_package(model), "second")


def test_listed_shapes_are_counted(tmp_path: Path) -> None:
    shapes = [(1, size) for size in range(1, 130)]
    found = package_risks(open_package(packages.two_listed(tmp_path / "m.mlpackage", shapes, shapes)))
    assert next(risk.places for risk in found if risk.row == "C3") == ("a", "b")


def test_a_model_without_a_program_has_none(tmp_path: Path) -> None:
    model = packages.MODEL.Model(specificationVersion=4)
    model.neuralNetwork.SetInParent()
    (tmp_path / "n.mlmodel").write_bytes(model.SerializeToString())
    assert package_risks(open_package(tmp_path / "n.mlmodel")) == ()


def test_a_line_names_three_places_and_counts_the_rest() -> None:
    risk = Risk("C4", Level.REFUSED, "GPU", "it fails", "do not", tuple("abcde"))
    assert risk_text(risk) == "GPU: it fails (a, b, c and 2 more; C4)"
