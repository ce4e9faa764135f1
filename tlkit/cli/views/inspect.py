"""The summary of a model for people."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tlkit.cli.sink.card import card
from tlkit.cli.sink.named_table import NamedTable
from tlkit.cli.views import tensors as _tensor_view
from tlkit.cli.views.risks import summary_of_risks
from tlkit.core.inspect.which import which_format
from tlkit.mil.opsets import VERSIONS
from tlkit.ports.shapes import shape_text, shapes_text
from tlkit.types import ModelInfo, TensorSpec
from tlkit.words import byte_text, count_text, macs_text

if TYPE_CHECKING:
    from tlkit.core.inspect.totals import Totals
    from tlkit.formats.base.tensors import TensorEntry
    from tlkit.formats.groups import Group as TensorGroup
    from tlkit.mil.risks.kit import Risk

_FIGURES = {"max_abs": "max abs", "cosine": "cosine", "snr_db": "SNR dB"}
_LABEL = 20  # columns of a fact's name; what people call their own facts can be longer
_SHOWN = 12  # kinds of operation, class labels: what fits a line or two
_LONG = 400  # characters of a description or a user's entry; --json has all of it


def summary_view(
    info: ModelInfo, groups: Sequence[TensorGroup] = (), risks: Sequence[Risk] = (), totals: Totals | None = None
) -> RenderableType:
    """Return the summary: facts, costs, ports, operations, tensors by group, known problems, uses."""
    parts: list[RenderableType] = [_facts(info, totals)]
    ports = [("input", spec) for spec in info.inputs]
    ports += [("state", spec) for spec in info.states]
    ports += [("output", spec) for spec in info.outputs]
    if ports:
        parts.append(_ports(ports))  # it begins with an empty line
    elif info.operations or groups:
        parts.append(Text())
    if info.operations:
        parts.append(_operations(info.operations))
    if info.details.get("model"):
        parts += [Text(), _tensor_view.model_tree(info.details["model"])]
    if groups:
        parts.append(_tensor_view.groups_view(groups))
    if risks:
        parts += [Text(), summary_of_risks(risks)]
    return Group(*parts, Text(), _tensor_view.which_line(*which_format(info)))


def weights_view(table: Iterable[TensorEntry]) -> RenderableType:
    """Return the stored tensors, one row each, in the model's order; their files where there are several."""
    entries = list(table)
    files = {entry.file for entry in entries if entry.file}
    several = len(files) > 1 or any(file.startswith("@") for file in files)  # "@model_path/": a package's weight file
    above = len(os.path.commonpath(files)) if len(files) > 1 else 0
    view = NamedTable()
    for heading in ("tensor", "stored", "shape"):
        view.add_column(heading, no_wrap=heading != "tensor", overflow="fold")
    for heading in ("bytes", "offset"):
        view.add_column(heading, justify="right", no_wrap=True)
    if several:
        view.add_column("file", no_wrap=True, style="dim")
    for entry in entries:
        offset = "" if entry.offset is None else str(entry.offset)
        place = (entry.file[above:].removeprefix("/"),) if several else ()
        view.add_row(entry.name, entry.dtype, shape_text(entry.shape), f"{entry.nbytes:,}", offset, *place)
    return view


def _facts(info: ModelInfo, totals: Totals | None) -> RenderableType:
    rows: list[tuple[str, str | Text]] = [("model", Text(info.path, "bold"))]
    rows += [("format", _format(info)), ("precision", _precision(info)), ("parameters", _parameters(info))]
    rows += _costs(totals)
    rows += [("on disk", _sizes(info.sizes)), ("classes", _some(info.labels))]
    rows += [*_tensor_view.detail_rows(info), *_said(info), *_origin(info)]
    return card(((label, _cut(value)) for label, value in rows if value), _LABEL)


def _costs(totals: Totals | None) -> Iterator[tuple[str, str | Text]]:
    least = "at least " if totals and totals.least else ""
    if totals and totals.macs:
        yield "compute", f"{least}{macs_text(totals.macs)} ({macs_text(2 * totals.macs, 'FLOPs')}) per inference"
    if totals and totals.peak_bytes:
        yield "activations", f"{least}{byte_text(totals.peak_bytes)} at their peak"


def _cut(value: str | Text) -> str | Text:
    return f"{value[:_LONG]}…" if isinstance(value, str) and len(value) > _LONG else value


def _format(info: ModelInfo) -> str:
    release = VERSIONS.get(info.spec_version or 0)
    version = f"specification {info.spec_version}" if info.spec_version else ""
    version += f" ({release.system} and later)" if release else ""
    opset = f"{info.opset} opset" if info.opset else ""
    stages = " > ".join(stage["kind"] for stage in info.details.get("stages", ()))
    updatable = "updatable" if info.details.get("updatable") else ""
    functions = f"functions: {', '.join(info.functions)}" if len(info.functions) > 1 else ""
    parts = (
        info.metadata.format,
        f"{info.kind}{': ' + stages if stages else ''}",
        version,
        opset,
        updatable,
        functions,
    )
    return " · ".join(part for part in parts if part)


