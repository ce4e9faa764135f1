"""A forest of 1,000 trees on 10,000 rows: tlkit beside scikit-learn's own predict, in turns, one thread each.

python benchmarks/trees.py [--rounds 5] [--trees 1000] [--rows 10000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sklearn.datasets import make_regression
from sklearn.ensemble import RandomForestRegressor

import tlkit
from tlkit.mil import coreml_proto


def model_of(forest: Any, width: int) -> Any:
    """Return the forest as a ``treeEnsembleRegressor``."""
    model = coreml_proto.module("Model_pb2").Model(specificationVersion=4)
    array = model.description.input.add(name="x").type.multiArrayType
    array.shape.append(width)
    array.dataType = 65600  # DOUBLE
    model.description.output.add(name="y").type.doubleType.SetInParent()
    model.description.predictedFeatureName = "y"
    parameters = model.treeEnsembleRegressor.treeEnsemble
    parameters.numPredictionDimensions = 1
    for number, estimator in enumerate(forest.estimators_):
        tree = estimator.tree_
        for node in range(tree.node_count):
            message = parameters.nodes.add(treeId=number, nodeId=node)
            if tree.children_left[node] < 0:
                message.nodeBehavior = 6
                value = float(tree.value[node][0, 0]) / len(forest.estimators_)
                message.evaluationInfo.add(evaluationIndex=0, evaluationValue=value)
                continue
            message.branchFeatureIndex, message.branchFeatureValue = int(tree.feature[node]), tree.threshold[node]
            message.trueChildNodeId = tree.children_left[node]
            message.falseChildNodeId = tree.children_right[node]
    return model


def main() -> None:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trees", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--depth", type=int, default=8)
    asked = parser.parse_args()
    x, y = make_regression(asked.rows, 20, random_state=0)
    forest = RandomForestRegressor(asked.trees, max_depth=asked.depth, random_state=0, n_jobs=2).fit(x[:1000], y[:1000])
    forest.n_jobs = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "forest.mlmodel"
        path.write_bytes(model_of(forest, 20).SerializeToString())
        loaded = tlkit.load_model(path)
        loaded.prepare()
        rows = [{"x": row} for row in x]
        taken: dict[str, list[float]] = {"tlkit": [], "scikit-learn": []}
        for _ in range(asked.rounds):
            start = time.perf_counter()
            found = loaded.predict_rows(rows)
            middle = time.perf_counter()
            wanted = forest.predict(x)
            taken["tlkit"].append(middle - start)
            taken["scikit-learn"].append(time.perf_counter() - middle)
        assert np.allclose([row["y"] for row in found], wanted, rtol=1e-9, atol=1e-9)
    ours, theirs = median(taken["tlkit"]), median(taken["scikit-learn"])
    print(
        f"{asked.trees} trees, {asked.rows} rows: tlkit {ours:.2f} s, scikit-learn {theirs:.2f} s: {ours / theirs:.2f}x"
    )


if __name__ == "__main__":
    main()
