"""Core ML models of the classic kinds, written message by message, and run through tlkit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tlkit
from tlkit.mil import coreml_proto

KINDS = {"array": "multiArrayType", "double": "doubleType", "int64": "int64Type", "string": "stringType"}


def blank(kind: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], version: int = 4) -> Any:
    """A Model of ``kind``; a port is "double", "int64", "string", "int to double", "text to double", or a width."""
    model = coreml_proto.module("Model_pb2").Model()
    model.specificationVersion = version
    getattr(model, kind).SetInParent()
    for ports, described in ((inputs, model.description.input), (outputs, model.description.output)):
        for name, what in ports.items():
            port = described.add(name=name).type
            if isinstance(what, int):
                port.multiArrayType.shape.append(what)
                port.multiArrayType.dataType = 65600  # DOUBLE
            elif what.endswith("to double"):
                keys = "int64KeyType" if what.startswith("int") else "stringKeyType"
                getattr(port.dictionaryType, keys).SetInParent()
            elif what.endswith("s"):
                getattr(port.sequenceType, "int64Type" if what == "ints" else "stringType").SetInParent()
            else:
                getattr(port, KINDS[what]).SetInParent()
    return model


def classifier(kind: str, width: int, labels: Sequence[Any]) -> Any:
    """A blank classifier of an array ``x``, its answers called ``label`` and ``shares``."""
    whole = not isinstance(labels[0], str)
    keys = "int to double" if whole else "text to double"
    model = blank(kind, {"x": width}, {"label": "int64" if whole else "string", "shares": keys})
    model.description.predictedFeatureName = "label"
    model.description.predictedProbabilitiesName = "shares"
    message = getattr(model, kind)
    (message.int64ClassLabels if whole else message.stringClassLabels).vector.extend(labels)
    return model


def regressor(kind: str, width: int) -> Any:
    """A blank regressor of an array ``x`` to a number ``y``."""
    model = blank(kind, {"x": width}, {"y": "double"})
    model.description.predictedFeatureName = "y"
    return model


def load(model: Any, folder: Path) -> tlkit.Model:
    """Write ``model`` and load it."""
    path = folder / "model.mlmodel"
    path.write_bytes(model.SerializeToString())
    return tlkit.load_model(path)


def rows(model: Any, folder: Path, features: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Run ``model`` on each of ``features``: all together, and the first one by itself, which must agree."""
    loaded, given = load(model, folder), list(features)
    found = loaded.predict_rows(given)
    alone = loaded.predict(given[0])
    assert set(alone) == set(found[0])
    for name, value in alone.items():
        assert same(value, found[0][name])
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two outputs are equal, numbers within rounding of a sum."""
    if isinstance(one, Mapping):
        return set(one) == set(other) and all(abs(one[key] - other[key]) < 1e-12 for key in one)
    return bool(np.allclose(one, other, rtol=1e-12)) if not isinstance(one, str | list) else bool(one == other)


def arrays(matrix: Any) -> list[dict[str, Any]]:
    """Each row of ``matrix`` as the input ``x``."""
    return [{"x": row} for row in np.asarray(matrix, np.float64)]


def shares(found: Sequence[Mapping[str, Any]], labels: Sequence[Any]) -> Any:
    """The probabilities [rows, labels] of what :func:`rows` returned."""
    return np.array([[row["shares"][label] for label in labels] for row in found])
