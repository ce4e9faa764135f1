"""Files of weights for people: each format's key facts, groups, statistics, differences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tlkit.cli.sink.card import grid
from tlkit.cli.sink.console import Unfolded
from tlkit.cli.sink.named_table import NamedTable
from tlkit.ports.shapes import shape_text
from tlkit.types import ModelInfo
from tlkit.words import byte_text, count_text

if TYPE_CHECKING:
    from pathlib import Path

    from tlkit.core.compare.tensors import FileDifference, TensorDifference
    from tlkit.core.inspect.folder import Listed
    from tlkit.core.inspect.stats import TensorStats
    from tlkit.formats.groups import Group as TensorGroup

_GROUPS = 48  # rows of the summary; --weights has every tensor
_NAME = 72  # characters of a group's name; --weights and --json have all of it
_FACTS = 8  # items of a fact that is a list
_ONE = {"leaves": "leaf", "classes": "class", "categories": "category", "indices": "index", "entries": "entry"}


def detail_rows(info: ModelInfo) -> list[tuple[str, str]]:
    """Return the rows that a format's own ``details`` add to the summary."""
    details = info.details
    rows: list[tuple[str, str]] = []
    if info.metadata.format == "GGUF":
        rows += _gguf_rows(details)
    if info.metadata.format == "SafeTensors":
        config = details.get("config", {})
        known = ", ".join(f"{key} {value}" for key, value in config.items())
        rows += [("architecture", str(details.get("architecture", ""))), ("config", known)]
        rows += [("quantized", str(details.get("quantized", "")))]
    if info.metadata.format == "PyTorch":
        rows += _pytorch_rows(details)
    if info.metadata.format == "ONNX":
        opsets = ", ".join(f"{name} {version}" for name, version in details.get("opsets", {}).items())
        rows += [("made by", str(details.get("producer", ""))), ("opsets", opsets)]
    return rows


def _gguf_rows(details: Mapping[str, Any]) -> list[tuple[str, str]]:
    shape = [
        ("layers", "layers"),
        ("embedding_length", "wide"),
        ("heads", "heads"),
        ("kv_heads", "kv heads"),
        ("experts", "experts"),
        ("experts_used", "used"),
    ]
    built = ", ".join(f"{details[key]} {word}" for key, word in shape if key in details)
    context = details.get("context_length")
    tokenizer = dict(details.get("tokenizer", {}))
    template = tokenizer.get("chat_template", "")
    words = [str(tokenizer[key]) for key in ("model", "pre") if key in tokenizer]
    words += [f"{tokenizer[key]:,} {key}" for key in ("tokens", "merges") if key in tokenizer]
    words += [", ".join(f"{name} {number}" for name, number in tokenizer.get("special_ids", {}).items())]
    mix = [
        f"{name} {byte_text(row['bytes'])} in {row['tensors']} tensors" for name, row in details.get("mix", {}).items()
    ]
    return [
        ("network", built),
        ("context", f"{context:,} tokens" if isinstance(context, int) else ""),
        ("stored as", ", ".join(mix)),
        ("by role", _roles(details.get("roles", {}))),
        ("tokenizer", ", ".join(word for word in words if word)),
        ("chat template", f"{len(template):,} characters: {' '.join(template.split())[:160]}" if template else ""),
        ("memory", _memory(details.get("memory", {}))),
    ]


def _roles(roles: Mapping[str, Mapping[str, int]]) -> str:
    """Return the roles by stored type; roles with the same mix together."""
    together: dict[str, list[str]] = {}
    for role, counts in roles.items():
        stored = " + ".join(f"{name}{f' x {count}' if len(counts) > 1 else ''}" for name, count in counts.items())
        together.setdefault(stored, []).append(role)
    return "; ".join(f"{stored}: {', '.join(names)}" for stored, names in together.items())


def _memory(memory: Mapping[str, int]) -> str:
    """Memory by context length, in units of 1024 tokens."""
    lengths = {int(length): size for length, size in memory.items()}
    shown = [f"{byte_text(size)} at {f'{n // 1024}k' if n >= 1024 else n}" for n, size in lengths.items()]
    return f"{', '.join(shown)} tokens (weights and an f16 cache, estimated)" if shown else ""


def _pytorch_rows(details: Mapping[str, Any]) -> list[tuple[str, str]]:
    foreign = details.get("unexpected_imports", [])
    imports = details.get("imports", [])
    known = "nothing beyond torch's own tensors" if imports and not foreign else ""
    holds = ", ".join(f"{key}: {value}" for key, value in details.get("holds", {}).items())
    shared = "; ".join(" = ".join(names) for names in details.get("shared", [])[:_FACTS])
    return [
        ("class", str(details.get("class", ""))),
        ("forward", str(details.get("forward", ""))),
        ("layout", str(details.get("layout", ""))),
        ("made by", f"torch {details['torch']}" if "torch" in details else ""),
        ("holds", holds),
        ("shared", shared),
        ("imports", f"loading it would import, and can run, {_some(foreign)}" if foreign else known),
    ]


