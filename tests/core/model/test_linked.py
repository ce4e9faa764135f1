"""Linked models: found by the paths that they give, in the folder that holds them, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engines.classic.specs import blank, load
from tlkit import load_model
from tlkit.errors import LoadError


def doubler() -> Any:
    model = blank("scaler", {"x": 1}, {"y": 1})
    model.scaler.scaleValue.append(2)
    return model


def link(name: str, paths: str = "") -> Any:
    model = blank("linkedModel", {"x": 1}, {"y": 1})
    model.linkedModel.linkedModelFile.linkedModelFileName.defaultValue = name
    model.linkedModel.linkedModelFile.linkedModelSearchPath.defaultValue = paths
    return model


def saved(model: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("name", "paths", "where"),
    [
        ("two.mlmodel", "", "two.mlmodel"),
        ("two.mlmodelc", "", "two.mlmodel"),  # not compiled here
        ("two.mlmodel", "parts", "parts/two.mlmodel"),
        ("two.mlmodel", "nowhere:.:parts", "parts/two.mlmodel"),
        ("two.mlmodel", "$BUNDLE_IDENTIFIER(com.example):$BUNDLE_MAIN", "two.mlmodel"),
    ],
)
def test_a_linked_model_runs(tmp_path: Path, name: str, paths: str, where: str) -> None:
    saved(doubler(), tmp_path / "in" / where)
    path = saved(link(name, paths), tmp_path / "in/one.mlmodel")
    assert load_model(path).predict({"x": [21.0]})["y"].tolist() == [42.0]


def test_a_stage_may_be_a_link(tmp_path: Path) -> None:
    line = blank("pipeline", {"x": 1}, {"z": 1})
    again = blank("scaler", {"y": 1}, {"z": 1})
    again.scaler.shiftValue.append(1)
    line.pipeline.models.extend([link("two.mlmodel"), again])
    saved(doubler(), tmp_path / "two.mlmodel")
    assert load_model(saved(line, tmp_path / "one.mlmodel")).predict({"x": [3.0]})["z"].tolist() == [7.0]


@pytest.mark.parametrize("paths", ["..", "/etc", "parts/../.."])
def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path, paths: str) -> None:
    saved(doubler(), tmp_path / "two.mlmodel")
    path = saved(link("two.mlmodel", paths), tmp_path / "in/one.mlmodel")
    with pytest.raises(LoadError, match="outside the package"):
        load_model(path).predict({"x": [1.0]})


def test_a_link_that_is_not_there_says_where_to_put_it(tmp_path: Path) -> None:
    path = saved(link("two.mlmodelc"), tmp_path / "one.mlmodel")
    with pytest.raises(LoadError, match=r"links to 'two\.mlmodelc', which is not there") as refused:
        load_model(path).predict({"x": [1.0]})
    assert str(tmp_path) in refused.value.hint


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    saved(link("one.mlmodel"), tmp_path / "two.mlmodel")
    path = saved(link("two.mlmodel"), tmp_path / "one.mlmodel")
    with pytest.raises(LoadError, match="link to each other without end"):
        load_model(path).predict({"x": [1.0]})


def test_a_pipeline_whose_output_no_stage_makes_is_refused(tmp_path: Path) -> None:
    made = blank("pipeline", {"x": 2}, {"y": 2})
    load(made, tmp_path)
    with pytest.raises(LoadError, match="no stage makes the output 'y'"):
        load(made, tmp_path).prepare()
    made.pipeline.models.append(blank("identity", {"x": 2}, {"y": 2}))
    assert load(made, tmp_path).predict({"x": [1.0, 2.0]})["y"].tolist() == [1, 2]
