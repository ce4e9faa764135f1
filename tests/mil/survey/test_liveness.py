"""The memory of a program's values: counted by hand, and against what PyTorch's allocator gave the eager engine.

Covers tlkit/mil/survey/views.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.mil.programs import call, constant, function, tensor
from tlkit.engines.torch.engine import TorchEngine
from tlkit.mil import ops
from tlkit.mil.program import Block, Function, Operation, Ref
from tlkit.mil.survey.liveness import DECLARED, EAGER_F16, EAGER_F32, EXACT, alive, peak
from tlkit.mil.survey.views import reshaped
from tlkit.mil.types import DType, TensorType

HALF = tensor("fp16", 4, 8)  # 64 bytes


def _held(net: Function, **options: Any) -> list[int]:
    return [item.nbytes for item in alive(net, **options)]


def test_a_value_lives_from_its_maker_to_its_last_reader() -> None:
    net = function(
        {"x": HALF},
        [
            call("relu", "a", HALF, x="x"),
            call("exp", "b", HALF, x="a"),
            call("add", "c", HALF, x="a", y="b"),
            call("tanh", "d", HALF, x="c"),
        ],
        ["d"],
    )
    # x is the caller's to the end; a lives to the add, b too.
    assert _held(net) == [128, 192, 256, 192]
    found = peak(net)
    assert found is not None and (found.operation.outputs[0].name, found.nbytes) == ("c", 256)


def test_an_output_lives_to_the_end_and_a_value_that_nobody_reads_for_a_moment() -> None:
    net = function({"x": HALF}, [call("relu", f"v{n}", HALF, x="x") for n in range(3)], ["v0"])
    assert _held(net) == [128, 192, 192]


def test_another_look_at_a_value_takes_nothing_and_keeps_it() -> None:
    flat, turned = tensor("fp16", 32), tensor("fp16", 8, 4)
    net = function(
        {"x": HALF},
        [
            constant("shape", [32], "int32"),
            constant("perm", [1, 0], "int32"),
            call("exp", "a", HALF, x="x"),
            call("reshape", "b", flat, x="a", shape="shape"),
            call("tanh", "c", flat, x="b"),
            call("transpose", "t", turned, x="a", perm="perm"),
            call("reshape", "r", flat, x="t", shape="shape"),  # of values in another order: a copy
            call("add", "z", flat, x="r", y="c"),
        ],
        ["z"],
    )
    assert _held(net) == [128, 128, 192, 192, 256, 256]


def test_a_reshape_is_a_look_where_pytorch_makes_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        shape = tuple(int(size) for size in rng.integers(1, 5, int(rng.integers(1, 5))))
        source = torch.zeros(tuple(2 * size for size in shape))
        value = source[tuple(slice(0, 2 * size, 2) if rng.random() < 0.2 else slice(size) for size in shape)]
        value = value.permute(*(int(axis) for axis in rng.permutation(len(shape))))
        made = _factors(value.numel(), rng)
        found = reshaped(value.shape, value.stride(), made)
        looked = value.reshape(made)
        assert (found is not None) == (looked.untyped_storage().data_ptr() == source.untyped_storage().data_ptr())
        if found is not None and value.numel() > 1:
            assert torch.equal(torch.as_strided(value, made, found, value.storage_offset()), looked)


def _factors(count: int, rng: Any) -> tuple[int, ...]:
    """Return a random shape of ``count`` elements."""
    sizes = []
    while count > 1:
        size = int(rng.choice([size for size in range(2, count + 1) if count % size == 0]))
        sizes.append(size)
        count //= size
    for _ in range(int(rng.integers(0, 3))):
        sizes.insert(int(rng.integers(0, len(sizes) + 1)), 1)
    return tuple(sizes)


def test_weights_are_not_counted_and_types_have_their_width() -> None:
    net = function(
        {"x": HALF}, [constant("w", np.ones((8, 8)), "fp16"), call("cast", "y", tensor("bool", 4, 8), x="x")], ["y"]
    )
    assert _held(net) == [64 + 32]


def test_an_open_dimension_counts_as_one() -> None:
    kind = tensor("fp32", None, 8)
    assert _held(function({"x": kind}, [call("relu", "y", kind, x="x")], ["y"])) == [64]


def test_what_runs_inside_a_block_is_beside_what_surrounds_it() -> None:
    inner = Block((), ("p",), (call("exp", "o", HALF, x="a"), call("tanh", "p", HALF, x="o")))
    cond = Operation("cond", {"pred": (Ref("k"),)}, call("cond", "y", HALF).outputs, {}, (inner, inner))
    net = function({"x": HALF, "k": tensor("bool")}, [call("relu", "a", HALF, x="x"), cond], ["y"])
    held = [(item.operation.type, item.nbytes) for item in alive(net)]
    assert held == [("relu", 129), ("exp", 193), ("tanh", 257), ("exp", 193), ("tanh", 257), ("cond", 193)]


def test_rounding_takes_room_and_selections_do_not_round() -> None:
    net = function({"x": HALF}, [call("exp", "a", HALF, x="x"), call("relu", "y", HALF, x="a")], ["y"])
    assert _held(net, carrier=DECLARED) == [128, 192]
    assert _held(net, carrier=EAGER_F32) == [256, 384]
    assert _held(net, carrier=EAGER_F16) == [256 + 192, 384]


def test_what_needs_no_rounding_is_what_the_op_library_says() -> None:
    known = {name for name, versions in ops.library().items() for item in versions if item.exact and not item.constexpr}
    assert {name for name in known if not name.startswith("constexpr_")} == EXACT


def _allocated(engine: TorchEngine, arrays: dict[str, Any]) -> int:
    """Return the most bytes that PyTorch's allocator had given out at once while ``engine`` ran."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        engine.run(arrays)
    events = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return int(np.cumsum([nbytes for _, nbytes in changes]).max())


def _network(seed: int) -> Function:
    """Return a random program of large values: chains, branches that meet again, reshapes and transposes."""
    rng = np.random.default_rng(seed)
    kind = tensor("fp16", 512, 512)
    names, operations = ["x"], [constant("perm", [1, 0], "int32")]
    for number in range(14):
        first, second = (names[-1 - int(rng.integers(min(len(names), 4)))] for _ in range(2))
        name = f"v{number}"
        choice = rng.choice(["exp", "tanh", "relu", "add", "mul", "matmul", "transpose"])
        if choice == "transpose":
            operations.append(call("transpose", name, kind, x=first, perm="perm"))
        elif choice in ("exp", "tanh", "relu"):
            operations.append(call(str(choice), name, kind, x=first))
        else:
            operations.append(call(str(choice), name, kind, x=first, y=second))
        names.append(name)
    return function({"x": kind}, operations, [names[-1]])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("precision", "carrier"), [("f32", EAGER_F32), ("f16", EAGER_F16)])
def test_the_peak_is_what_the_eager_engine_allocates(seed: int, precision: str, carrier: Any) -> None:
    net = _network(seed)
    arrays = {"x": np.random.default_rng(seed).standard_normal((512, 512)).astype(np.float32) * 0.01}
    engine = TorchEngine(net, precision=precision)
    engine.run(arrays)
    found = peak(net, carrier)
    assert found is not None
    measured = _allocated(engine, arrays)
    # The array given is of f32 already: the engine takes it as it is, or rounded in memory of its own.
    given = 0 if precision == "f16" else carrier.nbytes(TensorType(DType.FP16, (512, 512)))
    assert abs(found.nbytes - given - measured) <= 0.02 * measured
