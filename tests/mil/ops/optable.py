"""The table of op tests: a row is an op, its inputs and parameters, and an oracle that is not our code.

A family's test module says ``CASES = rows(case("relu", {"x": X}, expected=np_relu), ...)``, ``test_op = table(CASES)``.
Each row's program is built by coremltools' own Builder, without passes, read back from its protobuf, lowered in both
precisions, run, and compared. Conventions:

* ``inputs`` are the program's inputs: numpy arrays (a tuple of them for a list input such as concat's ``values``).
  ``parameters`` are constants. In both, float64 arrays and Python floats take the row's type (fp32 and fp16, one test
  each); every other type stays: write ``np.float32(...)`` for what is fp32 in both.
* ``expected`` is an array or tuple of arrays, or a function of the inputs and parameters (numpy, floats as float64
  that hold the row type's values) that returns them, or ``VALUE``: what coremltools' own ``value_inference`` says,
  computed in f32.
* ``program`` replaces the one op by a function of the builder and the inputs, for what one op cannot say.
* ``dims`` gives an input's declared shape where it is not the array's: None is an open dimension.
* ``fails`` is a pattern of the error that a row must end in.
* ``strict`` lowers a row as the specification has it, where Core ML was measured to do something else.
"""

from __future__ import annotations

import functools
import itertools
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tlkit.mil import ops, proto
from tlkit.mil.blob import BlobFile
from tlkit.mil.lower import lower
from tlkit.mil.program import Function, StateType, TensorType
from tlkit.mil.text.api import format_program, parse_program
from tlkit.mil.write import write_program

VALUE = "value"
TOLERANCE = {"fp32": (1e-5, 1e-6), "fp16": (1e-3, 1e-3), "none": (0.0, 0.0)}
"""Relative, and absolute in units of the largest finite expected magnitude (1 at least), by the row's type."""


@dataclass(frozen=True)
class Case:
    """One row, of one type: see the module's text."""

    op: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    expected: Any = VALUE
    since: int = 15
    dtype: str = "none"
    rtol: float | None = None
    atol: float | None = None
    program: Callable[..., Any] | None = None
    dims: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    states: Mapping[str, np.ndarray] = field(default_factory=dict)
    fails: str = ""
    strict: bool = False
    label: str = ""

    def __str__(self) -> str:
        shown = [f"{name}={value}" for name, value in self.parameters.items() if isinstance(value, (str, bool, int))]
        named = [self.op, f"iOS{self.since}", self.dtype, *([self.label] if self.label else shown)]
        return "-".join([*named, *(["strict"] if self.strict else [])])


def case(
    op: str, inputs: Mapping[str, Any] | None = None, *, since: int | Sequence[int] = 15, **rest: Any
) -> list[Case]:
    """The rows of a case: one for each opset in ``since`` and each of ``dtypes`` (both float types by default where
    any input or parameter is float64; else one row)."""
    inputs = inputs or {}
    parameters = rest.pop("parameters", {})
    floating = any(_generic(value) for value in (*_leaves(inputs), *_leaves(parameters)))
    dtypes = rest.pop("dtypes", ("fp32", "fp16") if floating else ("none",))
    opsets = (since,) if isinstance(since, int) else since
    return [
        Case(op, _typed(inputs, dtype), _typed(parameters, dtype), since=opset, dtype=dtype, **rest)
        for opset, dtype in itertools.product(opsets, dtypes)
    ]


def rows(*cases: Sequence[Case]) -> list[Case]:
    """Several cases' rows as one list."""
    return [row for rows in cases for row in rows]


def table(cases: Sequence[Case]) -> Callable[..., None]:
    """A test over every row of ``cases``."""

    @pytest.mark.parametrize("row", cases, ids=[str(row) for row in cases])
    def test_op(row: Case) -> None:
        check(row)

    return test_op


def check(row: Case) -> None:
    """Build, read, lower, run and compare one row, in both precisions."""
    wanted = None if row.fails else _wanted(row)
    function = read(row)
    for precision in ("f16", "f32"):
        if row.fails:
            with pytest.raises(Exception, match=row.fails):
                run(function, row, precision)
        else:
            _compare(row, function, run(function, row, precision), wanted, precision)


