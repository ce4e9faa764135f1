"""``tlkit inspect``: what a model file is, without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlkit.cli.options import shared as options
from tlkit.cli.options.many import Cluster, Jobs
from tlkit.cli.sink import output
from tlkit.errors import UsageError
from tlkit.mil.collector import uncollected

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tlkit.core.inspect.inspection import Inspection
    from tlkit.formats.base.tensors import TensorEntry
    from tlkit.formats.coreml.package import Package

Patterns = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PATTERN]...", help="With --ops: only these operations, by name, type or module: 'conv*'."),
]
Ops = Annotated[
    bool, typer.Option("--ops", help="List the operations: inputs, outputs, weights, MACs, memory; those of PATTERN.")
]
Depth = Annotated[
    int | None,
    typer.Option("--depth", metavar="N", min=1, help="With --ops: a line per module, N levels deep."),
]
Mil = Annotated[bool, typer.Option("--mil", help="Print the program as MIL text.")]
Weights = Annotated[bool, typer.Option("--weights", help="List the stored tensors: type, shape, bytes, file offset.")]
Tensors = Annotated[
    str | None,
    typer.Option("--tensors", metavar="PATTERN", help="List (with --stats: read) tensors by name: '*.q_proj.*'."),
]
Stats = Annotated[
    bool, typer.Option("--stats", help="Read every value: range, mean, std, zeros, NaN, Inf, beyond f16's range.")
]
Hash = Annotated[
    bool, typer.Option("--hash", help="SHA-256 of each file, and one of the weights, whatever the layout.")
]
Tree = Annotated[bool, typer.Option("--tree", help="Show nested models, or tensors by their place in the model.")]
Diff = Annotated[
    str | None,
    typer.Option("--diff", metavar="OTHER", help="Compare with another file of any format; exit 1 if they differ."),
]
Risks = Annotated[
    bool, typer.Option("--risks", help="List known problems of the model on Apple's units, and ways around them.")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=VALUE",
        help="With --risks: look for those that values show on this input, or on a folder of them. Others are random.",
    ),
]
Placed = Annotated[
    bool,
    typer.Option(
        "--placement", help="Predict which unit Core ML would choose for each operation, why, and what to change."
    ),
]


Html = Annotated[
    str | None,
    typer.Option("--html", metavar="FILE", help="With --placement: draw the program, coloured by unit, as a page."),
]


def _list_rules(asked: bool) -> None:
    """Answer ``--rules``, which needs no model."""
    if not asked:
        return
    from tlkit.cli.views.placement import rules_view
    from tlkit.placement.facts import all_rules

    output.start(json=False, quiet=False, verbose=0).answer({"rules": list(all_rules().values())}, rules_view)
    raise typer.Exit


Rules = Annotated[
    bool,
    # Eager: answered before typer misses the MODEL.
    typer.Option(
        "--rules", is_eager=True, callback=_list_rules, help="List the rules of --placement: source and trust."
    ),
]
Format = Annotated[
    str | None,
    typer.Option("--format", metavar="NAME", help="Read as coreml, safetensors, gguf, pytorch, onnx or numpy."),
]

Measured = Annotated[
    bool,
    typer.Option("--measured", help="With --placement, on a Mac: Core ML's own plan beside it, differences first."),
]


Graph = Annotated[
    str | None,
    typer.Option(
        "--graph",
        metavar="FILE",
        help="Draw the operations: an .html page whose modules open, or an .svg (Graphviz).",
    ),
]


@uncollected()
def inspect(
    model: options.Model,
    patterns: Patterns = None,
    ops: Ops = False,
    depth: Depth = None,
    mil: Mil = False,
    weights: Weights = False,
    tensors: Tensors = None,
    stats: Stats = False,
    hashes: Hash = False,
    tree: Tree = False,
    risks: Risks = False,
    inputs: Inputs = None,
    seed: options.Seed = 0,
    placement: Placed = False,
    units: options.Units = None,
    chip: options.Chip = None,
    measured: Measured = False,
    per_op: options.PerOp = False,
    rules: Rules = False,
    html: Html = None,
    graph: Graph = None,
    force: options.Force = False,
    diff: Diff = None,
    format: Format = None,
    function: options.Function = None,
    stage: options.Stage = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    offline: options.Offline = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Show what a model file contains: Core ML, SafeTensors, GGUF, PyTorch, ONNX or numpy; or a folder of them.

    \b
    tlkit inspect net.mlpackage
    tlkit inspect net.mlpackage --ops 'linear*'
    tlkit inspect llama.gguf --tensors ffn_down
    tlkit inspect net.safetensors --stats
    tlkit inspect net.mlpackage --placement --units ane,all --chip m4
    tlkit inspect net.mlpackage --risks --input x=features.npy
    tlkit inspect net.mlpackage --graph net.html
    tlkit inspect net.mlpackage --json | jq .inputs
    tlkit inspect zoo/ --stats --jobs 4   each model in a folder
    """
    values = dict(locals())
    given = {name: value for name, value in values.items() if value != signature(inspect).parameters[name].default}
    sink = output.start(json=json, quiet=quiet, verbose=verbose)
    from pathlib import Path

    model, patterns = _model_first(model, list(patterns or ()), ops)
    path = Path(model)
    _refuse(given)
    if jobs or cluster or path.is_dir():
        from tlkit.cli.many.inspect import inspect_many, inspects_many

        if inspects_many(path, given):
            return inspect_many(sink, path, given)
    if path.is_dir() and _folder(sink, path):
        return
    from tlkit.core.inspect.inspect import inspect as look

    with sink.progress(f"reading {model}", 1.0) as bar:
        found = look(
            path,
            format=format,
            function=function,
            stage=stage,
            tensors=tensors,
            stats=stats,
            hashes=hashes,
            placement=placement,
            units=units.split(",") if units else ("ane",),
            chip=chip,
            measured=measured,
            diff=diff,
            inputs=inputs or (),
            seed=seed,
            report=bar.report,
        )
    from tlkit.formats.base.ledger import sentences

    for note in (*found.notes, *sentences(found.left_out)):
        sink.warn(note)
    if graph is not None:
        _graph(sink, Path(graph), found, force)
    if found.difference is not None:
        _diff(sink, found)
    elif found.placement is not None:
        _placement(sink, found, per_op)
        if html is not None:
            _page(Path(html), found, force)
    elif json:
        extra = {name: getattr(found, name) for name in ("stats", "hashes") if getattr(found, name) is not None}
        sink.answer(_document(found, tensors) | extra, "")
    else:
        listing = _Listing(ops, tuple(patterns), depth, mil)
        sink.answer({}, lambda: _shown(found, listing, weights, tensors, tree, risks))


