"""What is drawn for inputs of texts, keys and categories: what the model itself lists, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlkit
from tests.engines.classic.specs import blank, load
from tlkit.core.bench.plan import Subject, Sweep, settings
from tlkit.core.model.known import known_values
from tlkit.errors import UsageError
from tlkit.types import Unit

MODELS = Path(__file__).parents[4] / "shared/models/mlmodel"


def encoder(source: str, kind: str, values: list[Any], made: str) -> Any:
    """A one-hot encoder of ``source``, which knows ``values`` and stops at others."""
    model = blank("oneHotEncoder", {source: kind}, {made: len(values)})
    which = "stringCategories" if kind == "string" else "int64Categories"
    getattr(model.oneHotEncoder, which).vector.extend(values)
    return model


def test_a_pipelines_categories_are_drawn(tmp_path: Path) -> None:
    model = blank("pipeline", {"size": "string", "count": "int64"}, {"a": 2, "b": 3})
    model.pipeline.models.extend(
        [encoder("size", "string", ["S", "Größe L"], "a"), encoder("count", "int64", [7, 9, 11], "b")]
    )
    load(model, tmp_path)
    drawn = [tlkit.run(tmp_path / "model.mlmodel", seed=seed).outputs for seed in range(12)]
    for name, width in (("a", 2), ("b", 3)):
        hot = np.array([outputs[name] for outputs in drawn])
        assert (hot.sum(1) == 1).all() and (hot.sum(0) > 0).all() and hot.shape == (12, width)


def test_a_dictionary_is_drawn_of_the_keys_that_are_known(tmp_path: Path) -> None:
    model = blank("dictVectorizer", {"words": "text to double"}, {"x": 20})
    model.dictVectorizer.stringToIndex.vector.extend(f"w{number}" for number in range(20))
    load(model, tmp_path)
    found = tlkit.run(tmp_path / "model.mlmodel").outputs["x"]
    assert np.count_nonzero(found) == 8 and set(found[found > 0]) <= {1.0, 2.0, 3.0}


@pytest.mark.slow
def test_bench_and_compare_draw_what_the_model_lists(tmp_path: Path) -> None:
    """An encoder stops at what it does not know, so that each drawn value must be one of the listed."""
    model = blank("pipeline", {"size": "string", "count": "int64", "words": "text to double"}, {"a": 2, "b": 3, "c": 1})
    words = blank("dictVectorizer", {"words": "text to double"}, {"c": 1})
    words.dictVectorizer.stringToIndex.vector.append("only")
    stages = [encoder("size", "string", ["S", "Größe L"], "a"), encoder("count", "int64", [7, 9, 11], "b"), words]
    model.pipeline.models.extend(stages)
    load(model, tmp_path)
    model.pipeline.models[2].dictVectorizer.stringToIndex.vector[:] = ["other"]
    (tmp_path / "other").mkdir()
    load(model, tmp_path / "other")
    one, other = tmp_path / "model.mlmodel", tmp_path / "other/model.mlmodel"
    assert tlkit.compare(one, one).verification.passed
    drawn = tlkit.compare(one, other)  # the first's key is drawn, and the second drops it
    assert {row.name for row in drawn.outputs if row.difference.max_abs} == {"c"}
    unknown = tlkit.compare(one, other, inputs=['words={"third": 1}', "size=S", "count=9"])
    assert not any(row.difference.max_abs for row in unknown.outputs)
    loaded = tlkit.load_model(one)
    subject = Subject("m", str(one), False, loaded.inputs, known=loaded.known)
    settings([subject], Sweep([Unit.CPU]), {}, 0, {}, tmp_path)
    with np.load(tmp_path / "inputs0.npz") as stored:
        size, count, words = json.loads(str(stored["j0"])), stored["a1"], json.loads(str(stored["j2"]))
    assert size["value"] in ("S", "Größe L") and count in (7, 9, 11) and words["pairs"][0][0] == "only"


def test_what_a_stage_makes_is_not_taken_for_an_input_of_its_name() -> None:
    model = blank("pipeline", {"x": "string"}, {"y": 2})
    passed = blank("categoricalMapping", {"x": "string"}, {"y": "string"})
    passed.categoricalMapping.stringToInt64Map.map.update({"one": 1})
    again = encoder("y", "string", ["inner"], "z")
    model.pipeline.models.extend([passed, again])
    assert known_values(model) == {"x": ["one"]}
    model.description.input.add(name="y").type.stringType.SetInParent()
    assert "y" not in known_values(model)


def test_a_text_that_no_stage_lists_is_asked_for(tmp_path: Path) -> None:
    load(blank("identity", {"t": "string"}, {"t": "string"}), tmp_path)
    with pytest.raises(UsageError, match="cannot be drawn at random"):
        tlkit.run(tmp_path / "model.mlmodel")


@pytest.mark.parametrize("name", ["GenderByName", "SentimentPolarity"])
def test_real_models_of_texts_run_on_what_they_know(name: str) -> None:
    path = MODELS / f"{name}.mlmodel"
    if not path.exists():
        pytest.skip("shared/models is not here")
    one, other = (tlkit.run(path, seed=seed).outputs for seed in (0, 5))
    assert one.keys() == other.keys() and one != other