def run(function: Function, row: Case, precision: str) -> tuple[Any, ...]:
    """Lower a row's function and run it on the row's inputs (and fresh copies of its states)."""
    module = lower.lower(function, precision=precision, strict=row.strict)
    tensors = feeds(function, row)
    with torch.inference_mode():
        result: tuple[Any, ...] = module(*tensors)
    return result


def feeds(function: Function, row: Case) -> list[torch.Tensor]:
    """Return a row's inputs (and fresh copies of its states) as the lowered function takes them."""
    given = {f"{name}_{i}" if many else name: array for name, many, i, array in _flat(row.inputs)}
    given |= {name: array.copy() for name, array in row.states.items()}
    return [_tensor(given[item.name], item.type) for item in function.inputs]


def read(row: Case) -> Function:
    """The row's program, built by coremltools and read back by tlkit, from its protobuf and from what tlkit prints.

    What tlkit writes of it is coremltools' own message, byte for byte.
    """
    with tempfile.TemporaryDirectory() as folder:
        message = _export(_build(row), folder, row.since)
        path = Path(folder) / "weight.bin"
        blob = BlobFile(path) if path.exists() else None
        program = proto.read_program(message, lambda name: blob)
        assert parse_program(format_program(program), lambda name: blob) == program, "printing changes the program"
        written = type(message)()
        write_program(program, written)
        assert _bytes(written) == _bytes(message), "writing changes the program"
        return program.function()


def _bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


@functools.cache
def tools() -> Any:
    """coremltools, imported without its warnings."""
    logging.disable(logging.WARNING)
    import coremltools

    logging.disable(logging.NOTSET)
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    return coremltools


def _build(row: Case) -> Any:
    tools()
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import get_new_symbol
    from coremltools.converters.mil.mil.program import Placeholder

    flat = list(_flat(row.inputs))
    specs = []
    for name, many, i, array in flat:
        full = f"{name}_{i}" if many else name
        shape = [get_new_symbol() if d is None else d for d in row.dims.get(full, array.shape)]
        specs.append((full, Placeholder(shape, _mil(array.dtype), allow_rank0_input=True)))
    specs += [(name, mb.StateTensorSpec(array.shape, _mil(array.dtype))) for name, array in row.states.items()]

    def body(*variables: Any) -> Any:
        if row.program is not None:
            return row.program(mb, *variables)
        arguments: dict[str, Any] = {}
        for (name, many, _, _), variable in zip(flat, variables, strict=True):
            arguments[name] = (*arguments.get(name, ()), variable) if many else variable
        return getattr(mb, row.op)(**arguments, **{k: _constant(v) for k, v in row.parameters.items()})

    # The builder reads the body's own parameter names, so it is given one with the right number of them.
    names = [name for name, _ in specs]
    scope = {"body": body}
    exec(f"def main({', '.join(names)}): return body({', '.join(names)})", scope)
    target = getattr(tools().target, f"iOS{row.since}")
    return mb.program(input_specs=[spec for _, spec in specs], opset_version=target)(scope["main"])


def _export(program: Any, folder: str, since: int) -> Any:
    from coremltools.converters.mil.backend.mil.load import MILProtoExporter

    version = int(getattr(tools().target, f"iOS{since}").value)
    return MILProtoExporter(program, folder, version).export()


def _wanted(row: Case) -> tuple[Any, ...]:
    expected = row.expected
    if isinstance(expected, str) and expected == VALUE:
        expected = _value_inference(row)
    elif callable(expected):
        expected = expected(
            **{name: _wide(value) for name, value in (row.inputs | row.parameters | row.states).items()}
        )
    return tuple(expected) if isinstance(expected, (tuple, list)) else (expected,)


def _value_inference(row: Case) -> Any:
    """What coremltools folds the op to when all its inputs are constants."""
    tools()
    from coremltools.converters.mil.mil import Builder as mb

    kept: list[Any] = []
    inputs, parameters = ({k: _single(v) for k, v in part.items()} for part in (row.inputs, row.parameters))

    def main() -> Any:
        arguments = {
            name: tuple(mb.const(val=item) for item in value) if isinstance(value, tuple) else mb.const(val=value)
            for name, value in inputs.items()
        }
        made = getattr(mb, row.op)(**arguments, **{k: _constant(v) for k, v in parameters.items()})
        kept.append([item.val for item in made] if isinstance(made, (tuple, list)) else made.val)
        return made

    target = getattr(tools().target, f"iOS{row.since}")
    mb.program(input_specs=[], opset_version=target)(main)
    found = kept[0] if isinstance(kept[0], list) else [kept[0]]
    assert all(value is not None for value in found), f"coremltools has no value inference for {row}"
    return tuple(found)


