"""The innermost loops of the Neural Engine's sums (row P4), written in LLVM's vector instructions for numba.

Four rows of ``a`` meet 16 columns of ``b``, and their sums stay in registers. A product is rounded to steps of 2^-16 by
adding it, in f32, to a number whose own last bit is one step; its bits are then that number's plus a whole number of
steps, so whole 32-bit numbers are added. Ties go away from zero because the factors of ``b`` come moved away from it by
f32's last bit, which is less than what lies between any product of two f16 values and the nearest tie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS, COLUMNS = 4, 16
"""Of a tile."""
LANES = 8
BASE = 192.0
"""Between 128 and 256 f32's last bit is 2^-16; with products below 32 added, a sum stays between."""
BASE_BITS = 0x43400000
_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_FIRST = ir.Constant(_INTS, [0] * LANES)


def _fuses() -> bool:
    """Whether this processor multiplies and adds at once. Where not, both are rounded, to the same bits: products of
    less than 32 have f32's last bit far below half a step."""
    features = llvmlite.binding.get_host_cpu_features()
    return bool(features.get("fma") or features.get("neon") or features.get("fp-armv8"))


_FUSES = _fuses()


class _Vectors:
    """Writes instructions on vectors."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def at(self, pointer: Any, place: Any, kind: Any) -> Any:
        """The vector at a place."""
        found = self.builder.gep(pointer, [place])
        return self.builder.bitcast(found, kind.as_pointer())

    def spread(self, value: Any) -> Any:
        """One number in all lanes."""
        nothing = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
        one = self.builder.insert_element(nothing, value, _INT(0))
        return self.builder.shuffle_vector(one, nothing, _FIRST)

    def product(self, x: Any, y: Any) -> Any:
        """BASE + x * y."""
        base = ir.Constant(_FLOATS, [BASE] * LANES)
        if not _FUSES:
            return self.builder.fadd(self.builder.fmul(x, y), base)
        kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        find: Any = cgutils.get_or_insert_function
        fused = find(self.builder.module, kind, f"llvm.fma.v{LANES}f32")
        return self.builder.call(fused, [x, y, base])

    def loop(self, count: Any, step: int, carried: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """Run ``body`` on 0, ``step`` and so on below ``count``, which is positive, and on what it returned before."""
        builder, before = self.builder, self.builder.block
        inside, after = builder.append_basic_block("loop"), builder.append_basic_block("loop.end")
        builder.branch(inside)
        builder.position_at_end(inside)
        at, given = builder.phi(_LONG), [builder.phi(item.type) for item in carried]
        made = body(at, given)
        following = builder.add(at, _LONG(step))
        for item, first, last in zip((at, *given), (_LONG(0), *carried), (following, *made), strict=True):
            item.add_incoming(first, before)
            item.add_incoming(last, inside)
        builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
        builder.position_at_end(after)
        return made


class _Tile(_Vectors):
    """Writes the instructions of one tile: ``wide`` vectors of columns by :data:`ROWS` rows."""

    def __init__(self, builder: Any, wide: int, pointers: list[Any], steps: list[Any]) -> None:
        super().__init__(builder)
        self.wide = wide
        self.a, self.b, self.sums = pointers
        self.a_step, self.b_step, self.sums_step = steps

    def places(self) -> list[Any]:
        """Where the tile's sums lie."""
        rows = [self.builder.mul(self.sums_step, _LONG(row)) for row in range(ROWS)]
        return [
            self.at(self.sums, self.builder.add(row, _LONG(LANES * vector)), _INTS)
            for row in rows
            for vector in range(self.wide)
        ]

    def added(self, k: Any, sums: list[Any]) -> list[Any]:
        """The sums with the products at depth ``k``."""
        builder, made = self.builder, []
        begin = builder.mul(k, self.b_step)
        places = [builder.add(begin, _LONG(LANES * vector)) for vector in range(self.wide)]
        right = [builder.load(self.at(self.b, place, _FLOATS), align=4) for place in places]
        for row in range(ROWS):
            place = builder.add(builder.mul(self.a_step, _LONG(row)), k)
            x = self.spread(builder.load(builder.gep(self.a, [place]), align=4))
            for vector in range(self.wide):
                bits = builder.bitcast(self.product(x, right[vector]), _INTS)
                made.append(builder.add(sums[row * self.wide + vector], bits))
        return made


def _tile(wide: int) -> Any:
    @intrinsic  # type: ignore[untyped-decorator, unused-ignore]
    def add(typing: Any, a: Any, b: Any, sums: Any, row: Any, column: Any, depth: Any) -> Any:
        """Add the first ``depth`` >= 1 columns of a [>= 4, K] times rows of b [K, N] to sums [M, N], from ``row`` and
        ``column`` of them on; all lie side by side, whatever lies behind what is used."""

        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            kinds = [context.make_array(kind) for kind in signature.args[:3]]
            arrays = [kind(context, builder, value) for kind, value in zip(kinds, values[:3], strict=True)]
            steps = [builder.udiv(builder.extract_value(item.strides, 0), _LONG(4)) for item in arrays]
            begun = builder.add(builder.mul(values[3], steps[2]), values[4])
            pointers = [arrays[0].data, *(builder.gep(arrays[i].data, [at]) for i, at in ((1, values[4]), (2, begun)))]
            tile = _Tile(builder, wide, pointers, steps)
            places = tile.places()
            begin = [builder.load(place, align=4) for place in places]
            for total, place in zip(tile.loop(values[5], 1, begin, tile.added), places, strict=True):
                builder.store(total, place, align=4)
            return context.get_dummy_value()

        return types.void(a, b, sums, row, column, depth), emit

    return add


add_tile: Any = _tile(COLUMNS // LANES)
"""For compiled loops: add products to a tile of 4 rows and 16 columns."""
add_narrow_tile: Any = _tile(1)
"""The same for 8 columns."""


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _add_row(typing: Any, x: Any, least: Any, row: Any, sums: Any) -> Any:
    """Add x times a row of b, of whose products none is 32 or more, to a row of sums; what is below ``least``, the bits
    of a magnitude, is left out. Both rows are as long as the sums' one, which is a multiple of 8."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        row, sums = (context.make_array(signature.args[i])(context, builder, values[i]) for i in (2, 3))
        vectors = _Vectors(builder)
        many, fewest = vectors.spread(values[0]), vectors.spread(values[1])

        def body(at: Any, carried: list[Any]) -> list[Any]:
            y = builder.load(vectors.at(row.data, at, _FLOATS), align=4)
            size = builder.and_(builder.bitcast(y, _INTS), ir.Constant(_INTS, [0x7FFFFFFF] * LANES))
            kept = builder.icmp_signed(">=", size, fewest)
            y = builder.select(kept, y, ir.Constant(_FLOATS, [0.0] * LANES))
            steps = builder.bitcast(vectors.product(many, y), _INTS)
            steps = builder.sub(steps, ir.Constant(_INTS, [BASE_BITS] * LANES))
            place = vectors.at(sums.data, at, _INTS)
            builder.store(builder.add(builder.load(place, align=4), steps), place, align=4)
            return carried

        vectors.loop(builder.extract_value(sums.shape, 0), LANES, [], body)
        return context.get_dummy_value()

    return types.void(x, least, row, sums), emit


add_row: Any = _add_row
"""For compiled loops: add one factor's products to a row of sums."""
