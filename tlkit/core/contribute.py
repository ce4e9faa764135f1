"""``tlkit doctor --contribute``: Core ML's plans and latencies of a fixed set of probes, for the fit of estimates.

The file names a chip and a system, and nothing else of the machine: no host, no user, no path.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.core.bench.bench import bench
from tlkit.core.bench.rows import Row
from tlkit.errors import LoadError, UnavailableError
from tlkit.formats.coreml.write import write_package
from tlkit.host.goals import FILE
from tlkit.host.machine import describe_machine, is_mac
from tlkit.host.staging import prepare, staged
from tlkit.mil import coreml_proto
from tlkit.mil.passes.rewrite import change_bodies, change_operations, change_values
from tlkit.mil.program import Deferred, Function, NamedType, Program, TensorType, Value
from tlkit.mil.text.api import parse_program
from tlkit.mil.types import DType
from tlkit.types import Unit

SCHEMA = 1
_WEIGHT = 16  # elements: what is larger lies in the weight file
_CONV = """tensor<fp16, [{c}, {c}, 3, 3]> w = const()[val = tensor<fp16, [{c}, {c}, 3, 3]>(0x1p-10)];
string p = const()[val = string("same")]; tensor<int32, [2]> s = const()[val = tensor<int32, [2]>([1, 1])];
tensor<int32, [4]> z = const()[val = tensor<int32, [4]>([0, 0, 0, 0])]; int32 g = const()[val = int32(1)];
{t} a = conv(x = x, weight = w, pad_type = p, strides = s, pad = z, dilations = s, groups = g);
{t} b = conv(x = a, weight = w, pad_type = p, strides = s, pad = z, dilations = s, groups = g);
{t} c = conv(x = b, weight = w, pad_type = p, strides = s, pad = z, dilations = s, groups = g);
{t} y = conv(x = c, weight = w, pad_type = p, strides = s, pad = z, dilations = s, groups = g);"""
_LINEAR = """tensor<fp16, [{c}, {c}]> w = const()[val = tensor<fp16, [{c}, {c}]>(0x1p-10)];
tensor<fp16, [{c}]> d = const()[val = tensor<fp16, [{c}]>(0x1p-10)];
{t} a = linear(x = x, weight = w, bias = d); {t} b = linear(x = a, weight = w, bias = d);
{t} c = linear(x = b, weight = w, bias = d); {t} y = linear(x = c, weight = w, bias = d);"""
_MOVES = """int32 n = const()[val = int32(-1)]; {t} a = softmax(x = x, axis = n); {t} b = add(x = a, y = x);
{t} c = mul(x = b, y = x); {t} y = relu(x = c);"""
_PROBES = {
    "conv-64x32": (_CONV, 64, (1, 64, 32, 32)),
    "conv-256x64": (_CONV, 256, (1, 256, 64, 64)),
    "linear-256x128": (_LINEAR, 256, (1, 128, 256)),
    "linear-1024x512": (_LINEAR, 1024, (1, 512, 1024)),
    "moves-64x32": (_MOVES, 64, (1, 64, 32, 32)),
    "moves-256x128": (_MOVES, 256, (1, 256, 128, 128)),
}


@dataclass(frozen=True)
class Filled(Deferred):
    """``count`` f16 numbers, all with the bytes ``number``."""

    number: bytes
    count: int

    def pieces(self) -> Iterator[bytes | memoryview]:
        """See :class:`~tlkit.mil.program.Deferred`."""
        yield self.number * self.count


def write_probes(folder: Path) -> dict[str, Path]:
    """Write the probes as packages into ``folder``; return their paths by name."""
    found = {}
    for name, program in probes().items():
        found[name] = folder / f"{name}.mlpackage"
        filled = {"main": _with_weights(program.function())}
        write_package(found[name], _message(program.function()), Program(filled, program.version))
    return found


def probes() -> dict[str, Program]:
    """The probes by name: a few operations of one kind each, whose weights are one number."""
    found = {}
    for name, (body, width, shape) in _PROBES.items():
        kind = f"tensor<fp16, [{', '.join(map(str, shape))}]>"
        text = f"program(1.0) {{ func main<ios17>({kind} x) {{ {body.format(c=width, t=kind)} }} -> (y); }}"
        found[name] = parse_program(text, _no_weights)
    return found


def _no_weights(name: str) -> Any:
    raise LoadError(f"a probe names a weight file: {name}")


def _with_weights(function: Function) -> Function:
    """Constants of one repeated number, written out: that is how Core ML wants weights."""

    def whole(name: str, value: Value) -> Value:
        kind, size = value.type, value.type.size if isinstance(value.type, TensorType) else None
        if not isinstance(kind, TensorType) or kind.dtype is not DType.FP16 or (size or 0) <= _WEIGHT:
            return value
        return Value(kind, Filled(value.data[:2] if isinstance(value.data, bytes) else b"\0\0", size or 0))

    return change_bodies(function, lambda body: change_operations(body, lambda item: change_values(item, whole)))


def _message(function: Function) -> Any:
    model = coreml_proto.module("Model_pb2").Model(specificationVersion=8)
    made = {item.name: item for operation in function.block.operations for item in operation.outputs}
    _ports(model.description.input, function.inputs)
    _ports(model.description.output, [made[name] for name in function.block.outputs])
    model.mlProgram.SetInParent()
    return model


def _ports(features: Any, items: Iterable[NamedType]) -> None:
    for item in items:
        assert isinstance(item.type, TensorType)
        feature = features.add(name=item.name)
        feature.type.multiArrayType.dataType = item.type.dtype.array_number
        feature.type.multiArrayType.shape.extend(size or 1 for size in item.type.shape or ())


def contribute(goal: Path, force: bool = False) -> None:
    """Measure the probes under every setting of Core ML and write what was found to ``goal``, as JSON.

    Raises UnavailableError off a Mac, UsageError where ``goal`` exists and ``force`` is not given.
    """
    if not is_mac():
        raise UnavailableError("--contribute measures Core ML's plans and latencies, on a Mac", "run it on a Mac")
    prepare(goal, force=force, kind=FILE, inputs=())
    with tempfile.TemporaryDirectory(prefix="tlkit-probes-") as folder:
        found = {
            name: bench(path, units=list(Unit), iterations=50, processes=1, power=False, per_op=True).rows
            for name, path in write_probes(Path(folder)).items()
        }
    with staged(goal, lambda path: json.loads(path.read_text()), force=force, kind=FILE, inputs=()) as path:
        path.write_text(json.dumps(contribution(found), indent=1), encoding="utf-8")


def contribution(found: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Return rows by probe as the document that is contributed: chip, system, latencies in ms, plans."""
    machine = describe_machine()
    return {
        "schema_version": SCHEMA,
        "kind": "measurement",
        "chip": machine.cpu.removeprefix("Apple "),
        "os": machine.os,
        "rows": [_row(name, row) for name, rows in found.items() for row in rows if row.summary is not None],
    }


def _row(name: str, row: Row) -> dict[str, Any]:
    plan = row.placement
    ops = [[op.name, op.type, op.unit, op.share] for op in plan.ops] if plan is not None else []
    source = plan.source if plan is not None else None
    ms = row.summary.median_ns / 1e6 if row.summary is not None else None
    return {"probe": name, "setting": row.unit, "median_ms": ms, "plan": source, "operations": ops}