def _precision(info: ModelInfo) -> str | Text:
    text = Text()
    if info.weights:
        text.append(info.metadata.quantization, "bold green")
        text.append(f" weights{_mixture(info.weights)}")
    if info.compute:
        text.append(", " if text else "")
        text.append(next(iter(info.compute)), "bold green")
        text.append(f" compute{_mixture(info.compute)}")
    return text


def _mixture(shares: Mapping[str, int]) -> str:
    """The shares by type, where there are several: `` (F16 98.5 %, F32 1.5 %)``."""
    total = sum(shares.values())
    if len(shares) < 2 or not total:
        return ""
    return f" ({', '.join(f'{name} {_percent(count / total)}' for name, count in shares.items())})"


def _percent(share: float) -> str:
    return "<0.1 %" if 0 < share < 0.001 else ">99.9 %" if 0.999 < share < 1 else f"{100 * share:.1f} %"


def _parameters(info: ModelInfo) -> str:
    if not info.parameters:
        return ""
    return f"{info.parameters:,}" + (f" ({count_text(info.parameters)})" if info.parameters >= 10_000 else "")


def _sizes(sizes: Mapping[str, int]) -> str:
    parts = ", ".join(f"{name} {byte_text(size)}" for name, size in sizes.items() if size)
    return f"{byte_text(sum(sizes.values()))} ({parts})" if len(sizes) > 1 else byte_text(sum(sizes.values()))


def _some(items: Sequence[str]) -> str:
    more = f", … ({len(items)} in all)" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _said(info: ModelInfo) -> list[tuple[str, str | Text]]:
    data = info.metadata
    rows: list[tuple[str, str | Text]] = [("about", data.description), ("version", data.version)]
    rows += [("author", data.author), ("license", data.license)]
    known = ("com.github.apple.coremltools.", "format")  # shown elsewhere; "format" is SafeTensors' word for its writer
    rows += [
        (key, _verified(value) if key == "tlkit.verified" else value)
        for key, value in data.user.items()
        if not key.startswith(known)
    ]
    return rows


def _verified(told: str) -> str:
    """Return what a package says of its verification, in words; as it is where it says it in another way."""
    try:
        found = json.loads(told)
        said = "agrees with its source" if found["passed"] else "differs from its source"
        count = found["inputs"]
        parts = [f"{said} on {'an input' if count == 1 else f'{count} inputs'}"]
        for name, figures in found["outputs"].items():
            shown = (f"{label} {figures[key]:.6g}" for key, label in _FIGURES.items() if figures.get(key) is not None)
            parts.append(f"{name}: {', '.join(shown)}")
        return "; ".join(parts)
    except (ValueError, LookupError, TypeError, AttributeError):  # another version's words
        return told


def _origin(info: ModelInfo) -> list[tuple[str, str | Text]]:
    known = dict(info.details.get("provenance", {}))
    version, source = known.pop("version", ""), known.pop("source", "")
    tool = f"coremltools {version}" if version else ""
    parts = [tool, source and f"from {source}", *(f"{key.replace('_', ' ')} {value}" for key, value in known.items())]
    return [("made by", ", ".join(part for part in parts if part))]


def _ports(ports: Sequence[tuple[str, TensorSpec]]) -> Table:
    described = any(spec.description for _, spec in ports)
    view = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for heading in ("", "name", "type", "shape"):
        view.add_column(heading, no_wrap=not (described and heading in ("type", "shape")))
    if described:
        view.add_column("", style="dim", overflow="fold")
    for role, spec in ports:
        cells: list[RenderableType] = [Text(role, "dim"), Text(spec.name, "bold"), _type(spec), shapes_text(spec)]
        view.add_row(*cells, *([spec.description] if described else []))
    return view


def _type(spec: TensorSpec) -> str:
    name = f"{spec.image.layout} image" if spec.image else spec.dtype or "any type"
    if spec.kind in ("dictionary", "sequence"):
        name = f"{spec.kind} {spec.dtype}"
    if spec.optional:
        name += ", optional" if spec.default is None else f", {spec.default:g} if not given"
    return name


def _operations(counts: Mapping[str, int]) -> RenderableType:
    shown = list(counts.items())[:_SHOWN]
    total = sum(counts.values())
    text = Text(f"{total:,} operation{'' if total == 1 else 's'}: ", "dim")
    text.append(", ".join(f"{name} {count}" for name, count in shown), "not dim")
    left = len(counts) - len(shown)
    if left:
        text.append(f", … {left} more kinds ({total - sum(count for _, count in shown)})")
    return text
