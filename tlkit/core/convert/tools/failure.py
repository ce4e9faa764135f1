"""Explain in PyTorch's terms why coremltools could not convert a model: the operation, its module, line and reason.

Importing this module imports neither torch nor coremltools.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.reading import plain_name
from tlkit.core.convert.tools.ranks import MOST
from tlkit.errors import ConversionError
from tlkit.host.quiet import Heard

if TYPE_CHECKING:
    from tlkit.core.convert.capture.trace import Traced

_UNSUPPORTED = re.compile(r"convert function for op '([^']+)' not implemented|Unsupported fx node \S+, kind (\S+)")
_LOGGED = re.compile(r"ERROR - converting '([^']*)' op \(located at: '([^']*)'\)")
# Python's own errors from coremltools' code, which tell a user nothing.
_OPAQUE = re.compile(
    r"<class|np\.\w+\(|\bVar\b|NoneType|KeyError|AssertionError|AttributeError|UnboundLocalError|IndexError|TypeError"
    r"|has no attribute|Cannot delete|pop index|out of range|corresponding var|not iterable|subscriptable"
    r"|unexpected keyword|positional arg|must be a string or a real number|Expected bool|mil\.|^\W*$"
    r"|to unpack|truth value of|invalid literal|setting an array"
)
# `(op_type: relu) Input x="y" expects ... of dtype from type domain ['fp16', 'fp32'] but got tensor[2,int32]`.
_DOMAIN = re.compile(
    r"\(op_type: (?P<op>\w+)\) Input (?P<input>\w+)=\S* expects .*? of dtype from type domain (?P<takes>\[[^\]]*\]) "
    r"but got (?:tensor\[[^\]]*?,?(?P<dtype>\w+)\]|(?P<scalar>\w+))"
)
_WORDS = {
    "_internal_op_tensor_inplace_copy_": "an assignment into a part of a tensor (x[...] = y)",
    "_internal_op_tensor_inplace_fill_": "an assignment into a part of a tensor (x[...] = number)",
    "_internal_op_tensor_inplace_copy": "an assignment into a part of a tensor (x[...] = y)",
    "_internal_op_tensor_inplace_fill": "an assignment into a part of a tensor (x[...] = number)",
    "_convolution": "'convolution'",
    "grid_sampler": "'grid_sample'",
    "grid_sampler_2d": "'grid_sample'",
}
_SHAPING = {"reshape", "transpose", "expand_dims", "squeeze", "cast", "identity"}
# A symbol of coremltools for a size that it does not know, `is12`.
_UNKNOWN = re.compile(r"\bis\d+\b")


@dataclass(frozen=True, slots=True)
class _Stopped:
    """The torch op that was being translated: its kind, its name in the graph, and its arguments."""

    kind: str
    name: str
    operands: str
    count: int


def conversion_error(error: Exception, heard: Heard, tools: str, traced: Traced | None = None) -> ConversionError:
    """Return coremltools' ``error`` in one line, with the torch op of ``traced`` at which it stopped."""
    stopped = next(filter(None, map(_torch_node, _frames(error))), None)
    logged = next(filter(None, map(_LOGGED.search, reversed(heard.lines))), None)
    kind = stopped.kind if stopped else logged[1] if logged else ""
    where = _place(traced, stopped, kind, logged[2] if logged else "")
    reason = _reason(error, stopped)
    unsupported = _UNSUPPORTED.search(str(error))
    if unsupported:
        hint = "express it with other torch ops, or do it outside the model"
        return ConversionError(
            f"coremltools {tools} cannot convert the torch op '{unsupported[1] or unsupported[2]}'{where}", hint
        )
    if not kind:
        return _after(error, tools, traced, reason)
    said = _WORDS.get(kind) or f"the torch op '{kind.partition('.')[0]}'"
    return ConversionError(f"coremltools {tools} cannot convert {said}{where}: {reason}", _hint(str(error)))


def _hint(text: str) -> str:
    shown = "-vv shows where it stopped"
    if len(set(_UNKNOWN.findall(text))) > 1:
        return f"give view and reshape the sizes rather than -1, or convert it at fixed shapes; {shown}"
    if "complex" in text:
        return f"Core ML has no complex numbers: compute real and imaginary parts as separate tensors; {shown}"
    return f"express it with other torch ops, or do it outside the model; {shown}"


