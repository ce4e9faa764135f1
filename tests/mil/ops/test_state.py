"""States: what a program reads and writes, and that nothing sees an update before or after its time.

Covers tlkit/mil/lower/states.py.
"""

import numpy as np
import pytest
import torch

from tests.mil.ops.optable import Case, case, read, rows, table
from tlkit.mil.lower import lower
from tlkit.mil.ops.state import borrow
from tlkit.mil.ops.transformation import slice_update, slice_update_

H, F = np.float16, np.float32
START = np.array([1, 2, 3, 4], H)
CACHE = {"cache": np.zeros((2, 4, 3), H)}
ROW = {"row": np.arange(1, 4, dtype=H).reshape(1, 1, 3)}
WIDE = {"row": ROW["row"].astype(F)}
FINE = {"row": (F(1) + np.arange(1, 4, dtype=F) * F(2**-12)).reshape(1, 1, 3)}  # not f16 numbers


def counter(mb, s):
    for _ in range(3):
        mb.coreml_update_state(state=s, value=mb.add(x=mb.read_state(input=s), y=H(1)))
    return mb.read_state(input=s)


def kept_read(mb, s):
    """A read from before an update, and a view of it, used after it."""
    old = mb.read_state(input=s)
    view = mb.reshape(x=old, shape=[2, 2])
    new = mb.coreml_update_state(state=s, value=mb.mul(x=old, y=H(10)))
    return mb.add(x=old, y=new), mb.transpose(x=view, perm=[1, 0])


def append(mb, cache, row):
    """The way of a KV cache: read, put a row into a layer, write back, read and attend."""
    outputs = []
    for layer in range(2):
        old = mb.read_state(input=cache)
        new = mb.slice_update(x=old, update=row, begin=[layer, 1, 0], end=[layer + 1, 2, 3])
        now = mb.coreml_update_state(state=cache, value=new)
        part = mb.slice_by_index(x=now, begin=[layer, 0, 0], end=[layer + 1, 4, 3])
        outputs.append(mb.mul(x=part, y=H(2)))
    return tuple(outputs)


def append_f32(mb, cache, row, *, look_back=False):
    """The same in a program that computes in f32: the state is widened, the new contents are narrowed."""
    outputs = []
    for layer in range(2):
        old = mb.cast(x=mb.read_state(input=cache), dtype="fp32")
        new = mb.slice_update(x=old, update=row, begin=[layer, 1, 0], end=[layer + 1, 2, 3])
        now = mb.coreml_update_state(state=cache, value=mb.cast(x=new, dtype="fp16"))
        part = mb.slice_by_index(x=mb.cast(x=now, dtype="fp32"), begin=[layer, 0, 0], end=[layer + 1, 4, 3])
        outputs.append(mb.sub(x=part, y=mb.reduce_sum(x=old)) if look_back else mb.mul(x=part, y=np.float32(2)))
    return tuple(outputs)


def append_and_look_back(mb, cache, row):
    """As above, but the contents from before are still wanted after the update."""
    old = mb.read_state(input=cache)
    new = mb.slice_update(x=old, update=row, begin=[0, 1, 0], end=[1, 2, 3])
    now = mb.coreml_update_state(state=cache, value=new)
    return mb.sub(x=now, y=old)


def shifted(mb, cache):
    """The update is a view of what it overwrites."""
    old = mb.read_state(input=cache)
    part = mb.slice_by_index(x=old, begin=[0, 0, 0], end=[2, 3, 3])
    new = mb.slice_update(x=old, update=part, begin=[0, 1, 0], end=[2, 4, 3])
    return mb.coreml_update_state(state=cache, value=new)


def reversed_onto_itself(mb, s):
    return mb.coreml_update_state(state=s, value=mb.reverse(x=mb.read_state(input=s)))


def in_a_branch(mb, s, pred):
    def update():
        return mb.coreml_update_state(state=s, value=mb.add(x=mb.read_state(input=s), y=H(1)))

    old = mb.read_state(input=s)
    new = mb.cond(pred=mb.squeeze(x=pred), _true_fn=update, _false_fn=lambda: mb.read_state(input=s))
    return mb.add(x=old, y=new)


def looked_back():
    """What append_f32 gives when it takes the sum of the cache from before off."""
    first, second = (appended(CACHE["cache"], WIDE["row"], layers).astype(F) for layers in (1, 2))
    return first[:1], second[1:] - first.sum()


def appended(cache, row, layers=2):
    out = cache.copy()
    out[:layers, 1] = row[0, 0]
    return out


ROLLED = np.arange(24).reshape(2, 4, 3)

