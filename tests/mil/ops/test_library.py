"""The op library beside coremltools' own definitions: what there is, how inputs are called, what they default to.

Covers tlkit/mil/ops/kit/registry.py, tlkit/mil/ops/kit/spec.py.
"""

import contextlib
import importlib
import inspect
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.mil.ops.optable import tools
from tlkit.mil import ops
from tlkit.mil.ops.kit.registry import Tensor, measured, op
from tlkit.mil.ops.kit.spec import VERSIONS
from tlkit.mil.opsets import OPSETS

NOT_OPS = {"const", "_const_symbolic"}
"""A constant is a value of the program and never a node; the symbolic one is coremltools' own test device."""

NOT_DEFINED = {"const", "coreml_update_state", "custom_layer", "write_state"}
"""What the exporter writes, or a dialect has, without a definition among the ops."""

IN_FILES_ALONE = {"write_state", "coreml_update_state"}
"""coremltools writes its dialect's coreml_update_state to the file as write_state and read_state."""

BY_RANK = {"strides", "dilations", "pad", "axes"}
"""Ours default to None, which stands for what coremltools spells out edge by edge or axis by axis."""


BY_SHAPE = {"crop_resize", "linear"}
"""Ops whose defaults depend on their inputs' shapes or on each other."""


def definitions():
    """(op, class, opset) of everything coremltools defines for ML programs."""
    coremltools = tools()
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    for name, versions in sorted(SSAOpRegistry.core_ops.items()):
        for target, definition in sorted(versions.items(), key=lambda item: item[0].value):
            if name not in NOT_OPS and target.value >= coremltools.target.iOS15.value:
                yield name, definition, coremltools._OPSET[target.value]


def test_every_op_of_coremltools_is_here_from_the_opset_that_brought_it():
    first = {}
    for name, _, opset in definitions():
        first[name] = min(first.get(name, 99), ops.release(opset))
    ours = {name: versions[0].since for name, versions in ops.library().items()}
    assert {name: since for name, since in ours.items() if name not in IN_FILES_ALONE} == first


def test_the_table_of_opsets_is_the_one_of_coremltools():
    found = {}
    seen = set()
    for name, definition, opset in definitions():
        if (name, definition) not in seen:
            seen.add((name, definition))
            found.setdefault(name, []).append(ops.release(opset))
    table = {name: list(releases) for name, releases in VERSIONS.items() if name not in NOT_DEFINED}
    assert table == found


def test_inputs_have_their_names():
    for name, definition, opset in definitions():
        inputs = {k: v for k, v in definition.input_spec.input_types.items() if not k.startswith("_")}
        found = ops.lookup(name, opset)
        assert found is not None, f"{name} is missing from {opset}"
        assert inputs.keys() <= found.parameters.keys(), f"{name} ({opset})"
        required = {k for k, v in found.parameters.items() if v.required}
        assert required <= {k for k, v in inputs.items() if not v.optional}, f"{name} ({opset})"


def test_inputs_have_their_defaults():
    compared = 0
    for name, definition, opset in definitions():
        found = ops.lookup(name, opset)
        assert found is not None
        signature = inspect.signature(found.function).parameters
        for key, wanted in _defaults(definition).items():
            ours = signature[found.parameters[key].name].default
            if ours is not inspect.Parameter.empty and not (ours is None and key in BY_RANK):
                assert _same(ours, wanted), f"{name} ({opset}): {key} defaults to {ours!r}, not {wanted!r}"
                compared += 1
    assert compared > 100


def test_every_op_has_a_row():
    covered = set()
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"tests.mil.ops.{path.stem}")
        covered |= {row.op for row in getattr(module, "CASES", ())} | set(getattr(module, "COVERS", ()))
    assert ops.library().keys() - covered == set()


def test_a_second_registration_is_an_error():
    with pytest.raises(ValueError, match="registered twice"):
        op("relu")(lambda x: x)


def other_inputs(x: Tensor, alpha: float) -> Tensor:
    return x


@pytest.mark.parametrize(
    ("name", "since", "inputs"), [("avg_pool", 15, "same"), ("relu", 15, "other"), ("no_such_op", 15, "same")]
)
def test_what_core_ml_does_is_registered_once_for_an_op_that_is_there(name, since, inputs):
    function = ops.lookup("avg_pool", "CoreML7", strict=True).function if inputs == "same" else other_inputs
    with pytest.raises(ValueError, match=r"measured twice|is not registered with these inputs"):
        measured("O1", name, since=since)(function)


def test_strict_is_the_specification_and_the_rest_is_one_and_the_same():
    deviating = {(found.name, found.since) for found in ops.measurements()}
    assert ("avg_pool", 15) in deviating
    for name, versions in ops.library().items():
        for version in versions:
            opset = next(opset for opset, release in OPSETS.items() if release.number == version.since)
            strict, default = ops.lookup(name, opset, strict=True), ops.lookup(name, opset)
            assert (strict, strict.row) == (version, "")
            assert (default is not strict) == bool(default.row) == ((name, version.since) in deviating)


def _defaults(definition):
    """The defaults that do not hang on the inputs."""
    from coremltools.converters.mil.mil import types

    instance = object.__new__(definition)
    inputs = definition.input_spec.input_types
    for stub in (None, SimpleNamespace(rank=4, val=None, dtype=types.fp32)):
        for key in inputs:
            setattr(instance, key, stub)
        with contextlib.suppress(AttributeError):
            return dict(definition.default_inputs(instance).items())
    assert definition.__name__ in BY_SHAPE, f"{definition.__name__}: its defaults hang on more than ranks"
    return {}


def _same(ours, wanted):
    if ours is None or wanted is None:
        return ours is None and wanted is None
    if isinstance(ours, str) or isinstance(wanted, str):
        return bool(ours == wanted)
    return np.shape(ours) == np.shape(wanted) and np.allclose(ours, wanted, rtol=1e-6, atol=0)
