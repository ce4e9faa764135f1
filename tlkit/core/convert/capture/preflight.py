"""Before converting, list every torch op of a captured model that coremltools cannot convert, with its places.

Importing this module imports neither torch nor coremltools; :func:`check_ops` needs both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.core.convert.tools.load import load_tools
from tlkit.core.convert.tools.teach import install, supports
from tlkit.errors import ConversionError

_SHOWN = 4
_TRACED = "it was scripted, whole or in part, and a script's checks stay in it: trace it without torch.jit.script"

# A frame as Python prints it, which torch.export keeps, and as TorchScript does: `net.py(12): forward`.
_PYTHON = re.compile(r'(?:File "(?P<file>[^"]+)", line (?P<line>\d+))|(?:^(?P<path>[^\n]+?)\((?P<at>\d+)\): )', re.M)
_TORCH = re.compile(r"/torch/(?:nn|_|functional|jit|export|utils|overrides|fx)[\w/]*|/tlkit/core/convert/capture/")


@dataclass(frozen=True, slots=True)
class Place:
    """An op's place: the module's path in the model (empty at the top), the source file's name and line."""

    module: str
    line: str

    def __str__(self) -> str:
        return " at ".join(filter(None, (self.module, self.line))) or "the model's top level"


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A torch op that coremltools has no translation for, how often the model has it, and its different places."""

    op: str
    count: int
    places: tuple[Place, ...]


class PreflightError(ConversionError):
    """The model has ops that cannot be converted: ``unsupported`` is all of them."""

    def __init__(self, unsupported: tuple[Unsupported, ...], tools: str, hint: str = "") -> None:
        ops = "; ".join(
            f"{item.op} {item.count}x ({' and '.join(map(str, item.places[:_SHOWN]))})" for item in unsupported
        )
        what = f"{len(unsupported)} torch ops" if len(unsupported) > 1 else "a torch op"
        super().__init__(
            f"coremltools {tools} cannot convert {what} of this model: {ops}",
            hint or "express them with other torch ops, or do them outside the model",
        )
        self.unsupported = unsupported


def check_ops(program: Any) -> None:
    """Raise :class:`PreflightError` if ``program`` (traced TorchScript or an ExportedProgram) has such ops."""
    tools = load_tools()
    found = unsupported(program)
    if found:
        scripted = any(item.op == "prim::RaiseException" for item in found)
        raise PreflightError(found, tools.__version__, _TRACED if scripted else "")


def unsupported(program: Any) -> tuple[Unsupported, ...]:
    """Return the ops of ``program`` that coremltools lacks even with tlkit's additions, the most frequent first."""
    install()
    found: dict[str, list[Place]] = {}
    exported = not hasattr(program, "inlined_graph")
    for kind, place in _exported_ops(program) if exported else _script_ops(program):
        if not supports(kind, exported=exported):
            found.setdefault(kind.removeprefix("aten::"), []).append(place)
    every = (Unsupported(op, len(places), tuple(dict.fromkeys(places))) for op, places in found.items())
    return tuple(sorted(every, key=lambda item: (-item.count, item.op)))


def _script_ops(program: Any) -> Iterator[tuple[str, Place]]:
    for _, kind, place in _script_named(_tidied(program)):
        if kind != "prim::GetAttr":  # weights, which coremltools resolves beforehand
            yield kind, place


def _script_named(graph: Any) -> Iterator[tuple[str, str, Place]]:
    def walk(block: Any) -> Iterator[Any]:
        for node in block.nodes():
            yield node
            for inner in node.blocks():
                yield from walk(inner)

    for node in walk(graph):
        # A scope's name lists its parents, `__module.inner/__module.inner.fc`, and the last one is the whole path.
        scope = node.scopeName().rpartition("/")[2].removeprefix("__module").lstrip(".")
        name = next((value.debugName() for value in node.outputs()), "")
        yield name, node.kind(), Place(plain_module(scope), _line(node.sourceRange(), innermost_first=True))


def find_op(program: Any, name: str) -> tuple[str, Place] | None:
    """Return the kind (``add``) and the place of the op of ``program`` that gives the value ``name``."""
    plain = name.replace(".", "_")
    for other, kind, place in named_places(program):
        if plain and other.replace(".", "_") == plain:
            return kind.removeprefix("aten::").partition(".")[0], place
    return None


def find_place(program: Any, name: str, kind: str, count: int) -> Place | None:
    """Return the place of the op of ``program`` that gives ``name``, or else of the one after ``count`` of its kind."""
    named = find_op(program, name)
    if named is not None:
        return named[1]
    found = named_places(program)
    # coremltools has its own names for in-place ops: `_internal_op_tensor_inplace_copy`.
    kinds = {kind.rstrip("_"), "copy" if "inplace_copy" in kind else "fill" if "inplace_fill" in kind else kind}
    alike = [place for _, other, place in found if other.removeprefix("aten::").partition(".")[0].rstrip("_") in kinds]
    return alike[count] if count < len(alike) else None