CASES = rows(
    case("read_state", states={"s": START}, program=counter, since=18, expected=START + 3),
    case(
        "coreml_update_state",
        states={"s": START},
        program=kept_read,
        since=18,
        expected=lambda s: (s * 11, s.reshape(2, 2).T),
        label="kept",
    ),
    case(
        "slice_update",
        ROW,
        states=CACHE,
        program=lambda mb, row, cache: append(mb, cache, row),
        since=18,
        expected=lambda row, cache: tuple(appended(cache, row)[layer : layer + 1] * 2 for layer in range(2)),
        label="cache",
    ),
    case(
        "slice_update",
        WIDE,
        states=CACHE,
        program=lambda mb, row, cache: append_f32(mb, cache, row),
        since=18,
        expected=tuple(2 * appended(CACHE["cache"], WIDE["row"])[k : k + 1].astype(F) for k in range(2)),
        label="computed in f32",
    ),
    case(
        "slice_update",
        WIDE,
        states=CACHE,
        program=lambda mb, row, cache: append_f32(mb, cache, row, look_back=True),
        since=18,
        expected=looked_back(),
        label="computed in f32, look back",
    ),
    case(
        "slice_update",
        ROW,
        states=CACHE,
        program=lambda mb, row, cache: append_and_look_back(mb, cache, row),
        since=18,
        expected=lambda row, cache: appended(cache, row, 1),
        label="look back",
    ),
    case(
        "slice_update",
        states={"cache": ROLLED.astype(H)},
        program=shifted,
        since=18,
        expected=np.concatenate((ROLLED[:, :1], ROLLED[:, :3]), 1),
        label="overlapping",
    ),
    case("write_state", states={"s": START}, program=reversed_onto_itself, since=18, expected=START[::-1]),
    *(
        case(
            "write_state",
            {"pred": np.array([flag])},
            states={"s": START},
            program=lambda mb, pred, s: in_a_branch(mb, s, pred),
            since=18,
            expected=START * 2 + flag,
            label=f"in a branch {flag}",
        )
        for flag in (True, False)
    ),
)

test_op = table(CASES)


def lowered(program, states, inputs=None):
    row = Case("read_state", inputs or {}, since=18, program=program, states=states)
    return lower.lower(read(row))


def targets(module, name):
    return [node.target for node in module.graph.nodes if node.meta.get("mil") and node.meta["mil"].type == name]


def test_a_cache_is_updated_in_place():
    module = lowered(lambda mb, row, cache: append(mb, cache, row), CACHE, ROW)
    assert targets(module, "slice_update") == [slice_update_, slice_update_]
    assert set(targets(module, "read_state")) == {borrow}
    cache = torch.zeros(2, 4, 3)
    address = cache.data_ptr()
    module(torch.ones(1, 1, 3), cache)
    assert cache.data_ptr() == address
    assert cache[:, 1].eq(1).all()
    assert cache.sum() == 6


def test_a_cache_is_updated_in_place_where_the_program_computes_in_f32():
    """No op gives as much as the whole cache but by handing it on."""
    module = lowered(lambda mb, row, cache: append_f32(mb, cache, row), CACHE, FINE)
    assert targets(module, "slice_update") == [slice_update_, slice_update_]
    cache = torch.zeros(2, 4, 3)
    whole = []

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            result = super().run_node(n)
            whole.append(result) if isinstance(result, torch.Tensor) and result.numel() == cache.numel() else None
            return result

    Watch(module).run(torch.from_numpy(FINE["row"]), cache)
    assert {tensor.data_ptr() for tensor in whole} == {cache.data_ptr()}
    np.testing.assert_array_equal(cache.numpy(), appended(CACHE["cache"], FINE["row"].astype(H)))


@pytest.mark.parametrize("program", [append_and_look_back, shifted])
def test_an_update_that_someone_sees_is_not_in_place(program):
    if program is shifted:
        module = lowered(shifted, CACHE)
    else:
        module = lowered(lambda mb, row, cache: append_and_look_back(mb, cache, row), CACHE, ROW)
    assert targets(module, "slice_update") == [slice_update]


def test_an_output_does_not_change_with_the_next_call():
    module = lowered(counter, {"s": START})
    state = torch.zeros(4)
    first = module(state)[0]
    second = module(state)[0]
    assert first.tolist() == [3.0] * 4
    assert second.tolist() == [6.0] * 4


def test_states_compile():
    module = lowered(lambda mb, row, cache: append(mb, cache, row), CACHE, ROW)
    compiled = torch.compile(module, backend="aot_eager")
    rows_, cache, again = torch.ones(1, 1, 3), torch.zeros(2, 4, 3), torch.zeros(2, 4, 3)
    for got, want in zip(compiled(rows_, cache), module(rows_, again), strict=True):
        assert torch.equal(got, want)
    assert torch.equal(cache, again)
