"""Small programs that ask for much, one of each kind, as MIL text: none has 5,000 bytes.

``GREEDY`` runs into the budget; ``MODEST`` does the same in a size that is fine.
"""

from __future__ import annotations

from itertools import pairwise

_HEAD = "program(1.3)\n{\n    func main<ios18>(tensor<fp32, [1, 2]> x) {\n"


def program(*lines: str, out: str = "y") -> str:
    """A function of ``x`` (1x2) with these operations."""
    body = "\n".join(f"            {line}" for line in lines)
    return f"{_HEAD}{body}\n        }} -> ({out});\n}}\n"


def const(name: str, kind: str, value: str) -> str:
    return f'{kind} {name} = const()[name = string("{name}"), val = {kind}({value})];'


def op(name: str, kind: str, call: str) -> str:
    return f'{kind} {name} = {call}[name = string("{name}")];'


_TWO, _ONE, _FOUR = "tensor<fp32, [?, ?]>", "tensor<fp32, [?]>", "tensor<fp32, [?, ?, ?, ?]>"
_PLANE = (const("plane", "tensor<int32, [4]>", "[1, 1, 1, 2]"), op("r", _FOUR, "reshape(x = x, shape = plane)"))


def filled(size: int) -> str:
    kind = f"tensor<fp32, [{size}]>"
    return program(const("k", kind, "[0x1p+0]"), op("y", kind, "mul(x = k, y = k)"))


def filled_often(count: int) -> str:
    """Constants of 8 million equal elements each."""
    kind = "tensor<fp32, [8000000]>"
    lines = [
        line
        for at in range(count)
        for line in (const(f"k{at}", kind, f"[0x1p+{at}]"), op(f"v{at}", kind, f"mul(x = k{at}, y = k{at})"))
    ]
    return program(*lines, out=f"v{count - 1}")


def fill(size: int) -> str:
    return program(const("s", "tensor<int32, [2]>", f"[{size}, {size}]"), op("y", _TWO, "fill(shape = s)"))


def tile(size: int) -> str:
    return program(const("s", "tensor<int32, [2]>", f"[{size}, {size}]"), op("y", _TWO, "tile(x = x, reps = s)"))


def pad(size: int) -> str:
    sizes = const("s", "tensor<int32, [4]>", f"[{size}, {size}, {size}, {size}]")
    return program(sizes, op("y", _TWO, "pad(x = x, pad = s)"))


def range_1d(size: int) -> str:
    ends = (const(name, "int32", str(value)) for name, value in (("a", 0), ("b", size), ("c", 1)))
    return program(*ends, op("y", "tensor<int32, [?]>", "range_1d(start = a, end = b, step = c)"))


def fine_range(size: int) -> str:
    """From 0 to 1 in steps of 2**-size."""
    values = (("a", "0x0p+0"), ("b", "0x1p+0"), ("c", f"0x1p-{size}"))
    ends = (const(name, "fp32", value) for name, value in values)
    return program(*ends, op("y", _ONE, "range_1d(start = a, end = b, step = c)"))


def one_hot(size: int) -> str:
    where = const("i", "tensor<int32, [2]>", "[0, 1]")
    return program(
        where, const("n", "int32", str(size)), op("y", _TWO, "one_hot(indices = i, one_hot_vector_size = n)")
    )


def upsample(scale: int) -> str:
    factors = (const(name, "fp32", f"0x1p+{scale}") for name in ("h", "w"))
    call = "upsample_nearest_neighbor(x = r, scale_factor_height = h, scale_factor_width = w)"
    return program(*_PLANE, *factors, op("y", _FOUR, call))


def resize(size: int) -> str:
    sizes = (const(name, "int32", str(size)) for name in ("h", "w"))
    call = "resize_bilinear(x = r, target_size_height = h, target_size_width = w)"
    return program(*_PLANE, *sizes, op("y", _FOUR, call))


def affine(size: int) -> str:
    sizes = (const(name, "int32", str(size)) for name in ("h", "w"))
    words = (
        const(name, "string", f'"{word}"')
        for name, word in (("m", "bilinear"), ("p", "constant"), ("g", "align_corners"))
    )
    value = const("v", "fp32", "0x0p+0"), const("b", "bool", "true")
    modes = "sampling_mode = m, padding_mode = p, padding_value = v, coordinates_mode = d, align_corners = b"
    matrix = const("t", "tensor<fp32, [1, 6]>", "[0x1p+0, 0x0p+0, 0x0p+0, 0x0p+0, 0x1p+0, 0x0p+0]")
    mode = const("d", "string", '"normalized_minus_one_to_one"')
    call = f"affine(x = r, transform_matrix = t, output_height = h, output_width = w, {modes})"
    return program(*_PLANE, *sizes, *words, *value, matrix, mode, op("y", _FOUR, call))


def broadcast(size: int) -> str:
    """A column plus a row, each made of two tiles."""
    sizes = const("s", "tensor<int32, [2]>", f"[{size}, 1]"), const("p", "tensor<int32, [2]>", "[1, 0]")
    column = op("c", _TWO, "tile(x = x, reps = s)"), const("f", "tensor<int32, [2]>", "[-1, 1]")
    ends = op("d", _TWO, "reshape(x = c, shape = f)"), op("e", _TWO, "transpose(x = d, perm = p)")
    return program(*sizes, *column, *ends, op("y", _TWO, "add(x = d, y = e)"))