def _compare(row: Case, function: Function, got: Sequence[Any], wanted: Sequence[Any], precision: str) -> None:
    names = function.block.outputs
    assert len(got) == len(wanted), f"{len(got)} outputs, {len(wanted)} expected"
    types = {item.name: item.type for op in function.block.operations for item in op.outputs}
    types |= {item.name: item.type for item in function.inputs}
    for name, value, want in zip(names, got, wanted, strict=True):
        kind = types[name]
        assert isinstance(value, torch.Tensor), f"{name} is {type(value).__name__}"
        if isinstance(kind, TensorType) and kind.dtype in ops.CARRIERS:
            assert value.dtype is ops.CARRIERS[kind.dtype], f"{name}: {value.dtype} carries {kind.dtype.mil}"
            half = kind.dtype.mil == "fp16" and precision == "f16"
            if half:
                assert torch.equal(torch.nan_to_num(ops.round_f16(value)), torch.nan_to_num(value)), f"{name}: no f16"
        _close(row, name, value.numpy(), np.asarray(want))


def _close(row: Case, name: str, got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape, f"{name} has shape {got.shape}, not {want.shape}"
    if got.dtype == bool or np.issubdtype(got.dtype, np.integer):
        np.testing.assert_array_equal(got, want.astype(got.dtype) if want.dtype == bool else want, err_msg=name)
        return
    rtol, atol = TOLERANCE[row.dtype if row.dtype != "none" else "fp32"]
    want = want.astype(np.float64)
    if row.dtype == "fp16":
        want = want.astype(np.float16).astype(np.float64) if np.isinf(got).any() else want
    finite = np.abs(want[np.isfinite(want)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    rtol = rtol if row.rtol is None else row.rtol
    atol = atol * scale if row.atol is None else row.atol
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=rtol, atol=atol, err_msg=name)


def _tensor(array: np.ndarray, kind: Any) -> torch.Tensor:
    wrapped = kind.wrapped if isinstance(kind, StateType) else kind
    made: torch.Tensor = torch.from_numpy(np.array(array)).to(ops.CARRIERS[wrapped.dtype])
    return made.reshape(()) if wrapped.shape == () else made


def _mil(dtype: np.dtype[Any]) -> Any:
    from coremltools.converters.mil.mil.types.type_mapping import numpy_type_to_builtin_type

    return numpy_type_to_builtin_type(dtype)


def _constant(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _flat(inputs: Mapping[str, Any]) -> list[tuple[str, bool, int, np.ndarray]]:
    """(name, whether of a list, index, array) of every input array."""
    found = []
    for name, value in inputs.items():
        many = isinstance(value, (tuple, list))
        found += [(name, many, i, item) for i, item in enumerate(value if many else (value,))]
    return found


def _leaves(values: Mapping[str, Any]) -> list[Any]:
    return [leaf for value in values.values() for leaf in (value if isinstance(value, (tuple, list)) else (value,))]


def _generic(value: Any) -> bool:
    """Whether a value takes the row's float type: a float64 array or a Python float."""
    return type(value) is float or (isinstance(value, np.ndarray) and value.dtype == np.float64)


def _typed(values: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    target = {"fp32": np.float32, "fp16": np.float16}.get(dtype)

    def typed(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return tuple(typed(item) for item in value)
        if target is None or not _generic(value):
            return value
        return value.astype(target) if isinstance(value, np.ndarray) else target(value)

    return {name: typed(value) for name, value in values.items()}


def _single(value: Any) -> Any:
    """f16 as f32, all else as it is."""
    if isinstance(value, tuple):
        return tuple(_single(item) for item in value)
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype == np.float16:
        return value.astype(np.float32)
    return value


def _wide(value: Any) -> Any:
    """Floats as float64, all else as it is."""
    if isinstance(value, tuple):
        return tuple(_wide(item) for item in value)
    if isinstance(value, (np.ndarray, np.generic)) and np.issubdtype(value.dtype, np.floating):
        return value.astype(np.float64)
    return value
