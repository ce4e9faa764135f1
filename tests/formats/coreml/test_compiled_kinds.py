"""Compiled classic models and pipelines: what ``coremldata.bin`` holds is the model, and runs as its source does."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlkit
from tests.core.convert.classic.test_making import grown, linear
from tests.engines.classic.specs import blank, load, regressor
from tests.formats.coreml.compiled import compiled, head, number
from tests.fuzz.seeds_old import classics
from tlkit.errors import LoadError
from tlkit.mil import coreml_proto

RNG = np.random.default_rng(5)


def parsed(data: bytes) -> Any:
    return coreml_proto.module("Model_pb2").Model.FromString(data)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("source", classics(), ids=lambda data: parsed(data).WhichOneof("Type"))
def test_a_compiled_model_gives_what_its_source_gives(tmp_path: Path, source: bytes, old: bool) -> None:
    model = parsed(source)
    one = load(model, tmp_path)
    other = tlkit.load_model(compiled(model, tmp_path / "m.mlmodelc", old=old))
    assert (other.info.kind, other.info.spec_version) == (one.info.kind, one.info.spec_version)
    given: dict[str, Any] = {}
    for spec in one.inputs:
        array = RNG.standard_normal(spec.shape or (1,))
        given[spec.name] = {"string": "b", "dictionary": {"a": 2.0}}.get(
            spec.kind, array if spec.kind == "tensor" else float(array[0])
        )
    wanted, found = one.predict(given), other.predict(given)
    assert wanted.keys() == found.keys() and len(found) == len(one.outputs)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value) if isinstance(value, np.ndarray) else None
        assert isinstance(value, np.ndarray) or found[name] == value


def test_pipelines_in_pipelines_run_compiled(tmp_path: Path) -> None:
    scaled = blank("scaler", {"x": 3}, {"s": 3})
    scaled.scaler.scaleValue.extend([1.0, -2.0, 0.5])
    inner = blank("pipeline", {"x": 3}, {"s": 3})
    inner.pipeline.models.append(scaled)
    line = linear(regressor("glmRegressor", 3), "glmRegressor", 1, 3)
    line.description.input[0].name = "s"
    whole = blank("pipelineRegressor", {"x": 3}, {"y": "double"})
    whole.description.predictedFeatureName = "y"
    whole.pipelineRegressor.pipeline.models.extend([inner, line])
    x = RNG.standard_normal(3)
    path = compiled(whole, tmp_path / "m.mlmodelc")
    message = line.glmRegressor
    wanted = np.dot(message.weights[0].value, x * [1.0, -2.0, 0.5]) + message.offset[0]
    assert tlkit.load_model(path).predict({"x": x})["y"] == pytest.approx(wanted, rel=1e-12)
    assert tlkit.load_model(path, stage="1..").predict({"s": x})["y"] == pytest.approx(
        np.dot(message.weights[0].value, x) + message.offset[0], rel=1e-12
    )


def test_a_form_that_is_not_known_is_said_and_not_run(tmp_path: Path) -> None:
    """An empty ensemble would answer 0."""
    trees = regressor("treeEnsembleRegressor", 2)
    grown(trees.treeEnsembleRegressor.treeEnsemble, 2, 1, 2, (0,))
    folder = tmp_path / "m.mlmodelc"
    folder.mkdir()
    body = trees.description.SerializeToString()
    (folder / "coremldata.bin").write_bytes(
        head(number(trees), "generic", 4) + struct.pack("<Q", len(body)) + body + struct.pack("<Q", 302) + b"\1" * 64
    )
    assert tlkit.inspect(folder).kind == "treeEnsembleRegressor"
    with pytest.raises(LoadError, match=r"a compiled treeEnsembleRegressor of the form 'generic'") as refused:
        tlkit.load_model(folder).predict({"x": np.zeros(2)})
    assert ".mlmodel" in refused.value.hint