def _reason(error: Exception, stopped: _Stopped | None) -> str:
    """Return a reason without Python's or coremltools' internals."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    domain = _DOMAIN.search(text)
    if domain:
        takes = " or ".join(re.findall(r"\w+", domain["takes"]))
        return f"Core ML's {domain['op']} takes {takes}, not {domain['dtype'] or domain['scalar']}"
    symbols = set(_UNKNOWN.findall(text))
    if len(symbols) > 1:
        return "with flexible shapes, it cannot tell that two unknown sizes are equal"
    if isinstance(error, RuntimeError | ValueError | NotImplementedError) and not _OPAQUE.search(text):
        return _UNKNOWN.sub("?", text)
    given = f" of {stopped.operands}" if stopped and stopped.operands else ""
    return f"its translation fails on operands{given}" if given else "its translation fails"


def _after(error: Exception, tools: str, traced: Traced | None, reason: str) -> ConversionError:
    """Return the text for a failure in coremltools' own passes, after every op was translated."""
    said, where = "the model", ""
    for frame in _frames(error):
        name, operation = _pass_of(frame), frame.f_locals.get("op")
        if frame.f_code.co_name == "_check_invalid_tensor_rank_block" and operation is not None:
            return _too_many_axes(operation, tools, traced)
        if name and said == "the model":
            said = f"the model: its own pass {name} fails on what it translated"
        if operation is not None and hasattr(operation, "op_type"):
            where = where or _place(traced, _Stopped("", str(getattr(operation, "name", "")), "", 0), "", "")
            said = f"{said.partition(', at')[0]}, at the operation '{str(operation.op_type).removeprefix('torch_')}'"
            break
    tail = "" if reason.startswith("its translation") else f": {reason}"
    return ConversionError(f"coremltools {tools} cannot convert {said}{where}{tail}", "-vv shows where it stopped")


def _too_many_axes(operation: Any, tools: str, traced: Traced | None) -> ConversionError:
    """Return the text for a tensor of more axes than Core ML has, whose axes could not be folded."""
    block = operation.enclosing_block
    given = [var for var in getattr(block, "inputs", {}).values() if var.rank > MOST]
    for port, wide, mend in (
        ("an input", given, ", and split them in the model's forward"),
        ("an output", [var for var in block.outputs if var.rank > MOST], ""),
    ):
        if wide:
            text = f"coremltools {tools} cannot convert the model: {port} of it has {_axes(wide[0])}"
            return ConversionError(f"{text}, Core ML takes {MOST}", f"merge axes of it{mend}")
    out, culprit = next(out for out in operation.outputs if not 0 <= out.rank <= MOST), operation
    # What only shapes it is not in the way of folding; what takes it from there is.
    while culprit.op_type in _SHAPING and culprit.outputs[0].child_ops:
        culprit = culprit.outputs[0].child_ops[0]
    found = traced.op(plain_name(culprit.outputs[0].name)) if traced is not None else None
    said = f"the torch op '{found[0]}'" if found else f"the operation '{culprit.op_type}'"
    where = ", ".join(filter(None, (found[1].module, found[1].line))) if found else ""
    text = f"coremltools {tools} cannot convert {said}{f' ({where})' if where else ''}: a tensor of {_axes(out)}"
    text = f"{text}, where Core ML takes {MOST}, and they cannot be folded there"
    return ConversionError(text, "merge axes with reshape before it, and split them after")


def _axes(var: Any) -> str:
    return f"{var.rank} axes ({'x'.join(str(size) if str(size).isdigit() else '?' for size in var.shape)})"


def _pass_of(frame: FrameType) -> str:
    path = frame.f_code.co_filename.replace("\\", "/")
    if "/mil/passes/" not in path and "/ssa_passes/" not in path and "/backend/" not in path:
        return ""
    owner = frame.f_locals.get("self")
    name = type(owner).__name__ if owner is not None else frame.f_code.co_name
    # These only call the passes.
    return "" if name in ("PassPipelineManager", "apply_pipeline", "apply", "__call__", "PassRegistry") else f"'{name}'"


def _frames(error: BaseException) -> Iterator[FrameType]:
    """Yield the frames that ``error`` passed, the innermost first."""
    return iter([frame for frame, _ in traceback.walk_tb(error.__traceback__)][::-1])


def _torch_node(frame: FrameType) -> _Stopped | None:
    node = frame.f_locals.get("node")
    if frame.f_code.co_name != "convert_nodes" or node is None:
        return None
    graph, context = frame.f_locals.get("graph"), frame.f_locals.get("context")
    kind = str(node.kind)
    before = [other for other in getattr(graph, "nodes", ()) if other.kind == kind]
    count = next((index for index, other in enumerate(before) if other is node), 0)
    return _Stopped(kind, str(node.name), ", ".join(list(_operands(context, node))[:4]), count)


def _operands(context: Any, node: Any) -> Iterator[str]:
    for name in getattr(node, "inputs", ()):
        try:
            value = context[name]
            shape = "x".join(
                "?" if not isinstance(size, int) and not str(size).isdigit() else str(size) for size in value.shape
            )
            dtype = str(value.dtype.__type_info__().name) if hasattr(value.dtype, "__type_info__") else ""
        except Exception:  # constants and lists of them
            continue
        if dtype and shape:
            yield f"{dtype.replace('fp', 'float')} {shape}"


def _place(traced: Traced | None, stopped: _Stopped | None, kind: str, scope: str) -> str:
    """Return the module and the line of the op, as `` (in layers.0 at net.py:12)``; empty where neither is known."""
    found = traced.place(stopped.name, kind, stopped.count) if traced is not None and stopped else None
    inner = ".".join(scope.split("/")[1:-1])  # without our own wrapper and the node's number
    if found is None:
        return f" (in {inner})" if inner else ""
    module, line = found.module or inner, found.line
    if module and line:
        return f" (in {module}, {line})"
    return f" (in {module})" if module else f" ({line})" if line else ""
