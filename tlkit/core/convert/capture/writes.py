"""Rewrite a trace that writes into parts of tensors to compute new tensors: coremltools follows few such writes.

After ``part = x[:, 1]; part.mul_(2)`` a trace continues to read ``x``. Here the part's new value is put into a new
``x`` (``select_scatter``), later reads of ``x`` get that one, and other views of it are recomputed where they are next
read. Writes into buffers stay, since buffers are the package's states. Importing this module imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

_SHAPES = {f"aten::{name}" for name in ("view", "squeeze", "unsqueeze", "flatten", "unflatten", "view_as", "ravel")}
_COPIES = {"aten::reshape", "aten::contiguous", "aten::reshape_as"}
_PARTS = {f"aten::{name}" for name in ("select", "slice", "narrow", "diagonal")}
_TURNS = {f"aten::{name}" for name in ("transpose", "t", "numpy_T", "mT", "mH", "matrix_H", "permute", "movedim")}
_SAME = {"aten::detach", "aten::alias", "aten::to"}
_SPREAD = {f"aten::{name}" for name in ("expand", "expand_as", "broadcast_to", "unfold", "real", "imag")}
_MANY = {f"aten::{name}" for name in ("chunk", "unsafe_chunk", "split", "split_with_sizes", "unbind", "tensor_split")}
_MANY |= {f"aten::{name}" for name in ("hsplit", "vsplit", "dsplit", "as_strided", "view_as_real", "view_as_complex")}
_VIEWS = _SHAPES | _COPIES | _PARTS | _TURNS | _SAME | _SPREAD


class _CannotFollow(Exception):
    """A write through a view that this module cannot invert."""


def without_writes(script: Any) -> bool:
    """Rewrite the graph of the traced ``script`` so that nothing writes into a part; return whether anything changed.

    A graph with a write that cannot be followed is left as it is.
    """
    if not _written(script.inlined_graph):
        return False
    try:
        # On a copy first: half way it may turn out that a write cannot be followed.
        _Rewrite(script.inlined_graph.copy()).run()
    except _CannotFollow:
        return False
    torch._C._jit_pass_inline(script.graph)
    _Rewrite(script.graph).run()
    torch._C._jit_pass_dce(script.graph)
    return True


def _written(graph: Any) -> bool:
    return any(_writes(node) for node in graph.nodes())


def _writes(node: Any) -> bool:
    kind = node.kind()
    # `aten::__and__` ends in underscores and writes nothing.
    return bool(kind.startswith("aten::") and kind.endswith("_") and not kind.endswith("__"))


@dataclass(eq=False)
class _Tensor:
    """A tensor of the traced program: its base and the node that views it, its current value and the write it dates
    from."""

    value: Any
    parent: _Tensor | None = None
    view: Any = None
    seen: int = 0  # the root's `writes` when `value` was computed
    writes: int = 0  # of a root: how often it was written
    views: int = 0
    pinned: bool = False  # a buffer: writes into it stay
    split: bool = False  # seen through a split too, whose parts are not followed

    @property
    def root(self) -> _Tensor:
        return self.parent.root if self.parent else self


class _Rewrite:
    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.tensors: dict[str, _Tensor] = {}

    def run(self) -> None:
        for node in list(self.graph.nodes()):
            self._refresh(node)
            self._follow(node)
        self._refresh(self.graph.return_node())

    def _tensor(self, value: Any) -> _Tensor:
        name = value.debugName()
        if name not in self.tensors:
            self.tensors[name] = _Tensor(value, pinned=value.node().kind() == "prim::GetAttr")
        return self.tensors[name]

    def _refresh(self, node: Any) -> None:
        """Make ``node`` read the current values of its inputs."""
        # Control flow: which write is the last one depends on the branch.
        if any(True for _ in node.blocks()) and any(tensor.root.writes for tensor in self.tensors.values()):
            raise _CannotFollow
        for index, value in enumerate(list(node.inputs())):
            tensor = self.tensors.get(value.debugName())
            if tensor is not None and not tensor.root.pinned:
                fresh = self._read(tensor, node)
                if fresh.debugName() != value.debugName():
                    self.tensors[fresh.debugName()] = tensor
                    node.replaceInput(index, fresh)

    def _read(self, tensor: _Tensor, before: Any) -> Any:
        root = tensor.root
        if tensor.parent is None or tensor.seen == root.writes:
            return tensor.value
        base = self._read(tensor.parent, before)
        tensor.value = self._insert(
            tensor.view.kind(), [base, *list(tensor.view.inputs())[1:]], before, like=tensor.value
        )
        tensor.seen = root.writes
        return tensor.value

    def _insert(self, kind: str, inputs: list[Any], before: Any, like: Any) -> Any:
        node = self.graph.create(kind, inputs, 1)
        node.copyMetadata(before)
        node.insertBefore(before)
        node.output().setType(like.type())
        self.tensors.pop(node.output().debugName(), None)
        return node.output()

    def _constant(self, value: Any, before: Any) -> Any:
        """Insert a constant. The graph keeps its place of insertion, which torch's passes return to later: left at a
        node that is destroyed afterwards, it makes them read freed memory."""
        place = self.graph.insertPoint()
        self.graph.setInsertPoint(before)
        constant = self.graph.insertConstant(value)
        self.graph.setInsertPoint(place)
        return constant

    def _follow(self, node: Any) -> None:
        kind = node.kind()
        if kind in _VIEWS and _same_memory(node):
            parent = self._tensor(next(node.inputs()))
            parent.root.views += 1
            self.tensors[node.output().debugName()] = _Tensor(node.output(), parent, node, parent.root.writes)
        elif kind in _MANY:
            self._tensor(next(node.inputs())).root.split = True
        elif _writes(node):
            self._write(node)

    def _write(self, node: Any) -> None:
        tensor = self._tensor(next(node.inputs()))
        root = tensor.root
        self.tensors[node.output().debugName()] = tensor
        if root.pinned:
            return
        if root.split:
            raise _CannotFollow
        # coremltools follows a write into a whole tensor by itself.
        if tensor.parent is None and not root.views:
            tensor.value = node.output()
            return
        value = self._computed(node)
        node.output().replaceAllUsesWith(value)
        self.tensors[value.debugName()] = tensor
        self._put(tensor, value, node)
        node.destroy()

    def _computed(self, node: Any) -> Any:
        """Return the value that ``node`` would have written, as a new tensor."""
        kind, (target, *rest) = node.kind().removesuffix("_"), list(node.inputs())
        if kind == "aten::copy":
            # copy_ broadcasts its source, and casts it.
            spread = self._insert("aten::expand_as", [rest[0], target], node, like=target)
            return self._insert("aten::type_as", [spread, target], node, like=target)
        if kind == "aten::zero":
            kind, rest = "aten::fill", [self._constant(0.0, node)]
        return self._insert(kind, [target, *rest], node, like=target)

    def _put(self, tensor: _Tensor, value: Any, before: Any) -> None:
        """Make ``value`` the value of ``tensor`` and of what it is a view of."""
        tensor.value = value
        if tensor.parent is None:
            tensor.writes += 1
            return
        base = self._read(tensor.parent, before)
        self._put(tensor.parent, self._undone(tensor.view, base, value, before), before)
        tensor.seen = tensor.root.writes

    def _undone(self, view: Any, base: Any, value: Any, before: Any) -> Any:
        """Return ``base`` with ``value`` in the place that ``view`` shows."""
        kind, arguments = view.kind(), list(view.inputs())[1:]
        if kind in _SHAPES | _COPIES:
            return self._insert("aten::reshape_as", [value, base], before, like=base)
        if kind in _TURNS - {"aten::permute", "aten::movedim"}:
            return self._insert(kind, [value, *arguments], before, like=base)
        if kind == "aten::movedim":
            return self._insert(kind, [value, *reversed(arguments)], before, like=base)
        if kind in _SAME:
            return value
        if kind in ("aten::select", "aten::slice", "aten::diagonal"):
            return self._insert(f"{kind}_scatter", [base, value, *arguments], before, like=base)
        if kind == "aten::permute":
            axes = _numbers(arguments[0])
            rank = len(axes)
            order = [axis % rank for axis in axes]
            back = self._constant([order.index(axis) for axis in range(rank)], before)
            return self._insert("aten::permute", [value, back], before, like=base)
        # There is no narrow_scatter; a narrow is a slice with step 1.
        if kind == "aten::narrow":
            axis, start, length = (number for argument in arguments for number in _numbers(argument))
            span = [self._constant(number, before) for number in (axis, start, start + length, 1)]
            return self._insert("aten::slice_scatter", [base, value, *span], before, like=base)
        raise _CannotFollow


def _numbers(value: Any) -> list[int]:
    """Return the integers of a constant, or of a list of constants."""
    node = value.node()
    parts = list(node.inputs()) if node.kind() == "prim::ListConstruct" else [value]
    found = [part.toIValue() for part in parts]
    if any(number is None for number in found):
        raise _CannotFollow
    return [number for part in found for number in (part if isinstance(part, list) else [part])]


def _same_memory(node: Any) -> bool:
    """Whether a node that may copy needed no copy at the types and strides seen in the trace."""
    kind, given = node.kind(), next(node.inputs()).type()
    if kind == "aten::to":
        *_, copied, _memory_format = node.inputs()
        same = hasattr(given, "dtype") and given.dtype() == node.output().type().dtype()
        return bool(same and copied.toIValue() is not True)
    return kind not in _COPIES or _contiguous(given)


def _contiguous(kind: Any) -> bool:
    sizes, strides = (kind.sizes(), kind.strides()) if hasattr(kind, "strides") else (None, None)
    if not sizes or not strides:
        return False
    expected = 1
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        # The stride of an axis of 1 means nothing.
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