def named_places(program: Any) -> list[tuple[str, str, Place]]:
    """Return the captured graph's ops: the name of the value that each gives, its kind (``aten::add``), its place."""
    if hasattr(program, "inlined_graph"):
        return list(_script_named(program.inlined_graph))
    return [(node.name, *item) for node, item in _exported_nodes(program)]


_PARTS = {"aten::slice", "aten::select"}
_VIEWS = _PARTS | {f"aten::{name}" for name in ("view", "transpose", "permute", "unsqueeze", "squeeze", "narrow", "t")}


def lost_writes(script: Any) -> tuple[str, ...]:
    """Return the ops of traced TorchScript that write into a part of a tensor that is read afterwards, with their
    places.

    coremltools follows `x[1:3] = y` (a copy into slices) and writes into whole tensors; of others, such as
    `x[:, i] = y` or `x[0].mul_(2)`, it keeps the result and forgets the tensor they are a part of.
    """
    chains: dict[str, tuple[str, bool]] = {}  # of a view: what it is a part of, whether only slices lead there
    written: dict[str, tuple[str, str]] = {}  # what was written into: the part's new value, and which op wrote it
    buffers: set[str] = set()
    lost: dict[str, None] = {}

    def read(names: Sequence[str]) -> None:
        for name in names:
            value, what = written.get(chains.get(name, (name, True))[0], (name, ""))
            if value != name:
                lost[what] = None

    graph = script.inlined_graph
    for node in graph.nodes():
        names, kind = [value.debugName() for value in node.inputs()], node.kind()
        if kind == "prim::GetAttr":
            buffers.add(node.output().debugName())
        elif kind in _VIEWS:
            root, sliced = chains.get(names[0], (names[0], True))
            chains[node.output().debugName()] = (root, sliced and kind in _PARTS)
        # TorchScript's in-place ops end in _.
        elif kind.startswith("aten::") and kind.endswith("_") and names[0] in chains:
            root, sliced = chains[names[0]]
            if kind == "aten::copy_" and names[1] == written.get(root, ("", ""))[0]:
                del written[root]  # `x[1:3] += y` puts what it has written into the part once more
            elif not (sliced and kind in ("aten::copy_", "aten::fill_")):
                read(names)
                what = f"{kind.removeprefix('aten::')} at {_line(node.sourceRange(), innermost_first=True)}"
                written[root] = (node.output().debugName(), what)
                if root in buffers:
                    lost[what] = None  # a state is read by the next call
        else:
            read(names)
    read([value.debugName() for value in graph.outputs()])
    return tuple(lost)


def _tidied(program: Any) -> Any:
    """Return the graph as coremltools reads it: without dead ops, and with `chunk` of a constant as a separate op."""
    import torch

    graph = program.inlined_graph.copy()
    torch._C._jit_pass_dce(graph)
    torch._C._jit_pass_canonicalize_graph_fuser_ops(graph)
    return graph


def _exported_ops(program: Any) -> Iterator[tuple[str, Place]]:
    return (item for _, item in _exported_nodes(program))


def _exported_nodes(program: Any) -> Iterator[tuple[Any, tuple[str, Place]]]:
    for node in program.graph_module.graph.nodes:
        if node.op != "call_function":
            continue
        # Arithmetic on sizes is Python's (operator.mul), which has no overload.
        kind = node.target.name() if hasattr(node.target, "name") else node.target.__name__
        scopes = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        line = stack_line(node.meta.get("stack_trace") or "")
        yield node, (kind, Place(plain_module(scopes[-1] if scopes else ""), line))


def plain_module(scope: str) -> str:
    """Return a module's path in the user's model."""
    return scope.removeprefix("inner").lstrip(".")  # trace.Recorder calls the user's model so


def stack_line(stack: str) -> str:
    """Return the innermost line of a stack as torch.export keeps it that is not torch's own, as ``file.py:12``."""
    return _line(stack, innermost_first=False)


def _line(stack: str, *, innermost_first: bool) -> str:
    """Return the innermost line of a Python stack that is not torch's own or tlkit's, as ``file.py:12``."""
    frames = [
        (match["file"] or match["path"].strip(), match["line"] or match["at"]) for match in _PYTHON.finditer(stack)
    ]
    frames = frames if innermost_first else frames[::-1]
    own = [frame for frame in frames if not _TORCH.search(frame[0])]
    path, line = (own or [frame for frame in frames if "/tlkit/core/" not in frame[0]] or [("", "")])[0]
    return f"{Path(path).name}:{line}" if path else ""
