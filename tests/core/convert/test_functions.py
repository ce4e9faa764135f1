"""Packages combined into one: a function each, the weights they share stored once.

Covers tlkit/cli/views/convert_functions.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.formats import packages as made
from tlkit.core.convert.convert import convert
from tlkit.core.convert.functions import combine
from tlkit.core.edit.edit import edit
from tlkit.core.model.load import inspect, load_model
from tlkit.errors import LoadError, UsageError
from tlkit.formats.coreml.open import open_package

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Net(nn.Module):
    def __init__(self, sign: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.sign = nn.Linear(64, 64), sign

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.sign


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("functions")
    for name, sign in (("plus", 1.0), ("minus", -1.0)):
        convert(Net(sign), folder / f"{name}.mlpackage", inputs=["x=1x64"], precision="f32", target="iOS18")
    return {path.stem: path for path in folder.iterdir()}


def test_each_function_computes_what_its_package_does(packages: dict[str, Path], tmp_path: Path) -> None:
    result = combine(packages["plus"], {"minus": packages["minus"]}, tmp_path / "both.mlpackage")
    assert result.passed is True
    assert set(result.info.functions) == {"main", "minus"}
    x = np.random.default_rng(0).standard_normal((1, 64), np.float32)
    for function, sign in ((None, 1.0), ("main", 1.0), ("minus", -1.0)):
        (found,) = load_model(result.path, function=function).predict({"x": x}).values()
        with torch.no_grad():
            np.testing.assert_allclose(found, Net(sign)(torch.from_numpy(x)).numpy(), atol=1e-5)


def test_weights_are_stored_once(packages: dict[str, Path], tmp_path: Path) -> None:
    result = combine(packages["plus"], [f"minus={packages['minus']}"], tmp_path / "both.mlpackage", verify=False)
    weights = [path.stat().st_size for path in result.path.rglob("weight.bin")]
    alone = [path.stat().st_size for path in packages["plus"].rglob("weight.bin")]
    assert weights == alone
    assert result.size < result.separate
    assert result.passed is None


def test_it_says_where_each_function_comes_from(packages: dict[str, Path], tmp_path: Path) -> None:
    convert(Net(2.0), tmp_path / "a.mlpackage", inputs=["x=1x64"], precision="f32", target="iOS18", author="me")
    result = combine(tmp_path / "a.mlpackage", {"minus": packages["minus"]}, tmp_path / "both.mlpackage")
    said = inspect(result.path).metadata
    assert said.author == "me"
    assert said.user["tlkit.source"] == said.user["tlkit.minus.source"] == "Net"
    assert json.loads(said.user["tlkit.verified"])["passed"] is True
    assert json.loads(said.user["tlkit.minus.verified"])["passed"] is True
    assert "tlkit.version" in said.user and "tlkit.minus.version" not in said.user


def test_a_manifest_may_name_the_model_otherwise(packages: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.mlpackage"
    shutil.copytree(packages["minus"], other)
    (model,) = other.rglob("model.mlmodel")
    model.rename(model.with_name("program.mlmodel"))
    manifest = other / "Manifest.json"
    manifest.write_text(manifest.read_text().replace("model.mlmodel", "program.mlmodel"))
    result = combine(packages["plus"], {"minus": other}, tmp_path / "both.mlpackage")
    assert result.passed is True
    assert inspect(result.path).metadata.user["tlkit.minus.source"] == "Net"


@pytest.mark.parametrize(
    ("functions", "kind", "reason"),
    [
        (["minus"], UsageError, "not NAME=SOURCE"),
        (["main={minus}"], UsageError, "name is taken"),
        (["a={minus}", "a={plus}"], UsageError, "name is taken"),
        (["1a={minus}"], UsageError, "cannot name"),
        (["a=nowhere.mlpackage"], LoadError, "not a .mlpackage"),
    ],
)
def test_functions_that_are_none(
    packages: dict[str, Path], tmp_path: Path, functions: list[str], kind: type[Exception], reason: str
) -> None:
    filled = [text.format(**packages) for text in functions]
    with pytest.raises(kind, match=reason):
        combine(packages["plus"], filled, tmp_path / "both.mlpackage")
    assert list(tmp_path.iterdir()) == []


CODE = """
import torch
from torch import nn
class Shared(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.first, self.second = (nn.Linear(64, size) for size in (width, 4, 8))
class First(Shared):
    def forward(self, x):
        return self.first(torch.relu(self.body(x)))
class Second(Shared):
    def forward(self, image):
        return self.second(torch.relu(self.body(image.flatten(1))))
class Changing(Shared):
    def forward(self, x):
        return self.first(torch.relu(self.body(x))) + torch.rand(1)
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(CODE)
    return path


def test_functions_are_converted_from_their_sources(code: Path, tmp_path: Path) -> None:
    first, second = f"{code}:First", f"{code}:Second"
    result = combine(
        first,
        [f"second={second}"],
        tmp_path / "both.mlpackage",
        inputs=["x=2x64", "second:image=1x1x8x8"],
        precision="f32",
    )
    assert result.passed is True
    assert set(result.verifications) == {"main", "second"}
    assert dict(result.functions) == {"main": first, "second": second}
    assert result.size < 0.75 * result.separate  # one body, two heads
    names: dict[str, object] = {}
    exec(CODE, names)
    rng = np.random.default_rng(0)
    for function, kind, port, shape in (("main", "First", "x", (2, 64)), ("second", "Second", "image", (1, 1, 8, 8))):
        x = rng.standard_normal(shape, np.float32)
        (found,) = load_model(result.path, function=function).predict({port: x}).values()
        with torch.no_grad():
            expected = names[kind]()(torch.from_numpy(x))  # type: ignore[operator]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.mlpackage", "net.py"]


def test_ports_without_a_function_are_for_each_that_has_none(code: Path, tmp_path: Path) -> None:
    result = combine(f"{code}:First", {"again": f"{code}:First"}, tmp_path / "both.mlpackage", inputs={"x": (1, 64)})
    for function in ("main", "again"):
        assert load_model(result.path, function=function).inputs[0].shape == (1, 64)


def test_a_package_and_a_source(packages: dict[str, Path], code: Path, tmp_path: Path) -> None:
    goal = tmp_path / "both.mlpackage"
    result = combine(packages["plus"], {"first": f"{code}:First"}, goal, inputs=["first:x=1x64"], kwargs={"width": 64})
    assert (set(result.info.functions), set(result.verifications)) == ({"main", "first"}, {"first"})


def test_a_function_that_differs_from_its_source_fails(code: Path, tmp_path: Path) -> None:
    goal = tmp_path / "both.mlpackage"
    result = combine(f"{code}:First", {"odd": f"{code}:Changing"}, goal, inputs=["x=1x64"])
    assert result.passed is False
    assert result.verifications["main"].passed
    assert not result.verifications["odd"].passed


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"inputs": ["decode:x=1x64"]}, "no function 'decode'"),
        ({"inputs": ["x=1x64"], "target": "iOS17"}, "several functions need iOS18"),
        ({"inputs": []}, "what does it take"),
    ],
)
def test_sources_that_cannot_be_combined(code: Path, tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        combine(f"{code}:First", {"again": f"{code}:First"}, tmp_path / "both.mlpackage", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["net.py"]


def test_options_that_packages_have_no_use_for(packages: dict[str, Path], tmp_path: Path) -> None:
    for options in ({"inputs": ["x=1x64"]}, {"precision": "f16"}, {"target": "iOS26"}, {"main": {"classes": "a.txt"}}):
        with pytest.raises(UsageError, match="combined unchanged"):
            combine(packages["plus"], {"m": packages["minus"]}, tmp_path / "b.mlpackage", **options)


def coremltools_functions(path: Path) -> set[str]:
    """The functions that coremltools' own loader builds of a package."""
    ct = pytest.importorskip("coremltools")
    from coremltools.converters.mil.frontend.milproto import load

    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    program = load.load(spec, spec.specificationVersion, str(path / "Data/com.apple.CoreML/weights"))
    return set(program.functions)


def test_a_function_is_its_packages_own_operation_by_operation(packages: dict[str, Path], tmp_path: Path) -> None:
    result = combine(packages["plus"], {"minus": packages["minus"]}, tmp_path / "both.mlpackage", verify=False)
    both = open_package(result.path).program
    assert both is not None
    for name, source in (("main", "plus"), ("minus", "minus")):
        original = open_package(packages[source]).program
        assert original is not None
        ours, theirs = (list(p.function(n).block.operations) for p, n in ((both, name), (original, "main")))
        assert [(op.type, op.outputs) for op in ours] == [(op.type, op.outputs) for op in theirs]
    assert coremltools_functions(result.path) == {"main", "minus"}


def test_packages_for_older_systems_get_the_newest_operations_among_them(tmp_path: Path) -> None:
    for sign, target in ((1.0, "iOS16"), (-1.0, "iOS17")):
        convert(Net(sign), tmp_path / f"{target}.mlpackage", inputs=["x=1x64"], precision="f32", target=target)
    folder = tmp_path / "goal"
    folder.mkdir()
    result = combine(tmp_path / "iOS16.mlpackage", {"b": tmp_path / "iOS17.mlpackage"}, folder / "both.mlpackage")
    assert result.passed is True and result.info.spec_version == 9
    both = open_package(result.path)
    assert both.program is not None
    assert {function.opset for function in both.program.functions.values()} == {"CoreML8"}
    assert coremltools_functions(result.path) == {"main", "b"}
    assert [path.name for path in folder.iterdir()] == ["both.mlpackage"]


def test_classifiers_and_packages_without_weights_become_functions(tmp_path: Path) -> None:
    linear = made.linear(tmp_path / "linear.mlpackage")
    classifier = edit(linear, tmp_path / "classifier.mlpackage", classes=["a", "b", "c"], author="me").path
    counter = made.accumulator(tmp_path / "sum.mlpackage")
    with pytest.raises(LoadError, match=r"no function 'main'"):
        combine(classifier, {"sum": counter}, tmp_path / "both.mlpackage")
    relu = made.relu(tmp_path / "relu.mlpackage", (1, None), (1, 3))
    result = combine(classifier, {"relu": relu}, tmp_path / "both.mlpackage")
    assert result.passed is True
    x = {"x": np.array([[1.0, -2.0, 0.5, 3.0]], np.float32)}
    assert load_model(result.path).predict(x) == load_model(classifier).predict(x)
    found = load_model(result.path, function="relu").predict({"x": np.array([[-1, 2, 3]], np.float32)})["y"]
    assert found.tolist() == [[0, 2, 3]]
    assert result.info.metadata.author == "me"


def test_a_package_is_found_wherever_its_manifest_says_that_its_model_lies(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    odd = tmp_path / "odd.mlpackage"
    shutil.copytree(packages["minus"], odd)
    (odd / "Data/com.apple.CoreML/model.mlmodel").rename(odd / "Data/com.apple.CoreML/net.mlmodel")
    manifest = odd / "Manifest.json"
    manifest.write_text(manifest.read_text().replace("com.apple.CoreML/model.mlmodel", "com.apple.CoreML/net.mlmodel"))
    result = combine(odd, {"plus": packages["plus"], "same": odd}, tmp_path / "all.mlpackage")
    assert result.passed is True
    assert set(result.info.functions) == {"main", "plus", "same"}


def test_networks_of_the_old_kind_are_no_functions(packages: dict[str, Path], tmp_path: Path) -> None:
    model = made.MODEL.Model(specificationVersion=4)
    model.identity.SetInParent()
    old = made.write(tmp_path / "old.mlpackage", model)
    with pytest.raises(LoadError, match="its kind, identity, has no functions"):
        combine(packages["plus"], {"old": old}, tmp_path / "both.mlpackage")
    assert not (tmp_path / "both.mlpackage").exists()