@dataclass(frozen=True)
class _Listing:
    """What ``--ops`` and ``--mil`` ask for."""

    ops: bool
    patterns: tuple[str, ...]
    depth: int | None
    mil: bool


def _refuse(given: Mapping[str, Any]) -> None:
    """UsageError for options that need others, which are not ``given``."""
    if "html" in given and "placement" not in given:
        raise UsageError("--html goes with --placement", "add --placement")
    if "inputs" in given and "risks" not in given:
        raise UsageError("--input goes with --risks", "add --risks")
    if "graph" in given and given.keys() & {"weights", "tensors", "diff", "stats", "hashes"}:
        raise UsageError("--graph draws operations", "leave the options of tensors out")


def _model_first(model: str, patterns: list[str], ops: bool) -> tuple[str, list[str]]:
    """Return the model and the patterns, whichever came first on the command line."""
    from pathlib import Path

    if patterns and not ops:
        raise UsageError(f"one model at a time: {' '.join((model, *patterns))}", "patterns go with --ops")
    if patterns and not Path(model).exists():
        there = [word for word in patterns if Path(word).exists()]
        if len(there) == 1:
            return there[0], [model, *(word for word in patterns if word != there[0])]
    return model, patterns


def _placement(sink: output.Sink, found: Inspection, per_op: bool) -> None:
    from tlkit.core.inspect.placement import document, offered

    predictions = found.placement or ()
    asked = any(item.setting in ("ane", "all") for item in predictions)
    offer = offered(found.package, predictions[0].chip.name, found.function) if asked and found.package else None

    def show() -> Any:
        from tlkit.cli.views.placement import placement_view

        return placement_view(found.path, predictions, per_op, offer, found.measured or ())

    told: dict[str, Any] = {"model": found.path, "placement": [document(item) for item in predictions], "offer": offer}
    if found.measured is not None:
        told["measured"] = found.measured
    sink.answer(told, show)


def _graph(sink: output.Sink, goal: Path, found: Inspection, force: bool) -> None:
    """Write the picture of a model's operations; where their units are predicted, too, by unit."""
    from tlkit.cli.views.graph.page import graph_page, graph_svg
    from tlkit.core.inspect.graph import program_graph

    if goal.suffix not in (".html", ".svg"):
        raise UsageError(f"--graph {goal}: neither .html nor .svg", "name it net.html")
    if found.costs is None or not found.costs.per_op:
        raise UsageError(f"{found.path}: it has no operations to draw", "draw a Core ML program, a network or ONNX")
    units = {item.name: item.unit for item in found.placement[0].operations} if found.placement else {}
    drawn = program_graph(found.costs.per_op, units)
    make = graph_page if goal.suffix == ".html" else graph_svg
    _write(goal, make(found.path, drawn), found, force)
    sink.note(f"the graph of {len(drawn.operations):,} operations is in {goal}")