def _some(items: Sequence[Any], shown: int = _FACTS) -> str:
    more = f", … ({len(items)} in all)" if len(items) > shown else ""
    return ", ".join(map(str, items[:shown])) + more


def groups_view(groups: Sequence[TensorGroup]) -> RenderableType:
    """Return the tensors, those of a repeated block in one row."""
    view = _table("tensors", "stored", "shape", right=("count", "parameters", "bytes"))
    for group in groups[:_GROUPS]:
        figures = (f"{group.count}", f"{group.parameters:,}", byte_text(group.bytes))
        view.add_row(_short(group.name), group.dtype, shape_text(group.shape), *figures)
    if len(groups) <= _GROUPS:
        return view
    return Group(
        view, Text(f"… {len(groups) - _GROUPS} more groups: --weights lists every tensor, --tensors some", "dim")
    )


def _short(name: str) -> str:
    """Shorten a name: TensorFlow's converters join the names of all layers that a constant went through."""
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[-_NAME // 2 :]}"


def _table(*left: str, right: Sequence[str] = ()) -> Table:
    view = NamedTable()
    for heading in left:  # the first is a name
        view.add_column(heading, no_wrap=heading != left[0], overflow="fold")
    for heading in right:
        view.add_column(heading, justify="right", no_wrap=True)
    return view


def which_line(purpose: str, command: str) -> RenderableType:
    """Return the end: what the file can be used for and, on its own line, the command that converts it."""
    line = Text("good for  ", "dim")
    line.append(purpose.removeprefix("for "), "not dim")
    return Group(line, Unfolded(Text(f"  {command}", "bold"))) if command else line


def extra_view(extra: Mapping[str, Any]) -> RenderableType:
    """Return statistics and fingerprints, whichever were asked for."""
    parts: list[RenderableType] = []
    if "stats" in extra:
        parts.append(_stats_view(extra["stats"]))
    if "hashes" in extra:
        hashes = grid()
        for path, digest in extra["hashes"]["files"].items():
            hashes.add_row(digest, path)
        if "weights" in extra["hashes"]:
            hashes.add_row(extra["hashes"]["weights"], Text("the weights, whatever their order and files", "dim"))
        parts.append(hashes)
    return Group(*parts)


_STATS = ("min", "max", "mean", "std", "zeros", "NaN", "Inf", "over f16", "under f16")


def _stats_view(stats: Sequence[TensorStats]) -> RenderableType:
    rows = [_stats_row(row) for row in stats]
    told = [name for index, name in enumerate(_STATS) if any(cells[index] for cells in rows)]
    view = _table("tensor", "stored", right=told)
    for row, cells in zip(stats, rows, strict=True):
        style = "red" if row.nan or row.inf or row.over_f16 else ""
        figures = (cells[_STATS.index(name)] for name in told)
        view.add_row(row.name, row.dtype, *figures, style=style)
    return view


def _stats_row(row: TensorStats) -> list[str]:
    """Return the cells of ``_STATS``; a column that is empty in every row is left out."""
    figures = ["" if value is None else f"{value:.4g}" for value in (row.min, row.max, row.mean, row.std)]
    counts = [_share(row.zeros, row.elements), *map(_count, (row.nan, row.inf, row.over_f16))]
    return [*figures, *counts, _share(row.under_f16, row.elements)]


def _count(count: int) -> str:
    return f"{count:,}" if count else ""


def _share(count: int, total: int) -> str:
    if not count:
        return ""
    # Below a thousandth a percentage would read 0.0 %.
    return f"{100 * count / total:.1f} %" if count * 1000 >= total else f"{count:,}"


def tree_view(info: ModelInfo, groups: Sequence[TensorGroup]) -> RenderableType:
    """Return nested models for an older Core ML model, else the tensors by the parts of their names."""
    if info.details.get("model"):
        return model_tree(info.details["model"])
    root = Tree(Text(info.path, "bold"), guide_style="dim")
    nodes: dict[tuple[str, ...], Tree] = {}
    totals: dict[tuple[str, ...], list[int]] = {}
    for group in groups:
        parts = _parts(group.name)
        for depth in range(1, len(parts) + 1):
            total = totals.setdefault(parts[:depth], [0, 0])
            total[0], total[1] = total[0] + group.parameters, total[1] + group.bytes
    for group in groups:
        parts = _parts(group.name)
        for depth in range(1, len(parts)):
            place = parts[:depth]
            if place not in nodes:
                count, size = totals[place]
                above = nodes[parts[: depth - 1]] if depth > 1 else root
                nodes[place] = above.add(_label(place[-1], f"{count_text(count)}, {byte_text(size)}"))
        above = nodes[parts[:-1]] if len(parts) > 1 else root
        many = f"{group.count} x " if group.count > 1 else ""
        above.add(_label(parts[-1], f"{many}{group.dtype} {shape_text(group.shape)}"))
    return root


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[./]", name) if part) or (name,)


def _label(name: str, said: str) -> Text:
    return Text.assemble(name, "  ", (said, "dim"))


def model_tree(node: Mapping[str, Any]) -> RenderableType:
    """Return a model and those inside it, each with its ports and facts."""
    root = Tree(_model_label(node), guide_style="dim")
    _grow(root, node)
    return root


def _grow(tree: Tree, node: Mapping[str, Any]) -> None:
    for inner in node.get("models", ()):
        _grow(tree.add(_model_label(inner)), inner)


def _model_label(node: Mapping[str, Any]) -> Text:
    name = f" {node['name']}" if node.get("name") else ""
    ports = f"{_some(node['inputs'], 4)} -> {_some(node['outputs'], 4)}" if node["outputs"] else ""
    facts = [_fact(key, value) for key, value in node["facts"].items() if key != "models"]
    return Text.assemble((node["kind"], "bold"), name, f"  {ports}" if ports else "", ("  " + ", ".join(facts), "dim"))


def _fact(key: str, value: Any) -> str:
    words = key.replace("_", " ")
    if value is True:
        return words
    if isinstance(value, Mapping):
        return f"{words} {', '.join(f'{name} {item}' for name, item in value.items())}"
    if isinstance(value, list):
        return f"{words}: {_some(value)}"
    if not isinstance(value, int) or not words.endswith("s"):
        return f"{words} {value:,}" if isinstance(value, int) else f"{words} {value}"
    return f"{value:,} {words if value != 1 else _ONE.get(words) or words.removesuffix('s')}"


def folder_view(path: Path, rows: Sequence[Listed]) -> RenderableType:
    """Return a row a model, and below them what is wrong with some."""
    view = _table("model", "format", "kind", "stored", right=("parameters", "on disk"))
    wrong: list[RenderableType] = []
    for row in rows:
        name, info = row.path.removeprefix(f"{path}/"), row.info
        problems = [row.problem] if info is None else [note.removeprefix(f"{path}/") for note in info.notes]
        wrong += [Text(problem if name in problem else f"{name}: {problem}", "yellow") for problem in problems]
        if info is None:
            view.add_row(name, "", "", "", "", "")
            continue
        count = count_text(info.parameters) if info.parameters else ""
        size = byte_text(sum(info.sizes.values()))
        view.add_row(name, info.metadata.format, info.kind, info.metadata.quantization, count, size)
    return Group(view, *wrong)


def diff_view(first: ModelInfo, second: ModelInfo, found: FileDifference) -> RenderableType:
    """Return the facts that differ between two files, then the tensors that differ, then a count."""
    parts: list[RenderableType] = []
    if found.facts:
        facts = _table("", "first", "second")
        for what, a, b in found.facts:
            facts.add_row(Text(what, "dim"), _brief(a), _brief(b))
        parts.append(facts)
    apart = [tensor for tensor in found.tensors if tensor.status not in ("same", "type")]
    if apart:
        view = _table("tensor", "", "stored", "shape", right=("max abs", "relative", "cosine", "unequal"))
        for tensor in apart:
            view.add_row(*_difference(tensor))
        parts.append(view)
    counts: dict[str, int] = {}
    for tensor in found.tensors:
        counts[tensor.status] = counts.get(tensor.status, 0) + 1
    words = {"same": "the same", "type": "the same stored as another type", "differs": "with other values"}
    words |= {"shape": "of another shape", "missing": f"only in {first.path}", "added": f"only in {second.path}"}
    shown = ", ".join(f"{count} {words[status]}" for status, count in counts.items()) or "none"
    parts.append(Text(f"tensors: {shown}", "green" if found.same else "bold red"))
    return Group(*parts)


def _difference(tensor: TensorDifference) -> tuple[str, ...]:
    stored = " / ".join(dict.fromkeys(name for name in tensor.dtypes if name))
    shapes = " / ".join(dict.fromkeys(shape_text(shape) for shape in tensor.shapes if shape))
    figures = ("", "", "", "")
    if tensor.max_abs is not None and tensor.relative is not None and tensor.cosine is not None:
        relative = f"{tensor.relative:.2e}"
        figures = (f"{tensor.max_abs:.3g}", relative, f"{tensor.cosine:.6f}", f"{tensor.unequal:,}")
    return (tensor.name, tensor.status, stored, shapes, *figures)


def _brief(value: Any) -> str:
    if isinstance(value, tuple):
        return _some([getattr(item, "name", item) for item in value])
    return "" if value is None else str(value)[:80]
