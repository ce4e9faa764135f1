"""The risks of whole packages: every function's, every stage's, and how a line puts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.formats import packages
from tlkit.core.inspect.inspect import inspect
from tlkit.core.inspect.risks import grave, package_risks, sampled_risks
from tlkit.errors import UsageError
from tlkit.formats.coreml.open import open_package
from tlkit.mil.risks.kit import Level, Risk, risk_text


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


def test_values_show_risks_with_their_ranges_and_mends(tmp_path: Path) -> None:
    """A linear layer whose sums pass the accumulator's end on one input, and not on another."""
    package = open_package(packages.linear(tmp_path / "n.mlpackage"))
    assert sampled_risks(package, ["x=[[0.01,0.01,0.01,0.01]]"]) == ()
    risks = sampled_risks(package, ["x=[[1e4,1e4,1e4,1e4]]"])
    assert {risk.row for risk in risks} == {"P4"}
    mended, seen = risks
    assert mended.mend.startswith("tlkit edit n.mlpackage --mend-risks: scaled by 2^-")
    assert "add to 4.75e+04" in mended.text
    # The last row of the matrix adds to 4.75, the first to 0.75.
    told = {span.value: (span.least, span.largest) for span in seen.measured}
    assert told["x"] == (1e4, 1e4) and told["result"] == (7500, 47488)
    with pytest.raises(UsageError, match="'z'"):
        sampled_risks(package, ["z=zeros"])


def test_a_folder_of_inputs_is_measured_whole(tmp_path: Path) -> None:
    """A risk that one of three files shows, and ranges over all that show it."""
    package = open_package(packages.linear(tmp_path / "n.mlpackage"))
    folder = tmp_path / "inputs"
    folder.mkdir()
    for name, value in (("a", 0.01), ("b", 1e4), ("c", -12000.0)):
        np.save(folder / f"{name}.npy", np.full((1, 4), value, np.float32))
    risks = sampled_risks(package, [f"x={folder}"])
    (seen,) = (risk for risk in risks if risk.measured)
    assert {span.value: (span.least, span.largest) for span in seen.measured}["x"] == (-12000, 1e4)
    assert [risk.row for risk in risks if "--mend-risks" in risk.mend] == ["P4"]
    (folder / "c.npy").unlink()
    (folder / "b.npy").unlink()
    assert sampled_risks(package, [str(folder)]) == ()
    (folder / "a.npy").unlink()
    with pytest.raises(UsageError, match="no file in it"):
        sampled_risks(package, [f"x={folder}"])


def test_a_model_without_a_program_is_not_run(tmp_path: Path) -> None:
    model = packages.MODEL.Model(specificationVersion=4)
    model.neuralNetwork.SetInParent()
    (tmp_path / "n.mlmodel").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="--risks with --input runs a program"):
        inspect(tmp_path / "n.mlmodel", inputs=["x=zeros"])
