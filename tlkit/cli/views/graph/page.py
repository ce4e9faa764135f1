"""A program's graph as one HTML page that needs no network: modules open and close, operations are found by name.

Drawn in the reader's browser: laid out by dagre (``data/dagre.min.js``, MIT), the rest by ``data/graph.js`` of tlkit's
own. For an ``.svg`` Graphviz's ``dot`` lays it out, where that is installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from typing import Any

from tlkit import __version__
from tlkit.cli.sink.stream import clean
from tlkit.cli.sink.template import chart, render
from tlkit.core.inspect.costs import Cost, Port
from tlkit.core.inspect.graph import ProgramGraph
from tlkit.errors import ExecutionError, UnavailableError, UsageError

DRAWN = 1500
"""Operations that a picture may have; a page has no such limit, since modules are closed there."""
_SECONDS = 120
_COLOURS = {"ane": "#3b8a4a", "gpu": "#2b7f92", "cpu": "#a86a10"}


def graph_page(model: str, graph: ProgramGraph) -> str:
    """Return the page."""
    data = json.dumps(_data(graph), separators=(",", ":")).replace("<", "\\u003c")
    notes = f"{len(graph.operations):,} operations"
    if graph.left_out:
        notes += f"; the last {graph.left_out:,} are not in it: inspect --ops has them"
    if graph.units:
        notes += "; units are predicted, not measured"
    return render(
        "graph.html",
        model=model,
        notes=f"{notes}. tlkit {__version__}",
        data=chart(data),
        dagre=chart(_read("dagre.min.js")),
        script=chart(_read("graph.js")),
    )


def graph_svg(model: str, graph: ProgramGraph) -> str:
    """Return the picture; UnavailableError without Graphviz, UsageError for more operations than fit one."""
    if len(graph.operations) + graph.left_out > DRAWN:
        said = f"{model}: {len(graph.operations) + graph.left_out:,} operations do not fit a picture"
        raise UsageError(said, "write a page, in which modules are closed: --graph net.html")
    if (dot := shutil.which("dot")) is None:
        said = "an .svg is laid out by Graphviz's dot, which is not here"
        raise UnavailableError(said, "install graphviz, or name an .html")
    try:
        done = subprocess.run([dot, "-Tsvg"], input=graph_dot(graph), capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise ExecutionError(f"{model}: dot needs over {_SECONDS} s for its graph", "name an .html") from None
    if done.returncode:
        raise ExecutionError(f"{model}: dot ended with {done.returncode}: {done.stderr[:200]}", "name an .html")
    return done.stdout


def graph_dot(graph: ProgramGraph) -> str:
    """Return the graph in Graphviz's language: a cluster for each module."""
    lines = [
        "digraph {",
        'node [shape=box style="rounded,filled" fillcolor="#eef2f6" fontname="sans-serif" fontsize=11]',
    ]
    lines.append('edge [fontname="sans-serif" fontsize=9 color="#7a828a"]')
    inside: dict[int, list[int]] = {}
    for index, place in enumerate(graph.group):
        inside.setdefault(place, []).append(index)

    def write(place: int, depth: int) -> None:
        pad = "  " * depth
        for index in inside.get(place, ()):
            op = graph.operations[index]
            unit = _COLOURS.get(graph.units.get(op.name, ""), "#7a828a")
            lines.append(f"{pad}n{index} [label={_quoted(op.type, op.name)} color={_quoted(unit)}]")
        for child, item in enumerate(graph.groups):
            if item.parent == place:
                lines.append(f"{pad}subgraph cluster_{child} {{ label={_quoted(item.name)} fontname=sans color=gray")
                write(child, depth + 1)
                lines.append(f"{pad}}}")

    write(-1, 1)
    lines += [f"  n{start} -> n{end} [label={_quoted(_value(port))}]" for start, end, port in graph.edges]
    return "\n".join([*lines, "}"])


def _data(graph: ProgramGraph) -> dict[str, Any]:
    return {
        "operations": [_operation(op, graph) for op in graph.operations],
        "group": graph.group,
        "groups": [[clean(item.name), item.parent, item.operations] for item in graph.groups],
        "edges": [[start, end, _value(port)] for start, end, port in graph.edges],
    }


def _operation(op: Cost, graph: ProgramGraph) -> list[Any]:
    read, made = (
        ", ".join(f"{clean(port.name)} {_value(port)}" for port in ports) for ports in (op.inputs, op.outputs)
    )
    unit = graph.units.get(op.name, "")
    return [clean(op.name), op.type, clean(op.module), read, made, op.weights, op.macs, op.alive_bytes, unit]


def _value(port: Port) -> str:
    return f"{port.dtype} {port.dims}"


def _quoted(*rows: str) -> str:
    """Write lines of text as one string of Graphviz's language."""
    escaped = (clean(row).replace("\\", "\\\\").replace('"', '\\"') for row in rows)
    return '"' + "\\n".join(escaped) + '"'


def _read(name: str) -> str:
    return (files(__package__) / "data" / name).read_text(encoding="utf-8")
