"""Translate a torch op of a trace by its decomposition, recorded on tensors without values, then op by op.

torch.export does the same by its own table (:func:`tlkit.core.convert.tools.teach.decompositions`). Lengths known only
when the model runs are symbols here as there, so that what is recorded holds for all of them, or is refused.
Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx

from tlkit.core.convert.tools.kit.mends import REPLACED, Compose, Mend
from tlkit.core.convert.tools.kit.reading import is_float

Table = Callable[[], Mapping[Any, Callable[..., Any]]]
"""What torch is to take apart, by overload (:func:`tlkit.core.convert.tools.teach.decompositions`)."""

_PRIMES = (101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157)
"""What stands for unknown lengths while an op is recorded: each like no other length."""


_LENGTHS = (7, 11, 13, 17, 19, 23)
"""What stands for whole numbers known only when the model runs."""


def expand(entry: Mend | None, table: Table, context: Any, node: Any) -> None:
    """Translate ``node`` by the composition ``entry`` (None: torch's decomposition).

    ``table`` lists further ops to decompose.

    Raises ValueError where the result depends on a length that is known only at run time.
    """
    from coremltools.converters.mil.frontend.torch.utils import TORCH_EXPORT_BASED_FRONTENDS

    kind = node.kind.removesuffix("_")
    if context.frontend in TORCH_EXPORT_BASED_FRONTENDS:  # which has taken apart already what it was to
        REPLACED[kind](context, node)
        return
    given = [context[name] if isinstance(name, str) and name in context else name for name in node.inputs]
    if entry and entry.applies and not entry.applies(given):
        REPLACED[kind](context, node)
        return
    overload, arguments = _bound(kind, given)
    call = (entry and entry.compose) or decomposition(overload)
    assert call is not None
    graph, tensors = _recorded(call, overload, arguments, table())
    if graph is None:
        REPLACED[kind](context, node)
        return
    results = _translated(context, node, graph, tensors)
    if len(node.outputs) == len(results) or (len(results) == 1 and len(node.outputs) == 1):
        for name, result in zip(node.outputs, results, strict=True):
            context.add(_renamed(result, name), torch_name=name)
    else:
        context.add(list(results), torch_name=node.name)


@cache
def decomposition(overload: Any) -> Callable[..., Any] | None:
    """Return torch's decomposition of an op, None where it has none."""
    from torch._decomp import decomposition_table

    table: dict[Any, Callable[..., Any]] = decomposition_table
    if overload in table:
        return table[overload]
    return overload.decompose if overload._can_decompose() else None


def _bound(kind: str, given: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Return the overload that ``given`` fits, and its arguments: plain numbers, and tensors as coremltools' values."""
    packet = getattr(torch.ops.aten, kind)
    found = []
    for name in packet.overloads():
        overload = getattr(packet, name)
        schema = overload._schema
        tensors = all("Tensor" in str(item.type) for item in schema.returns)  # TorchScript has ops of plain numbers too
        if schema.is_mutable or not tensors or len(schema.arguments) != len(given):
            continue
        try:
            bound = [
                _named(value, item.name, str(item.type)) for value, item in zip(given, schema.arguments, strict=True)
            ]
        except TypeError:
            continue
        numbers = sum(not _is_tensor(value) for value in bound)
        found.append((numbers, overload, bound))
    if not found:
        raise ValueError(f"'{kind}' with such arguments")
    # Of several that fit, the one that takes the most as plain numbers, which are known now.
    _, overload, bound = max(found, key=lambda item: item[0])
    return overload, bound


def _is_tensor(value: Any) -> bool:
    # Only coremltools' Var has it; to ask for the class would import coremltools.
    return hasattr(value, "sym_type")


def _named(value: Any, name: str, kind: str) -> Any:
    from coremltools.converters.mil.frontend.torch.utils import NUM_TO_TORCH_DTYPE

    if name in ("layout", "device", "pin_memory", "memory_format"):
        # Where and how a tensor lies in memory means nothing to Core ML.
        return None
    bound = _argument(value, kind)
    return NUM_TO_TORCH_DTYPE[bound] if name in ("dtype", "out_dtype") and bound is not None else bound


def _argument(value: Any, kind: str) -> Any:
    """Return ``value`` as an argument of type ``kind`` (``Tensor``, ``Optional[List[int]]``), or raise TypeError."""
    optional = kind.startswith("Optional[")
    kind = kind.removeprefix("Optional[").removesuffix("]") if optional else kind
    if value is None:
        if optional:
            return None
        raise TypeError(kind)
    if kind.startswith("List["):
        inner = kind[5:].removesuffix("]")
        # coremltools makes one constant of a list of numbers.
        if _is_tensor(value):
            if value.val is None or "Tensor" in inner:
                raise TypeError(kind)
            return [_argument(item, inner) for item in value.val.reshape(-1).tolist()]
        if not isinstance(value, list | tuple):
            raise TypeError(kind)
        return [_argument(item, inner) for item in value]
    if kind == "Tensor":
        if not _is_tensor(value) or isinstance(value.val, str):
            raise TypeError(kind)
        return value
    if kind == "int" and _is_tensor(value) and value.val is None and value.rank == 0 and not is_float(value):
        return _Length(value)
    return _number(getattr(value, "val", value), kind)


@dataclass(frozen=True)
class _Length:
    """An integer that is known only at run time."""

    value: Any


_PLAIN: dict[str, Callable[[Any], Any]] = {"int": int, "float": float, "bool": bool, "str": str}


def _number(value: Any, kind: str) -> Any:
    if value is None or isinstance(value, list | tuple) or bool(getattr(value, "ndim", False)):
        raise TypeError(kind)
    value = value.item() if hasattr(value, "item") else value
    if kind == "number":
        return value
    # Nothing is converted here: the types are what chooses the overload.
    if isinstance(value, str) != (kind == "str") or (kind == "int" and isinstance(value, float)):
        raise TypeError(kind)
    if isinstance(value, bool) != (kind == "bool"):
        raise TypeError(kind)
    return _PLAIN.get(kind, lambda item: item)(value)


def _recorded(
    call: Compose, overload: Any, arguments: list[Any], table: Mapping[Any, Callable[..., Any]]
) -> tuple[fx.GraphModule | None, list[Any]]:
    """Record ``call``; return its graph, None where it left the op to coremltools, and the values it takes."""
    from torch._dispatch.python import enable_python_dispatcher
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    tensors: list[Any] = []
    # Rules make constants of their own, which have values.
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    spec = [_placed(value, tensors) for value in arguments]
    fakes = _fakes(mode, tensors)
    left = []

    def run(*values: Tensor) -> Any:
        filled = [_filled(item, values) for item in spec]
        schema = overload._schema.arguments
        positional = [value for value, item in zip(filled, schema, strict=True) if not item.kwarg_only]
        named = {item.name: value for value, item in zip(filled, schema, strict=True) if item.kwarg_only}
        result = call(*positional, **named)
        if result is NotImplemented:
            left.append(True)
            return values
        return result

    with mode, enable_python_dispatcher(), torch.no_grad():
        graph = make_fx(run, decomposition_table=dict(table))(*fakes)
    if left:
        return None, []
    _check_guards(mode.shape_env, overload)
    _without_writes(graph.graph)
    return graph, tensors


def _without_writes(graph: fx.Graph) -> None:
    """Compute what an op of torch's own rules writes into a whole tensor as a new one, which is read from there on."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
            continue
        packet = getattr(torch.ops.aten, target.overloadpacket.__name__.removesuffix("_"), None)
        plain = getattr(packet, target._overloadname, None)
        if plain is None or plain._schema.is_mutable:
            raise ValueError(f"'{target.name()}' inside it writes into a tensor")
        written = node.args[0]
        node.target = plain
        if isinstance(written, fx.Node):
            for user in [user for user in written.users if order[user] > order[node]]:
                user.replace_input_with(written, node)


class _Place(int):
    """The place of a tensor among those that a recorded function takes."""


def _placed(value: Any, tensors: list[Any]) -> Any:
    if isinstance(value, list):
        return [_placed(item, tensors) for item in value]
    if not _is_tensor(value) and not isinstance(value, _Length):
        return value
    tensors.append(value)
    return _Place(len(tensors) - 1)


def _filled(item: Any, values: Sequence[Tensor]) -> Any:
    if isinstance(item, list):
        return [_filled(inner, values) for inner in item]
    return values[item] if isinstance(item, _Place) else item


def _fakes(mode: Any, tensors: Sequence[Any]) -> list[Any]:
    """Return a tensor without values for each of coremltools': equal symbols become equal ones."""
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    known: dict[str, int] = {}
    made: list[Any] = []
    for tensor in tensors:
        if isinstance(tensor, _Length):
            made.append(_length(mode, len(made)))
            continue
        fixed = [isinstance(size, int) or str(size).isdigit() for size in tensor.shape]
        sizes = [
            int(size) if plain else known.setdefault(str(size), _PRIMES[len(known) % len(_PRIMES)])
            for size, plain in zip(tensor.shape, fixed, strict=True)
        ]
        # DUCK: equal sizes become one symbol, which is why each unknown length stands as another prime.
        how: Any = StatelessSymbolicContext([DimDynamic.STATIC if plain else DimDynamic.DUCK for plain in fixed])
        empty = torch.empty(sizes, dtype=_torch_dtype(tensor), device="cpu")
        made.append(mode.from_tensor(empty, symbolic_context=how, source=_source(len(made))))
    return made


def _length(mode: Any, index: int) -> Any:
    from torch.fx.experimental.symbolic_shapes import DimDynamic

    hint, source = _LENGTHS[index % len(_LENGTHS)], _source(index)
    symbol = mode.shape_env.create_symbol(hint, source, dynamic_dim=DimDynamic.DYNAMIC, constraint_dim=None)
    return mode.shape_env.create_symintnode(symbol, hint=hint, source=source)


def _source(index: int) -> Any:
    from torch._dynamo.source import ConstantSource

    return ConstantSource(f"given_{index}")


def _torch_dtype(value: Any) -> torch.dtype:
    from coremltools.converters.mil.mil import types

    if types.is_complex(value.dtype):
        return torch.complex64
    if types.is_bool(value.dtype):
        return torch.bool
    if types.is_int(value.dtype):
        return torch.int64
    return torch.float16 if value.dtype == types.fp16 else torch.float32


def _check_guards(shapes: Any, overload: Any) -> None:
    """Raise ValueError where what was recorded holds for some lengths only: each condition is tried on others."""
    symbols = sorted({symbol for guard in shapes.guards for symbol in guard.expr.free_symbols}, key=str)
    # Even and odd ones, small and large.
    for start in (16, 37, 1000, 4001):
        lengths = {symbol: start + 7 * index for index, symbol in enumerate(symbols)}
        if any(guard.expr.subs(lengths) == False for guard in shapes.guards):  # noqa: E712  # sympy's own False
            raise ValueError(f"'{overload.name()}' depends on a length that is known only when the model runs")


def _translated(context: Any, node: Any, graph: fx.GraphModule, tensors: Sequence[Any]) -> list[Any]:
    """Translate a recorded ``graph`` of ``tensors`` op by op; return its results."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.frontend.torch.internal_graph import InternalTorchIRNode
    from coremltools.converters.mil.frontend.torch.ops import convert_single_node

    graph.graph.eliminate_dead_code()
    results: list[Any] = []
    given = iter(tensors)
    with _as_exported(context):
        for part in graph.graph.nodes:
            # An op may come several times, and the whole program shares its names.
            part._rename(f"{node.name}_{part.name}")
            if part.op == "placeholder":
                value = next(given)
                context.add(value.value if isinstance(value, _Length) else value, torch_name=part.name)
            elif part.op == "get_attr":
                value = getattr(graph, part.target)
                context.add(mb.const(val=_narrow(value), name=part.name), torch_name=part.name)
            elif part.op == "output":
                outputs = part.args[0] if isinstance(part.args[0], list | tuple) else [part.args[0]]
                results = [context[output.name] for output in outputs]
            else:
                convert_single_node(context, InternalTorchIRNode.from_exir_node(part))
    return results


def _narrow(value: Tensor) -> Any:
    # Core ML computes with 32 bits at most.
    narrow = {torch.int64: torch.int32, torch.float64: torch.float32}
    return value.detach().to(narrow.get(value.dtype, value.dtype)).numpy()


@contextmanager
def _as_exported(context: Any) -> Iterator[None]:
    """Let coremltools read the nodes in the body as torch.export writes them."""
    from coremltools.converters.mil.frontend.torch.utils import TorchFrontend

    before, context.frontend = context.frontend, TorchFrontend.TORCHEXPORT
    try:
        yield
    finally:
        context.frontend = before


def _renamed(result: Any, name: str) -> Any:
    from coremltools.converters.mil import Builder as mb

    return mb.identity(x=result, name=name)
