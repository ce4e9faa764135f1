"""Models without an mlprogram's program, opened with one: what it computes beside a formula, and what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import tlkit
from tests.engines.classic.specs import blank, load
from tlkit.core.convert.classic.program import as_program, open_program
from tlkit.errors import ConversionError
from tlkit.formats.coreml.open import open_package

MODELS = Path(__file__).parents[5] / "shared/models"


def line(names: list[str], output: str) -> Any:
    """A linear regression of numbers by ``names``: 2 a - 3 b + 0.5."""
    model = blank("pipelineRegressor", dict.fromkeys(names, "double"), {output: "double"})
    model.description.predictedFeatureName = output
    joined = blank("featureVectorizer", dict.fromkeys(names, "double"), {"all": len(names)})
    for name in names:
        joined.featureVectorizer.inputList.add(inputColumn=name, inputDimensions=1)
    last = blank("glmRegressor", {"all": len(names)}, {output: "double"})
    last.description.predictedFeatureName = output
    last.glmRegressor.weights.add().value.extend([2.0, -3.0])
    last.glmRegressor.offset.append(0.5)
    model.pipelineRegressor.pipeline.models.extend([joined, last])
    return model


def test_names_that_an_mlprogram_cannot_have_become_others(tmp_path: Path) -> None:
    load(line(["leaf size", "leaf-size"], "1st"), tmp_path)
    opened = open_program(tmp_path / "model.mlmodel")
    description = opened.package.model.description
    assert opened.kind == "classic"
    assert [port.name for port in description.input] == ["leaf_size", "leaf_size_"]
    assert description.predictedFeatureName == description.output[0].name == "_1st"
    (told,) = opened.notes
    assert "'leaf size' is leaf_size," in told and "'leaf-size' is leaf_size_," in told and "'1st' is _1st" in told
    with as_program(tmp_path / "model.mlmodel") as path:
        found = tlkit.load_model(path, engine="eager").predict({"leaf_size": [1.5], "leaf_size_": [0.25]})
    assert float(found["_1st"][0]) == 2.75 and not path.exists()


def test_a_model_with_a_program_is_its_own(tmp_path: Path) -> None:
    path = MODELS / "mlmodelc/add_model.mlmodelc"
    if not path.exists():
        pytest.skip("shared/models is not here")
    opened = open_program(path)
    assert opened.kind == "compiled" and not opened.notes
    with as_program(path) as same:
        assert same == path


def test_what_has_no_program_is_said_once_with_its_file(tmp_path: Path) -> None:
    load(blank("kNearestNeighborsClassifier", {"x": 2}, {"y": "string"}), tmp_path)
    with pytest.raises(ConversionError) as refused:
        open_program(tmp_path / "model.mlmodel")
    assert refused.value.message.count("model.mlmodel") == 1


@pytest.mark.slow
def test_a_linear_model_becomes_onnx(tmp_path: Path) -> None:
    load(line(["a", "b"], "y"), tmp_path)
    assert tlkit.convert(tmp_path / "model.mlmodel", tmp_path / "new.onnx").ok
    given = {"a": np.array([1.5], np.float32), "b": np.array([0.25], np.float32)}
    (found,) = onnxruntime.InferenceSession(str(tmp_path / "new.onnx")).run(None, given)
    np.testing.assert_array_equal(found, [2.75])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlmodel/Exermote_lstm.mlmodel", "mlmodelc/add_model.mlmodelc"])
def test_real_models_become_packages(name: str, tmp_path: Path) -> None:
    """The first needs a sequence and hard sigmoids, which coremltools checks the names of; the second is compiled."""
    if not (MODELS / name).exists():
        pytest.skip("shared/models is not here")
    made = tlkit.convert(MODELS / name, tmp_path / "new.mlpackage")
    assert made.ok and made.verification is not None and made.precision == "f16"
    program = open_package(made.path).program
    assert program is not None
    kinds = {item.type for item in program.function().block.operations} - {"const"}
    # A compiled program in f16 has no casts around its operations that it did not have.
    assert kinds == {"mul"} if name.endswith("c") else "lstm" in kinds
    assert min(found.cosine for found in made.verification.outputs.values()) > 0.9999
