"""What ``tlkit inspect --placement`` costs on programs of 20,000 operations: under 3 s each.

    python benchmarks/placement_large.py [--repeat 3] [--keep FOLDER]

Three programs, as coremltools writes such (each parameter a constant of its own, weights in the file): a chain of
convolutions and activations, blocks of a transformer, and elementwise operations of many shapes drawn at random, of
which hardly two are alike. Printed are, of ``inspect`` with and without ``--placement``, the least wall time and the
processor time of that run. Beside them the number of all operations, constants included, which a reader reads as well.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.inspect_files import TLKIT, measure  # noqa: E402
from tlkit.formats.coreml.write import write_package  # noqa: E402
from tlkit.mil.blob import BlobFile, BlobRef, BlobWriter  # noqa: E402
from tlkit.mil.coreml_proto import module  # noqa: E402
from tlkit.mil.program import Block, Function, NamedType, Operation, Program, Ref, Value  # noqa: E402
from tlkit.mil.types import DType, TensorType  # noqa: E402

OPERATIONS = 20_000
Shape = tuple[int, ...]


class Builder:
    """A program in the making: constants before the operation that reads them, weights all of one record."""

    def __init__(self, blob: BlobFile, offset: int) -> None:
        self.operations: list[Operation] = []
        self.running = 0
        self._blob, self._offset, self._numbers = blob, offset, count()

    def const(self, name: str, value: Value) -> Ref:
        """A constant of its own name."""
        named = f"{name}_{next(self._numbers)}"
        self.operations.append(Operation("const", {}, (NamedType(named, value.type),), _name(named) | {"val": value}))
        return Ref(named)

    def ints(self, name: str, *items: int) -> Ref:
        """A parameter of whole numbers."""
        return self.const(name, Value(TensorType(DType.INT32, (len(items),)), items))

    def scalar(self, name: str, dtype: DType, item: object) -> Ref:
        """A parameter of rank 0."""
        return self.const(name, Value(TensorType(dtype, ()), (item,)))

    def weight(self, name: str, *shape: int) -> Ref:
        """A weight in the file."""
        return self.const(
            name,
            Value(TensorType(DType.FP16, shape), BlobRef("@model_path/weights/weight.bin", self._offset, self._blob)),
        )

    def add(self, kind: str, made: Shape, /, **inputs: Ref | tuple[Ref, ...]) -> Ref:
        """An operation that runs; returns its result."""
        name = f"{kind}_{next(self._numbers)}"
        given = {key: item if isinstance(item, tuple) else (item,) for key, item in inputs.items()}
        self.operations.append(Operation(kind, given, (NamedType(name, TensorType(DType.FP16, made)),), _name(name)))
        self.running += 1
        return Ref(name)


def _name(text: str) -> dict[str, Value]:
    return {"name": Value(TensorType(DType.STRING, ()), (text,))}


def convolutions(made: Builder, x: Ref) -> Ref:
    """Convolutions, each with all its parameters, and rectifiers."""
    shape = (1, 64, 32, 32)
    while made.running < OPERATIONS:
        conv = made.add(
            "conv",
            shape,
            x=x,
            weight=made.weight("net_layers_weight", 64, 64, 3, 3),
            bias=made.weight("net_layers_bias", 64),
            strides=made.ints("strides", 1, 1),
            pad_type=made.scalar("pad_type", DType.STRING, "custom"),
            pad=made.ints("pad", 1, 1, 1, 1),
            dilations=made.ints("dilations", 1, 1),
            groups=made.scalar("groups", DType.INT32, 1),
        )
        x = made.add("relu", shape, x=conv)
    return x


def transformer(made: Builder, x: Ref) -> Ref:
    """Blocks of attention and two linear layers on 128 places of 256 channels."""
    rows, heads, square = (1, 128, 256), (1, 8, 128, 32), (1, 8, 128, 128)

    def linear(x: Ref, name: str, columns: int, rows: int) -> Ref:
        weight, bias = made.weight(f"{name}_weight", columns, rows), made.weight(f"{name}_bias", columns)
        return made.add("linear", (1, 128, columns), x=x, weight=weight, bias=bias)

    def split(x: Ref, name: str) -> Ref:
        told = made.add(
            "reshape", (1, 128, 8, 32), x=linear(x, name, 256, 256), shape=made.ints("shape", 1, 128, 8, 32)
        )
        return made.add("transpose", heads, x=told, perm=made.ints("perm", 0, 2, 1, 3))

    def product(shape: Shape, x: Ref, y: Ref, turned: bool) -> Ref:
        tx, ty = made.scalar("tx", DType.BOOL, False), made.scalar("ty", DType.BOOL, turned)
        return made.add("matmul", shape, x=x, y=y, transpose_x=tx, transpose_y=ty)

    def normed(x: Ref, name: str) -> Ref:
        gamma, beta = made.weight(f"{name}_gamma", 256), made.weight(f"{name}_beta", 256)
        epsilon = made.scalar("epsilon", DType.FP32, 1e-5)
        return made.add("layer_norm", rows, x=x, axes=made.ints("axes", -1), gamma=gamma, beta=beta, epsilon=epsilon)

    for layer in count():
        name = f"encoder_layers_{layer}"
        n = normed(x, f"{name}_norm1")
        q, k, v = (split(n, f"{name}_attn_{letter}") for letter in "qkv")
        scaled = made.add("mul", heads, x=q, y=made.scalar("scale", DType.FP32, 0.17))
        soft = made.add(
            "softmax", square, x=product(square, scaled, k, True), axis=made.scalar("axis", DType.INT32, -1)
        )
        back = made.add(
            "transpose", (1, 128, 8, 32), x=product(heads, soft, v, False), perm=made.ints("perm", 0, 2, 1, 3)
        )
        flat = made.add("reshape", rows, x=back, shape=made.ints("shape", 1, 128, 256))
        x = made.add("add", rows, x=x, y=linear(flat, f"{name}_attn_o", 256, 256))
        up = linear(normed(x, f"{name}_norm2"), f"{name}_up", 1024, 256)
        wide = made.add("gelu", (1, 128, 1024), x=up, mode=made.scalar("mode", DType.STRING, "EXACT"))
        x = made.add("add", rows, x=x, y=linear(wide, f"{name}_down", 256, 1024))
        if made.running >= OPERATIONS:
            return x
    raise AssertionError


def elementwise(made: Builder, x: Ref) -> Ref:
    """Operations of many kinds and shapes, drawn at random."""
    drawn = random.Random(0)
    while made.running < OPERATIONS:
        shape = (1, drawn.randint(1, 96), drawn.randint(1, 64), drawn.randint(1, 64))
        x = made.add("tile", shape, x=x, reps=made.ints("reps", *shape))
        for kind in drawn.choices(("relu", "sigmoid", "tanh", "exp", "sqrt", "silu", "erf", "abs"), k=4):
            x = made.add(kind, shape, x=x)
        for kind in drawn.choices(("add", "mul", "sub", "real_div", "maximum"), k=3):
            x = made.add(kind, shape, x=x, y=made.scalar("y", DType.FP32, drawn.random()))
        x = made.add("add", shape, x=x, y=made.weight("y", *shape))
        x = made.add(
            "reduce_mean",
            (1, 1, 1, 1),
            x=x,
            axes=made.ints("axes", 0, 1, 2, 3),
            keep_dims=made.scalar("keep", DType.BOOL, True),
        )
    return x


PROGRAMS: dict[str, tuple[Shape, Callable[[Builder, Ref], Ref]]] = {
    "convolutions": ((1, 64, 32, 32), convolutions),
    "transformer": ((1, 128, 256), transformer),
    "elementwise": ((1, 1, 1, 1), elementwise),
}


def build(path: Path, shape: Shape, build: Callable[[Builder, Ref], Ref], weights: Path) -> int:
    """Write a program's package; returns the number of its operations, constants included."""
    with weights.open("wb+") as file:
        writer = BlobWriter(file)
        offset = writer.add(DType.FP16, bytes(2 * 64 * 64 * 9))
        writer.close(True)
    made = Builder(BlobFile(weights), offset)
    y = build(made, Ref("x"))
    kind = TensorType(DType.FP16, shape)
    block = Block((), (y.name,), tuple(made.operations))
    model = module("Model_pb2").Model(specificationVersion=8)
    for port in (model.description.input.add(name="x"), model.description.output.add(name=y.name)):
        port.type.multiArrayType.dataType = DType.FP16.array_number
        port.type.multiArrayType.shape.extend(shape)
    write_package(path, model, Program({"main": Function((NamedType("x", kind),), "CoreML7", {"CoreML7": block})}))
    return len(made.operations)


def main() -> None:
    """Build the programs, inspect them and print what it costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="keep the packages in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = options.keep or Path(folder)
        for name, (shape, builder) in PROGRAMS.items():
            path = home / f"{name}.mlpackage"
            operations = (
                ""
                if path.exists()
                else f" ({build(path, shape, builder, Path(folder) / 'weights.bin'):,} with constants)"
            )
            print(f"{name}: {OPERATIONS:,} operations{operations}")
            for more in ([], ["--placement"]):
                cost = measure([*TLKIT, "inspect", str(path), *more], options.repeat)
                told = " ".join(["inspect", *more])
                print(f"  {told:22} {cost.wall:5.2f} s, {cost.cpu:5.2f} s of the processor, {cost.rss:5.0f} MB")


if __name__ == "__main__":
    main()