def _page(goal: Path, found: Inspection, force: bool) -> None:
    from tlkit.cli.views.placement_page import placement_page

    _write(goal, placement_page(found.path, found.placement or ()), found, force)


def _write(goal: Path, text: str, found: Inspection, force: bool) -> None:
    from tlkit.cli.sink.page import Page
    from tlkit.host.interrupt import last_output

    with last_output():
        Page(str(goal), force, (found.path,)).write(text)


def _diff(sink: output.Sink, first: Inspection) -> None:
    found = first.difference
    assert found is not None and found.other is not None
    second = found.other
    facts = [{"what": what, "first": a, "second": b} for what, a, b in found.facts]
    document = {"first": first.path, "second": second.path, "same": found.same}

    def show() -> Any:
        from tlkit.cli.views.tensors import diff_view

        return diff_view(first, second, found)

    sink.answer(document | {"facts": facts, "tensors": found.tensors}, show)
    if not found.same:
        raise typer.Exit(1)


def _shown(found: Inspection, listing: _Listing, weights: bool, tensors: str | None, tree: bool, risks: bool) -> Any:
    from tlkit.cli.views import inspect as view
    from tlkit.cli.views import tensors as tensor_view

    extra = {name: getattr(found, name) for name in ("stats", "hashes") if getattr(found, name) is not None}
    if risks:
        from tlkit.cli.views.risks import risks_view

        return risks_view(found, found.risks)
    if extra:
        return tensor_view.extra_view(extra)
    if listing.mil and found.package is not None:
        return _program_text(found.package, found.function)
    if (listing.ops or listing.depth) and (found.package is not None or found.costs is not None):
        return _operations(found, listing)
    if weights or tensors is not None:
        return view.weights_view(found.matching(tensors))
    if tree:
        return tensor_view.tree_view(found, found.groups)
    groups = found.groups if found.package is None else ()
    return view.summary_view(found, groups, found.risks, found.totals)


def _operations(found: Inspection, listing: _Listing) -> Any:
    """Return the table of operations or modules; of a model without a graph, its layers as text."""
    costs = found.costs
    if costs is None or not costs.per_op:
        assert found.package is not None
        return _program_text(found.package, found.function)
    from tlkit.cli.views.program.ops import modules_view, ops_view
    from tlkit.core.inspect.costs import by_module

    ops = costs.matching(listing.patterns)
    if not ops:
        near = ", ".join(name for pattern in listing.patterns for name in costs.nearest(pattern))
        hint = f"nearest: {near}; --ops by itself lists all" if near else "--ops by itself lists all of them"
        raise UsageError(f"{found.path}: no operation matches {' '.join(listing.patterns)}", hint)
    return ops_view(costs, ops) if listing.depth is None else modules_view(costs, by_module(ops, listing.depth))


def _document(found: Inspection, pattern: str | None) -> dict[str, Any]:
    """All that is known without reading values, as data."""
    from dataclasses import fields

    return {field.name: getattr(found, field.name) for field in fields(found)} | {
        "tensors": [_row(entry) for entry in found.matching(pattern)],
        "groups": found.groups,
        "program": found.program,
        "costs": found.costs,
        "file_metadata": found.file_metadata,
        "good_for": found.good_for,
        "convert": found.conversion,
        "risks": found.risks,
    }


def _row(entry: TensorEntry) -> dict[str, Any]:
    row = {"name": entry.name, "dtype": entry.dtype, "shape": entry.shape, "bytes": entry.nbytes, "file": entry.file}
    row |= {"offset": entry.offset}
    return row | ({"strides": entry.strides} if entry.strides else {})


def _folder(sink: output.Sink, path: Path) -> bool:
    """Answer with one row per model if ``path`` is a folder that is not itself a model."""
    from tlkit.core.inspect.folder import is_collection, list_models

    if not is_collection(path):
        return False
    rows = list(list_models(path))
    if not rows:
        return False
    from tlkit.cli.views.tensors import folder_view

    sink.answer({"models": rows}, lambda: folder_view(path, rows))
    return True


def _program_text(package: Package, function: str | None) -> str:
    """The MIL program as text; for older kinds, their layers."""
    if package.program is None:
        return "\n".join(
            f"{kind:<24} {name}: {', '.join(inputs)} -> {', '.join(outputs)}"
            for name, kind, inputs, outputs in package.layers()
        )
    from tlkit.mil.text.api import format_program

    if function is None:
        return format_program(package.program)
    from dataclasses import replace

    return format_program(replace(package.program, functions={function: package.program.function(function)}))
