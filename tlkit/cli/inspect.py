"""``tlkit inspect``: what a model file is, without loading it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlkit.cli.options import shared as options
from tlkit.cli.sink import output
from tlkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tlkit.core.inspect.inspection import Inspection
    from tlkit.formats.base.tensors import TensorEntry
    from tlkit.formats.coreml.package import Package
    from tlkit.mil.risks.kit import Risk
    from tlkit.types import Unit

Ops = Annotated[bool, typer.Option("--ops", help="List the program, operation by operation, in MIL's own words.")]
Weights = Annotated[bool, typer.Option("--weights", help="List the stored tensors: type, shape, bytes, file offset.")]
Tensors = Annotated[
    str | None,
    typer.Option("--tensors", metavar="PATTERN", help="List (or with --stats read) tensors by name: '*.q_proj.*'."),
]
Stats = Annotated[
    bool, typer.Option("--stats", help="Read every value: range, mean, std, zeros, NaN, Inf, beyond f16's range.")
]
Hash = Annotated[bool, typer.Option("--hash", help="SHA-256 of each file, and one of the weights in any layout.")]
Tree = Annotated[bool, typer.Option("--tree", help="Models in models, or tensors by their place in the model.")]
Diff = Annotated[
    str | None, typer.Option("--diff", metavar="OTHER", help="Compare with another file of any format; exit 1.")
]
Risks = Annotated[
    bool, typer.Option("--risks", help="List what is known to go wrong with it on Apple's units, and a way out.")
]
Placed = Annotated[
    bool,
    typer.Option(
        "--placement", help="Predict which unit Core ML would choose for each operation, why, and what to change."
    ),
]
Chip = Annotated[
    str | None, typer.Option("--chip", metavar="CHIP", help="The chip to predict for: m1 ... m5max, a14 ... [m4]")
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
    typer.Option(
        "--rules", is_eager=True, callback=_list_rules, help="List the rules of --placement: source and trust."
    ),
]
Format = Annotated[
    str | None,
    typer.Option("--format", metavar="NAME", help="Read as coreml, safetensors, gguf, pytorch, onnx or numpy."),
]


def inspect(
    model: options.Model,
    ops: Ops = False,
    weights: Weights = False,
    tensors: Tensors = None,
    stats: Stats = False,
    hashes: Hash = False,
    tree: Tree = False,
    risks: Risks = False,
    placement: Placed = False,
    units: options.Units = None,
    chip: Chip = None,
    per_op: options.PerOp = False,
    rules: Rules = False,
    diff: Diff = None,
    format: Format = None,
    function: options.Function = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Show what a model file is: any of Core ML, SafeTensors, GGUF, PyTorch, ONNX, numpy; or a folder of them.

    \b
    tlkit inspect net.mlpackage
    tlkit inspect llama.gguf --tensors ffn_down
    tlkit inspect net.safetensors --stats
    tlkit inspect net.mlpackage --placement --units ane,all --chip m4
    tlkit inspect net.mlpackage --json | jq .inputs
    """
    sink = output.start(json=json, quiet=quiet, verbose=verbose)
    from pathlib import Path

    path = Path(model)
    if path.is_dir() and _folder(sink, path):
        return
    from tlkit.core.inspect.inspection import examine

    found = examine(path, format, function)
    for note in found.info.notes:
        sink.warn(note)
    known = _risks(found, function)
    if diff is not None:
        _diff(sink, found, Path(diff))
        return
    extra: dict[str, Any] = {}
    if placement:
        _placement(sink, found, _units(units), chip, function, per_op)
        return
    if stats:
        extra["stats"] = _stats(sink, found, tensors)
    if hashes:
        extra["hashes"] = _hashes(sink, found)
    if json:
        sink.answer(_document(found, tensors, function) | {"risks": known} | extra, "")
    elif risks:
        from tlkit.cli.views.risks import risks_view

        sink.answer({}, lambda: risks_view(found.info, known))
    else:
        sink.answer({}, lambda: _shown(found, ops, weights, tensors, tree, extra, function, known))


def _units(text: str | None) -> tuple[Unit, ...]:
    from tlkit.types import Unit

    return tuple(Unit.parse(name) for name in text.split(",")) if text else (Unit.ANE,)


def _placement(
    sink: output.Sink,
    found: Inspection,
    units: tuple[Unit, ...],
    chip: str | None,
    function: str | None,
    per_op: bool,
) -> None:
    from tlkit.core.inspect.placement import document, placements

    if found.package is None:
        raise UsageError(f"{found.path}: --placement is for Core ML models", "convert it first: tlkit convert")
    predictions = placements(found.package, units, chip, function)

    def show() -> Any:
        from tlkit.cli.views.placement import placement_view

        return placement_view(found.info, predictions, per_op)

    sink.answer({"model": found.info.path, "placement": [document(item) for item in predictions]}, show)


