"""Traces with writes, rewritten: torch finds the graph well-formed and runs it to what the function gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.core.torch_families import FAMILIES
from tests.core.torch_together import flat
from tlkit.core.convert.capture.writes import without_writes

Body = Callable[[Tensor, Tensor], object]


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def _doubled(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = x + x
    return x


def _loop_first(a: Tensor, b: Tensor) -> Tensor:
    c = _doubled(a, 2) * 1
    c[0] = b[1]
    return c


def _loop_last(a: Tensor, b: Tensor) -> Tensor:
    c = a * 1
    c[0] = b[1]
    return _doubled(c, 2)


LOOPS: dict[str, Body] = {
    "after a loop": _loop_first,
    "before a loop": _loop_last,
}
CASES = FAMILIES["writes"].samples | LOOPS
A, B = FAMILIES["writes"].inputs


@pytest.mark.parametrize("names", [(name,) for name in CASES] + [tuple(CASES)], ids=lambda names: "+".join(names)[:40])
@pytest.mark.filterwarnings("ignore")
def test_graph_and_values(names: tuple[str, ...]) -> None:
    def body(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return tuple(flat([CASES[name](a, b) for name in names]))

    class Net(torch.nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
            return body(a, b)

    script = torch.jit.trace(Net().eval(), (A, B), check_trace=False)
    changed = without_writes(script)
    assert changed == ("before a loop" not in names)
    graph = script.graph
    graph.lint()
    # torch's passes insert at a place and return to this one: a node that is gone would crash them.
    assert graph.insertPoint().kind() == "prim::Return"
    torch._C._jit_pass_canonicalize_graph_fuser_ops(graph)
    torch._C._jit_pass_canonicalize(graph).lint()
    for a, b in ((A, B), (B * 3, A - 2)):
        for found, wanted in zip(script(a, b), body(a, b), strict=True):
            torch.testing.assert_close(found, wanted)
