"""Feature engineering against scikit-learn where it has the same, by hand elsewhere; and what the ports take.

Covers tlkit/engines/classic/encoders.py, tlkit/engines/classic/numbers.py, tlkit/engines/classic/values.py,
tlkit/core/model/plain.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.preprocessing import Normalizer, StandardScaler

from tests.engines.classic.specs import arrays, blank, load, rows
from tlkit.core.model.values import collect, parse_inputs
from tlkit.errors import ExecutionError, LoadError, UsageError

X = np.random.default_rng(0).standard_normal((6, 4)) * [1, 5, 0.1, 3] + [0, 1, 2, -3]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("unknown", [0, 1])
def test_one_hot(tmp_path: Path, sparse: bool, unknown: int) -> None:
    model = blank("oneHotEncoder", {"sex": "string"}, {"hot": "int to double" if sparse else 2})
    model.oneHotEncoder.stringCategories.vector.extend(["F", "M"])
    model.oneHotEncoder.outputSparse, model.oneHotEncoder.handleUnknown = sparse, unknown
    loaded = load(model, tmp_path)
    found = loaded.predict({"sex": "M"})["hot"]
    assert found == {1: 1.0} if sparse else found.tolist() == [0.0, 1.0]
    if unknown:
        other = loaded.predict({"sex": "?"})["hot"]
        assert other == {} if sparse else other.tolist() == [0.0, 0.0]
    else:
        with pytest.raises(ExecutionError, match="not a category"):
            loaded.predict({"sex": "?"})


def test_dictionaries_to_vectors(tmp_path: Path) -> None:
    tables = [{"a": 1.0, "c": 3.0}, {"b": -2.0}, {"a": 4.0, "unknown": 9.0}]
    fitted = DictVectorizer(sparse=False).fit([{"a": 1, "b": 1, "c": 1}])
    model = blank("dictVectorizer", {"words": "text to double"}, {"x": 3})
    model.dictVectorizer.stringToIndex.vector.extend(fitted.feature_names_)
    found = rows(model, tmp_path, [{"words": table} for table in tables])
    assert np.array_equal([row["x"] for row in found], fitted.transform(tables))


def test_features_one_after_another(tmp_path: Path) -> None:
    inputs = {"sparse": "int to double", "age": "int64", "weight": "double", "more": 2}
    model = blank("featureVectorizer", inputs, {"x": 7})
    for name, size in (("sparse", 3), ("age", 1), ("more", 2), ("weight", 1)):
        model.featureVectorizer.inputList.add(inputColumn=name, inputDimensions=size)
    loaded = load(model, tmp_path)
    given: dict[str, Any] = {"sparse": {1: 0.5}, "age": 40, "weight": 71.5, "more": [1, 2]}
    assert loaded.predict(given)["x"].tolist() == [0, 0.5, 0, 40, 1, 2, 71.5]
    with pytest.raises(ExecutionError, match="key 3"):
        loaded.predict(given | {"sparse": {3: 1.0}})


def test_scaling_shifts_first(tmp_path: Path) -> None:
    fitted = StandardScaler().fit(X)
    model = blank("scaler", {"x": 4}, {"y": 4})
    model.scaler.shiftValue.extend((-fitted.mean_).tolist())
    model.scaler.scaleValue.extend((1 / fitted.scale_).tolist())
    found = rows(model, tmp_path, arrays(X))
    assert np.allclose([row["y"] for row in found], fitted.transform(X), rtol=1e-12)


@pytest.mark.parametrize(("number", "norm"), [(1, "l1"), (2, "l2")])
def test_norms(tmp_path: Path, number: int, norm: str) -> None:
    model = blank("normalizer", {"x": 4}, {"y": 4})
    model.normalizer.normType = number
    x = np.concatenate([X, np.zeros((1, 4))])
    found = rows(model, tmp_path, arrays(x))
    assert np.allclose([row["y"] for row in found], Normalizer(norm).transform(x), rtol=1e-12)


def test_the_largest_element_is_no_magnitude(tmp_path: Path) -> None:
    model = blank("normalizer", {"x": 3}, {"y": 3})
    assert load(model, tmp_path).predict({"x": [-8.0, 4.0, 2.0]})["y"].tolist() == [-2.0, 1.0, 0.5]


def test_missing_values(tmp_path: Path) -> None:
    model = blank("imputer", {"x": 3}, {"y": 3})
    model.imputer.imputedDoubleArray.vector.extend([7.0, 8.0, 9.0])
    assert load(model, tmp_path).predict({"x": [1.0, np.nan, 3.0]})["y"].tolist() == [1.0, 8.0, 3.0]
    model.imputer.replaceDoubleValue = -1.0
    found = load(model, tmp_path).predict({"x": [-1.0, np.nan, 3.0]})["y"]
    assert found[0] == 7.0 and np.isnan(found[1]) and found[2] == 3.0
    words = blank("imputer", {"x": "text to double"}, {"y": "text to double"})
    for key, value in (("a", 1.0), ("b", 2.0)):
        words.imputer.imputedStringDictionary.map[key] = value
    found = load(words, tmp_path).predict({"x": {"a": float("nan"), "c": 5.0}})["y"]
    assert found == {"a": 1.0, "b": 2.0, "c": 5.0}


def test_categories(tmp_path: Path) -> None:
    model = blank("categoricalMapping", {"x": "string"}, {"y": "int64"})
    model.categoricalMapping.stringToInt64Map.map["red"] = 4
    with pytest.raises(ExecutionError, match="does not know"):
        load(model, tmp_path).predict({"x": "blue"})
    model.categoricalMapping.int64Value = -1
    loaded = load(model, tmp_path)
    assert (loaded.predict({"x": "red"})["y"], loaded.predict({"x": "blue"})["y"]) == (4, -1)


def test_picking_and_passing_on(tmp_path: Path) -> None:
    model = blank("arrayFeatureExtractor", {"x": 4}, {"y": 2})
    model.arrayFeatureExtractor.extractIndex.extend([3, 0])
    assert load(model, tmp_path).predict({"x": [1, 2, 3, 4]})["y"].tolist() == [4, 1]
    model.arrayFeatureExtractor.extractIndex.append(4)
    with pytest.raises(LoadError, match="has 4 numbers, no number 4"):
        load(model, tmp_path).predict({"x": [1, 2, 3, 4]})
    sizes = model.description.input[0].type.multiArrayType.shapeRange.sizeRanges
    sizes.add(lowerBound=1, upperBound=9)
    with pytest.raises(ExecutionError, match="no number 4"):
        load(model, tmp_path).predict({"x": [1, 2, 3, 4]})
    same = blank("identity", {"a": "double", "b": "string"}, {"a": "double", "b": "string"})
    assert load(same, tmp_path).predict({"a": 1.5, "b": "text"}) == {"a": 1.5, "b": "text"}


def test_what_only_apples_systems_have_is_named(tmp_path: Path) -> None:
    model = blank("visionFeaturePrint", {"x": 4}, {"y": 4})
    with pytest.raises(LoadError, match=r"visionFeaturePrint.*only Apple"):
        load(model, tmp_path).prepare()


def test_words_of_the_command_line(tmp_path: Path) -> None:
    model = load(blank("identity", *[{"t": "string", "d": "int to double", "s": "ints", "n": "double"}] * 2), tmp_path)
    texts = ["t=[not json", 'd={"3": 0.5}', "s=[1, 2]", "n=2.5"]
    values = collect(model.inputs, texts, [], 0, lambda _: None)
    assert model.predict(values) == {"t": "[not json", "d": {3: 0.5}, "s": [1, 2], "n": 2.5}
    assert parse_inputs(['d={"a": 1}', "t=hello", "n=2.5"]) == {"d": {"a": 1}, "t": "hello", "n": 2.5}
    for wrong in ({"t": 5}, {"d": {"x": 1.0}}, {"s": ["a"]}, {"d": {1: "a"}}, {"n": "text"}):
        with pytest.raises((UsageError, LoadError)):
            model.predict(values | wrong)
    with pytest.raises(UsageError, match="cannot be drawn"):
        collect(model.inputs, texts[1:], [], 0, lambda _: None)