def _risks(found: Inspection, function: str | None) -> tuple[Risk, ...]:
    if found.package is None:
        return ()
    from tlkit.core.inspect.risks import package_risks

    return package_risks(found.package, function)


def _shown(
    found: Inspection,
    ops: bool,
    weights: bool,
    tensors: str | None,
    tree: bool,
    extra: dict[str, Any],
    function: str | None,
    risks: Sequence[Risk],
) -> Any:
    from tlkit.cli.views import inspect as view
    from tlkit.cli.views import tensors as _tensor_view

    if extra:
        return _tensor_view.extra_view(extra)
    if ops and found.package is not None:
        return _program_text(found.package, function)
    if weights or tensors is not None:
        return view.weights_view(found.matching(tensors))
    if tree:
        return _tensor_view.tree_view(found.info, found.groups)
    return view.summary_view(found.info, found.groups if found.package is None else (), risks)


def _document(found: Inspection, pattern: str | None, function: str | None) -> dict[str, Any]:
    """All that is known without reading values, as data."""
    from dataclasses import fields

    from tlkit.core.inspect.inspection import file_metadata
    from tlkit.core.inspect.which import which_format

    info = found.info
    document: dict[str, Any] = {field.name: getattr(info, field.name) for field in fields(info)}
    purpose, command = which_format(info)
    return document | {
        "tensors": [_row(entry) for entry in found.matching(pattern)],
        "groups": found.groups,
        "program": _operations(found.package, function) if found.package else [],
        "file_metadata": file_metadata(found.opened),
        "good_for": purpose,
        "convert": command,
    }


def _row(entry: TensorEntry) -> dict[str, Any]:
    row = {"name": entry.name, "dtype": entry.dtype, "shape": entry.shape, "bytes": entry.nbytes, "file": entry.file}
    row |= {"offset": entry.offset}
    return row | ({"strides": entry.strides} if entry.strides else {})


def _folder(sink: output.Sink, path: Path) -> bool:
    """Answer with a row a model if ``path`` is a folder that is itself no model."""
    from tlkit.core.inspect.folder import is_collection, list_models

    if not is_collection(path):
        return False
    rows = list(list_models(path))
    if not rows:
        return False
    from tlkit.cli.views.tensors import folder_view

    sink.answer({"models": rows}, lambda: folder_view(path, rows))
    return True


def _stats(sink: output.Sink, found: Inspection, pattern: str | None) -> Sequence[Any]:
    from tlkit.core.inspect.stats import tensor_stats

    entries = found.readable(pattern)
    with sink.progress("reading values", float(sum(entry.nbytes for entry in entries))) as bar:
        return [tensor_stats(found.source, entry, bar.advance) for entry in entries]


def _hashes(sink: output.Sink, found: Inspection) -> dict[str, Any]:
    from tlkit.formats.hashes import file_hashes, files_of, weights_hash

    files = sorted({*files_of(found.path), *(getattr(found.opened, "shards", None) or ())})
    total = sum(file.stat().st_size for file in files) + sum(entry.nbytes for entry in found.tensors)
    with sink.progress("hashing", float(total)) as bar:
        shown = {"files": file_hashes(files, bar.advance)}
        return shown | ({"weights": weights_hash(found.source, bar.advance)} if found.tensors else {})


def _diff(sink: output.Sink, first: Inspection, other: Path) -> None:
    from tlkit.core.compare.tensors import FileDifference, diff_infos, diff_tensors
    from tlkit.core.inspect.inspection import examine

    second = examine(other)
    with sink.progress("comparing", float(sum(entry.nbytes for entry in first.tensors))) as bar:
        tensors = tuple(diff_tensors(first.source, second.source, bar.advance))
    found = FileDifference(diff_infos(first.info, second.info), tensors)
    from tlkit.cli.views.tensors import diff_view

    facts = [{"what": what, "first": a, "second": b} for what, a, b in found.facts]
    document = {"first": first.info.path, "second": second.info.path, "same": found.same}
    sink.answer(
        document | {"facts": facts, "tensors": found.tensors}, lambda: diff_view(first.info, second.info, found)
    )
    if not found.same:
        raise typer.Exit(1)


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


def _operations(package: Package, wanted: str | None) -> list[dict[str, Any]]:
    """The program as data: each operation's name, type, inputs (by name) and outputs, constants left out."""
    if package.program is None:
        keys = ("name", "type", "inputs", "outputs")
        return [dict(zip(keys, layer, strict=True)) for layer in package.layers()]
    from tlkit.mil.program import Ref, walk

    return [
        {
            "function": name,
            "name": op.name,
            "type": op.type,
            "inputs": {
                key: [arg.name if isinstance(arg, Ref) else None for arg in args] for key, args in op.inputs.items()
            },
            "outputs": [out.name for out in op.outputs],
        }
        for name, function in package.program.functions.items()
        if wanted in (None, name)
        for op in walk(function.block.operations)
        if op.type != "const"
    ]
