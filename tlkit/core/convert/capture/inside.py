"""A captured graph's outputs and all its intermediate values by name. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from tlkit.core.convert.capture.trace import Traced
from tlkit.host.quiet import quiet
from tlkit.mil.lower.interpreter import Interpreter


def graph_outputs(traced: Traced, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Run the captured graph with torch on ``inputs`` and return its outputs; raises what torch raises."""
    with quiet(), torch.no_grad():
        program: Any = traced.program
        run = program.module() if isinstance(program, ExportedProgram) else program
        found = run(*inputs)
    return list(found) if isinstance(found, tuple | list) else [found]


def values_inside(traced: Traced, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return every tensor that the captured graph computes for ``inputs``, by the name that coremltools gives it.

    A tensor that is modified later is returned as first computed for an exported graph, and as it is at the end for a
    traced one.
    """
    with quiet(), torch.no_grad():
        if isinstance(traced.program, ExportedProgram):
            return _exported(traced.program, inputs)
        return _scripted(traced.program, inputs)


def _exported(program: ExportedProgram, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    class Keeper(Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor) and n.op == "call_function":
                found[n.name] = value
            return value

    # The graph's placeholders are parameters, buffers and inputs: this puts all of them in order.
    Keeper(program.graph_module).run(*program._graph_module_flat_inputs(tuple(inputs), {}))
    return found


def _scripted(script: Any, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    graph = script.inlined_graph  # a copy, whose outputs become all values
    values = [value for node in graph.nodes() for value in node.outputs() if value.type().kind() == "TensorType"]
    every = graph.create("prim::TupleConstruct", values, 1)
    every.output().setType(torch._C.TupleType([value.type() for value in values]))
    graph.appendNode(every)
    while list(graph.outputs()):
        graph.eraseOutput(0)
    graph.registerOutput(every.output())
    run = torch._C._create_function_from_graph("inside", graph)
    # coremltools writes _ for the dots in TorchScript's names.
    names = [value.debugName().replace(".", "_") for value in values]
    return dict(zip(names, run(script._c, *inputs), strict=True))


def output_names(traced: Traced) -> list[str]:
    """Return the names of the values that the captured graph returns, as :func:`values_inside` has them."""
    if isinstance(traced.program, ExportedProgram):
        return [name for name in traced.program.graph_signature.user_outputs if isinstance(name, str)]
    program: Any = traced.program
    (result,) = program.inlined_graph.outputs()
    several = result.node().kind() == "prim::TupleConstruct"
    values = result.node().inputs() if several else [result]
    return [value.debugName().replace(".", "_") for value in values]


def weights_used(traced: Traced) -> set[str]:
    """Return the last parts of the names of the parameters and buffers that the captured graph reads."""
    program: Any = traced.program
    if isinstance(program, ExportedProgram):
        signature = program.graph_signature
        named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        read = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
        return {path.rpartition(".")[2] for name, path in named.items() if name in read}
    nodes = program.inlined_graph.nodes()
    return {node.s("name") for node in nodes if node.kind() == "prim::GetAttr"}


def constants_of(traced: Traced) -> tuple[float, ...]:
    """Return the floating-point constants in the captured graph."""
    if isinstance(traced.program, ExportedProgram):
        numbers = [
            item for node in traced.program.graph.nodes for item in fx.node.map_arg(node.args, lambda n: n) or ()
        ]
        return tuple(float(item) for item in _flat(numbers) if isinstance(item, float))
    found = []
    for node in traced.program.inlined_graph.nodes():
        if node.kind() == "prim::Constant" and node.hasAttribute("value") and node.kindOf("value") == "f":
            found.append(float(node.f("value")))
    return tuple(found)


def _flat(values: Any) -> list[Any]:
    if isinstance(values, list | tuple):
        return [item for value in values for item in _flat(value)]
    return [values]