def matmul(size: int) -> str:
    return broadcast(size).replace("add(x = d, y = e)", "matmul(x = d, y = e)")


def doubled(times: int) -> str:
    """Each value two of the one before."""
    names = ["x", *(f"v{at}" for at in range(times))]
    joins = [
        op(new, _TWO, f"concat(values = ({old}, {old}), axis = a, interleave = b)") for old, new in pairwise(names)
    ]
    return program(const("a", "int32", "0"), const("b", "bool", "false"), *joins, out=names[-1])


def held(count: int) -> str:
    """Values of 8 million elements, all of them needed at the end."""
    lines = [const("s", "tensor<int32, [2]>", "[2000, 4000]"), op("f", _TWO, "fill(shape = s)")]
    for at in range(count):
        lines += [const(f"k{at}", "fp32", "0x1p+0"), op(f"v{at}", _TWO, f"add(x = f, y = k{at})")]
    return program(*lines, out=", ".join(f"v{at}" for at in range(count)))


def drawn(size: int) -> str:
    """Random numbers, by a generator of their own."""
    given = const("s", "tensor<int32, [2]>", f"[{size}, {size}]"), const("q", "int32", "1")
    return program(*given, op("y", _TWO, "random_normal(shape = s, mean = m, stddev = d, seed = q)")).replace(
        given[1], f"{given[1]} {const('m', 'fp32', '0x0p+0')} {const('d', 'fp32', '0x1p+0')}"
    )


def picked(size: int) -> str:
    given = const("s", "int32", str(size)), const("q", "int32", "1"), const("m", "string", '"logits"')
    return program(*given, op("y", "tensor<int32, [?, ?]>", "random_categorical(x = x, mode = m, size = s, seed = q)"))


def written(index: int) -> str:
    """A list that is written to at ``index``."""
    given = const("n", "int32", "1"), const("d", "bool", "true"), const("e", "tensor<int32, [2]>", "[1, 2]")
    kind = "list<tensor<fp32, [1, 2]>, ?>"
    made = op("l", kind, "make_list(init_length = n, dynamic_length = d, elem_shape = e, dtype = t)")
    wrote = op("w", kind, "list_write(ls = l, index = far, value = x)")
    far = const("far", "int32", str(index)), const("t", "string", '"fp32"')
    return program(*given, *far, made, wrote, op("y", "tensor<int32, []>", "list_length(ls = w)"))


def looped(below: int, inner: int = 0) -> str:
    """Adds 1 until ``below`` is reached; with ``inner``, each turn is a loop that adds so many."""
    number = "tensor<fp32, []>"
    start = const("zero", "fp32", "0x0p+0"), const("one", "fp32", "0x1p+0"), const("end", "fp32", f"{below}.0")
    body = op("b", number, "add(x = v, y = one)")
    if inner:
        test, add = op("q", "tensor<bool, []>", "less(x = i, y = stop)"), op("m", number, "add(x = j, y = one)")
        nested = f"block0({number} i) {{ {test} }} -> (q); block1({number} j) {{ {add} }} -> (m);"
        body = f"{op('stop', number, 'add(x = v, y = many)')} {number} b = while_loop(loop_vars = (v)) {{ {nested} }};"
    test = op("t", "tensor<bool, []>", "less(x = u, y = end)")
    blocks = f"block0({number} u) {{ {test} }} -> (t); block1({number} v) {{ {body} }} -> (b);"
    loop = f"{number} y = while_loop(loop_vars = (zero)) {{ {blocks} }};"
    return program(*start, const("many", "fp32", f"{inner}.0"), loop)


GREEDY = {
    "filled 2^30": filled(1 << 30),
    "filled 2^40": filled(1 << 40),
    "filled often": filled_often(40),
    "fill": fill(1 << 16),
    "tile": tile(1 << 16),
    "pad": pad(1 << 16),
    "range_1d": range_1d((1 << 31) - 1),
    "fine range_1d": fine_range(40),
    "one_hot": one_hot((1 << 31) - 1),
    "upsample": upsample(15),
    "resize": resize(1 << 16),
    "affine": affine(1 << 15),
    "broadcast": broadcast(1 << 20),
    "matmul": matmul(1 << 20),
    "doubled": doubled(40),
    "held": held(40),
    "drawn": drawn(1 << 17),
    "picked": picked(1 << 30),
    "written": written(2_000_000_000),
    "looped": looped(1_000_000_000),
    "looped twice": looped(1_000_000_000, inner=1000),
}
"""Programs that a machine's memory, or a user's day, would be spent on."""

MODEST = {
    "filled": filled(1000),
    "filled often": filled_often(3),
    "fill": fill(100),
    "tile": tile(100),
    "pad": pad(100),
    "range_1d": range_1d(1000),
    "fine range_1d": fine_range(10),
    "one_hot": one_hot(100),
    "upsample": upsample(5),
    "resize": resize(100),
    "affine": affine(100),
    "broadcast": broadcast(500),
    "matmul": matmul(500),
    "doubled": doubled(10),
    "held": held(2),
    "drawn": drawn(100),
    "picked": picked(100),
    "written": written(1000),
    "looped": looped(1000),
    "looped twice": looped(1000, inner=100),
}
"""The same in sizes that are nobody's concern."""
