"""What a device does not run, or computes otherwise, by the shapes and types of a program, beside rules that hold back
just under a limit."""

from __future__ import annotations

import pytest

from tlkit.mil.risks.devices import not_on_devices
from tlkit.mil.text.api import parse_program


def told(text: str, kind: str, shape: str, given: tuple[int, ...]) -> list[str]:
    """The rows of the lines about a program of one operation whose input ``x`` is given this shape."""
    whole = f"program(1.3) {{ func main<ios18>(tensor<{kind}, {shape}> x) {{ {text} }} -> (y); }}"
    lines = not_on_devices(parse_program(whole, lambda name: None).function(), (), {"x": given})
    return [line.rpartition(" ")[2].strip("()") for line in lines]


PRELU = """tensor<fp16, [2]> a = const()[val = tensor<fp16, [2]>([0x1p-1, 0x1p-2])];
tensor<fp16, [1, 2, 3]> y = prelu(x = x, alpha = a);"""


@pytest.mark.parametrize(
    ("text", "kind", "shape", "rows"),
    [
        ("tensor<fp16, [1, 1, 1, 1, 1, 2]> y = relu(x = x);", "fp16", "[1, 1, 1, 1, 1, 2]", ["C1"]),
        ("tensor<fp16, [1, 1, 1, 1, 2]> y = relu(x = x);", "fp16", "[1, 1, 1, 1, 2]", []),
        ("tensor<int32, [2, 2]> y = matmul(x = x, y = x);", "int32", "[2, 2]", ["C4"]),
        ("tensor<fp16, [2, 2]> y = matmul(x = x, y = x);", "fp16", "[2, 2]", []),
        ("tensor<fp16, [16385]> y = relu(x = x);", "fp16", "[16385]", ["C7"]),
        ("tensor<fp16, [16384]> y = relu(x = x);", "fp16", "[16384]", []),
        ("tensor<fp16, [4]> y = sinh(x = x);", "fp16", "[4]", ["C8"]),
        ("tensor<fp16, [?]> y = relu(x = x);", "fp16", "[?]", ["C17"]),
        (PRELU, "fp16", "[1, 2, 3]", ["O18"]),
    ],
)
def test_what_a_device_does_not_run_is_told_by_shapes_and_types(
    text: str, kind: str, shape: str, rows: list[str]
) -> None:
    assert told(text, kind, shape, (4,)) == rows


def test_an_open_axis_is_too_long_by_what_it_is_given() -> None:
    text = "tensor<fp16, [?]> y = relu(x = x);"
    assert [told(text, "fp16", "[?]", (size,)) for size in (16384, 16385)] == [["C17"], ["C17", "C7"]]
    whole = f"program(1.3) {{ func main<ios18>(tensor<fp16, [?]> x) {{ {text} }} -> (y); }}"
    lines = not_on_devices(parse_program(whole, lambda name: None).function(), (), {"x": (65537,)})
    assert lines[-1] == "'x' has an axis of 65537: the Neural Engine takes at most 65536 (C7)"
