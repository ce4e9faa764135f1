"""Small MIL programs made at random, one to four operations long, of every operation that tlkit runs.

Most do not fit together, which is the point; some are large where a program's text is small.
"""

from __future__ import annotations

import random
from functools import cache

_SIZES = (1, 1, 2, 3, 4, 8)
_HUGE = (2**16, 2**20, 2**24, 2**30, 2**31 - 1, 2**40)
_DTYPES = ("fp32", "fp16", "int32", "bool", "fp32", "fp16", "int8", "uint8", "int16", "string")
_WORDS = (
    *("constant", "reflect", "replicate", "valid", "same", "custom", "fp16", "int32"),
    *("EXACT", "TANH", "relu", "tanh", "sigmoid", "forward", "bidirectional", "RGB"),
    *(
        "STRICT_ALIGN_CORNERS",
        "DEFAULT",
        "ALIGN_CORNERS",
        "int8",
        "bij,bjk->bik",
        "CORNERS_HEIGHT_FIRST",
        "CENTER_SIZE_WIDTH_FIRST",
        "bilinear",
    ),
    *("nearest", "zeros", "border", "add", "update", "mul"),
)


@cache
def _library() -> list[tuple[str, int, tuple[tuple[str, str, bool], ...], bool, tuple[str, ...]]]:
    import tlkit.mil.ops  # noqa: F401 (registers the operations)
    from tlkit.mil.ops.kit.registry import library

    found = []
    for name, versions in sorted(library().items()):
        for version in versions:
            parameters = tuple((key, item.kind, item.required) for key, item in version.parameters.items())
            found.append((name, version.since, parameters, version.constexpr, version.special))
    return found


def random_program(rng: random.Random) -> str:
    """Return a program's text."""
    names, lines = ["x", "y", "i"], []
    for index in range(rng.choice((1, 1, 2, 3))):
        operation = rng.choice(_library())
        lines += _operation(f"v{index}", names, operation, rng)
        names.append(f"v{index}")
    shape = ", ".join(str(rng.choice(_SIZES)) for _ in range(rng.randrange(1, 5)))
    inputs = f"tensor<fp32, [{shape}]> x, tensor<fp16, [{shape}]> y, tensor<int32, [{rng.choice(_SIZES)}]> i"
    opset = rng.choice(("ios15", "ios16", "ios17", "ios18", "ios18"))
    body = "\n".join(f"            {line}" for line in lines)
    return f"program(1.3)\n{{\n    func main<{opset}>({inputs}) {{\n{body}\n        }} -> ({names[-1]});\n}}\n"


def _operation(name: str, names: list[str], operation: tuple, rng: random.Random) -> list[str]:
    title, _, parameters, constexpr, special = operation
    lines, given = [], []
    for key, kind, required in parameters:
        if not required and rng.random() < 0.5:
            continue
        if kind == "tensors":
            given.append(f"{key} = ({', '.join(rng.choice(names) for _ in range(rng.randrange(1, 4)))})")
        elif kind in ("tensor", "any") and not constexpr and rng.random() < 0.7:
            given.append(f"{key} = {rng.choice(names)}")
        else:
            constant = f"{name}_{key}"
            lines.append(_constant(constant, rng))
            given.append(f"{key} = {constant}")
    dtype = rng.choice(_DTYPES)
    shape = "" if rng.random() < 0.2 else ", ".join(str(_size(rng)) for _ in range(rng.randrange(1, 4)))
    blocks = ""
    if "blocks" in special:
        inner = f"tensor<bool, []> t = const()[val = tensor<bool, []>({rng.choice(('true', 'false'))})];"
        blocks = (
            f" {{ block0() {{ {inner} }} -> ({rng.choice(['t', *names])}); block1() {{ }} -> ({rng.choice(names)}); }}"
        )
    lines.append(f'tensor<{dtype}, [{shape}]> {name} = {title}({", ".join(given)}){blocks}[name = string("{name}")];')
    return lines


def _size(rng: random.Random) -> int:
    return rng.choice(_HUGE) if rng.random() < 0.08 else rng.choice(_SIZES)


def _constant(name: str, rng: random.Random) -> str:
    kind = rng.choice(("int32", "int32", "int32", "fp32", "fp16", "bool", "string", "uint8", "int8"))
    if kind == "string":
        return f'string {name} = const()[val = string("{rng.choice(_WORDS)}")];'
    count = rng.choice((0, 1, 1, 2, 2, 3, 4, 4, 6, 8))
    items = ", ".join(_item(kind, rng) for _ in range(max(count, 1)))
    if count == 0:
        return f"{kind} {name} = const()[val = {kind}({items})];"
    if rng.random() < 0.1:  # one element that fills a shape
        filled = f"tensor<{kind}, [{_size(rng)}]>"
        return f"{filled} {name} = const()[val = {filled}([{_item(kind, rng)}])];"
    listed = f"tensor<{kind}, [{count}]>"
    return f"{listed} {name} = const()[val = {listed}([{items}])];"


def _item(kind: str, rng: random.Random) -> str:
    if kind == "bool":
        return rng.choice(("true", "false"))
    if kind.startswith("fp"):
        return rng.choice(("0x1p+0", "0x0p+0", "-0x1p+0", "0x1p+20", "inf", "nan", "0x1.8p+1"))
    value = rng.choice((0, 1, 1, 2, 2, 3, 4, -1, -2, 8, 64)) if rng.random() < 0.9 else rng.choice(_HUGE)
    low, high = {"int32": (-(2**31), 2**31 - 1), "uint8": (0, 255), "int8": (-128, 127)}[kind]
    return str(min(max(value, low), high))
