"""``tlkit convert`` to a file of weights: its options and its report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlkit.words import byte_text, count_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.cli.sink.output import Sink
    from tlkit.core.weights.weights import WeightsResult

Dtype = Annotated[
    str | None, typer.Option("--dtype", metavar="f32|f16|bf16", help="Weights: the type of all real numbers.")
]
Quantize = Annotated[
    str | None,
    typer.Option(
        "--quantize",
        metavar="TYPE",
        help="A package: int8, int4:per-block=32. GGUF: q8_0, q4_k_m, iq3_s ... (q4_0:pure: all in one type).",
    ),
]
Imatrix = Annotated[
    str | None,
    typer.Option(
        "--imatrix", metavar="FILE", help="GGUF: fit blocks by this importance matrix of llama.cpp (GGUF or .dat)."
    ),
]
ShardSize = Annotated[
    str | None, typer.Option("--max-shard-size", metavar="SIZE", help="Weights: split the output (5GB, 500MB).")
]
Edits = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata", metavar="KEY=VALUE", help="Weights: set a metadata entry, or remove it (KEY=). Repeat it."
    ),
]
Names = Annotated[
    str,
    typer.Option(
        "--names",
        metavar="auto|keep",
        help="Weights: map Hugging Face's names to GGUF's and back, or keep names as they are.",
    ),
]
Raw = Annotated[bool, typer.Option("--raw", help="Core ML: write compressed weights as their parts, not expanded.")]

All = Annotated[
    bool, typer.Option("--all", help="Weights: include what only training needs, such as an optimizer's state.")
]
AllowMissing = Annotated[
    bool,
    typer.Option("--allow-missing", help="Weights: convert even if some tensors cannot be converted; they are named."),
]
StripPrefix = Annotated[
    str | None,
    typer.Option(
        "--strip-prefix", metavar="PREFIX", help="Cut PREFIX from the tensors' names (of --checkpoint, or of weights)."
    ),
]


def answer(sink: Sink, result: WeightsResult) -> None:
    """Report what was made."""
    for note in result.notes:
        sink.warn(note)
    sink.answer(_document(result), lambda: _show(result))


def _document(result: WeightsResult) -> dict[str, Any]:
    found = {field.name: getattr(result, field.name) for field in fields(result)}
    found["changed"] = [{"from": old, "to": new, "tensors": count} for (old, new), count in result.changed.items()]
    return found


def _show(result: WeightsResult) -> RenderableType:
    from tlkit.cli.sink.card import card

    return card(_rows(result))


_LOST = {
    "overflow": "finite and now infinite",
    "underflow": "not zero and now zero",
    "not_finite": "NaN or infinite, whose blocks are now meaningless",
    "out_of_range": "beyond the range of their new type",
}


def _rows(result: WeightsResult) -> Iterator[tuple[str, str, str]]:
    yield "weights", str(result.path), "bold"
    yield "source", result.source, ""
    types = ", ".join(f"{count} {name}" for name, count in result.types.items())
    yield "made", f"{result.format}: {result.tensors} tensors ({types}), {count_text(result.parameters)} parameters", ""
    files = f" in {len(result.files)} files" if len(result.files) > 1 else ""
    yield "size", f"{byte_text(result.size)}{files}", ""
    if result.changed:
        pairs = (f"{count} from {old} to {new}" for (old, new), count in result.changed.items())
        yield "types", ", ".join(pairs), ""
    if result.renamed:
        yield "names", f"{result.renamed} mapped", ""
    for key, count in result.lost.items():
        yield "lost", f"{count:,} value{'' if count == 1 else 's'} {_LOST[key]}", "yellow"
    yield "time", f"{result.seconds:.1f} s", ""
