"""``tlkit inspect``: what a model file is, without loading it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlkit.cli import options, output

if TYPE_CHECKING:
    from tlkit.formats.package import Package


Ops = Annotated[bool, typer.Option("--ops", help="List the program, operation by operation, in MIL's own words.")]
Weights = Annotated[bool, typer.Option("--weights", help="List the stored tensors: type, shape, bytes, file offset.")]


def inspect(
    model: options.Model,
    ops: Ops = False,
    weights: Weights = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Show what a model is: precision, inputs and outputs, weights, operations, where it came from.

    \b
    tlkit inspect net.mlpackage
    tlkit inspect net.mlpackage --weights
    tlkit inspect net.mlpackage --json | jq .inputs
    """
    sink = output.start(json=json, quiet=quiet, verbose=verbose)
    from pathlib import Path

    from tlkit.formats.coreml import describe_package, weight_table
    from tlkit.formats.package import open_package
    from tlkit.formats.sniff import expect_coreml

    expect_coreml(Path(model))
    package = open_package(Path(model))
    info, table = describe_package(package), weight_table(package)
    for note in info.notes:
        sink.warn(note)
    if json:
        from dataclasses import fields

        document: dict[str, Any] = {field.name: getattr(info, field.name) for field in fields(info)}
        sink.answer(document | {"tensors": table, "program": _operations(package)}, "")
    elif ops:
        sink.answer({}, lambda: _program_text(package))
    elif weights:
        from tlkit.cli._inspect_view import weights_view

        sink.answer({}, lambda: weights_view(table))
    else:
        from tlkit.cli._inspect_view import summary_view

        sink.answer({}, lambda: summary_view(info))


def _program_text(package: Package) -> str:
    """The MIL program as text; for older kinds, their layers."""
    if package.program is None:
        return "\n".join(
            f"{kind:<24} {name}: {', '.join(inputs)} -> {', '.join(outputs)}"
            for name, kind, inputs, outputs in package.layers()
        )
    from tlkit.mil.text import format_program

    return format_program(package.program)


def _operations(package: Package) -> list[dict[str, Any]]:
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
        for op in walk(function.block.operations)
        if op.type != "const"
    ]
