"""Infer the shape of every value of a program with fixed shapes when its inputs get other shapes.

A program declares the shape of every value. It is run at the new shapes, and the declarations can be rewritten as long
as every operation that the change reaches follows its operands' shapes. An operation whose own constants hold a shape
(a reshape, a slice) may mean exactly that shape, so it is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from tlkit.errors import TlkitError, UsageError, reason
from tlkit.host import budget
from tlkit.mil.lower.constants import stored
from tlkit.mil.lower.guard import Guard, TooLargeError
from tlkit.mil.lower.interpreter import Interpreter
from tlkit.mil.lower.lower import lower
from tlkit.mil.ops import CARRIERS, library
from tlkit.mil.program import Function, Operation, StateType, TensorType, walk

AGAIN = "convert the model again at that shape, or with a flexible one"
"""The hint where a program does not follow another shape."""
Shape = tuple[int, ...]
_ASKED = 1 << 28  # elements of an input whose shape the user asked for: 1 GiB of f32
_FAMILIES = {"activation", "conv", "elementwise_binary", "elementwise_unary", "linear", "normalization", "pool"}
_FAMILIES |= {"reduction", "transformers"}
_FOLLOW = {"concat", "cumsum", "depth_to_space", "expand_dims", "identity", "pad", "pixel_shuffle", "pixel_unshuffle"}
_FOLLOW |= {"select", "shape", "space_to_depth", "squeeze", "stack", "transpose"}
_FOLLOW |= {"upsample_bilinear", "upsample_nearest_neighbor"}
"""Operations whose result's shape follows from their operands' shapes, whatever their constants."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """The shape of every value by name, and new shape constants (by result) for reshapes that fixed a batch of 1."""

    shapes: Mapping[str, Shape]
    reshapes: Mapping[str, Shape]


def infer(function: Function, shapes: Mapping[str, Shape]) -> Inferred:
    """Return the shapes of the values of ``function`` with ``shapes`` at its inputs, by running it on zeros.

    UsageError names the operation that the shapes do not fit or that does not follow.
    """
    # Shapes do not depend on rounding, so it is left out.
    walker = _Walker(lower(function, precision="f32"), function)
    held = stored(walk(function.block.operations))
    # A shape that the user typed is trusted more than one from the file.
    asked = max(budget.warranted(held), budget.factor() * _ASKED)
    operands = [
        _zeros(item.type, shapes.get(item.name), asked if item.name in shapes else budget.warranted(held))
        for item in function.inputs
    ]
    most = budget.warranted(held, sum(operand.numel() for operand in operands))
    try:
        with torch.inference_mode(), Guard(most):
            walker.run(*operands)
    except TooLargeError as error:
        raise UsageError(f"{walker.where}: {error.message}", error.hint) from None
    except TlkitError:
        raise
    except Exception as error:
        raise UsageError(f"the shape does not fit {walker.where}: {reason(error)}", AGAIN) from None
    return Inferred(walker.found | dict(shapes), walker.reshapes)


class _Walker(Interpreter):
    """Records each value's shape, and stops where an operation does not follow its operands."""

    def __init__(self, module: fx.GraphModule, function: Function) -> None:
        super().__init__(module)
        self.found: dict[str, Shape] = {}
        self.reshapes: dict[str, Shape] = {}
        self.where = "the program"
        places = (node for node in module.graph.nodes if node.op == "placeholder")
        self._declared = {node: item.type for node, item in zip(places, function.inputs, strict=True)}
        self._changed: dict[fx.Node, set[int]] = {}  # the axes whose size is not the declared one

    def run_node(self, n: fx.Node) -> Any:
        operation = n.meta.get("mil")
        if operation is None:
            result = super().run_node(n)
            self._note(n, [(self._kind(n), result)])
            return result
        self.where = f"the operation '{operation.name}' ({operation.type})"
        changed = {name: axes for name, given in n.kwargs.items() if (axes := self._axes(given))}
        batch = self._batch(n, operation, changed)
        if batch is None:
            _check_follows(operation, changed, n.kwargs)
            result = super().run_node(n)
        else:
            self.reshapes[operation.outputs[0].name] = batch
            _, kwargs = self.fetch_args_kwargs_from_env(n)
            # Run with the shape that the reshape is going to have.
            result = self.call_function(n.target, (), {**kwargs, "shape": batch})
        values = result if isinstance(result, tuple) else (result,)
        # Not strict: write_state returns None and declares no output.
        for item, value in zip(operation.outputs, values, strict=False):
            if isinstance(value, torch.Tensor):
                self.found[item.name] = tuple(value.shape)
        self._note(n, [(item.type, value) for item, value in zip(operation.outputs, values, strict=False)])
        return result

    def _kind(self, node: fx.Node) -> Any:
        """Return the declared type of a node that is not an operation: an input, or one of several outputs."""
        if node.op == "placeholder":
            return self._declared[node]
        # lower's `_item(whole, index)`, one of several outputs
        whole = node.args[0] if len(node.args) == 2 else None
        operation = whole.meta.get("mil") if isinstance(whole, fx.Node) else None
        return operation.outputs[node.args[1]].type if operation is not None else None

    def _note(self, node: fx.Node, pairs: Sequence[tuple[Any, Any]]) -> None:
        axes = set().union(*(_different(kind, value) for kind, value in pairs))
        if axes:
            self._changed[node] = axes

    def _axes(self, given: Any) -> set[int]:
        if isinstance(given, tuple | list):
            return set().union(*map(self._axes, given))
        return self._changed.get(given, set()) if isinstance(given, fx.Node) else set()

    def _batch(self, node: fx.Node, operation: Operation, changed: Mapping[str, set[int]]) -> Shape | None:
        """Return the shape for a larger batch of a reshape to a batch of 1; None for anything else."""
        shape = node.kwargs.get("shape")
        # Only where nothing but the batch has changed, and the target fixes a batch of 1.
        if operation.type != "reshape" or changed != {"x": {0}} or not isinstance(shape, tuple) or shape[:1] != (1,):
            return None
        source = node.kwargs["x"]
        assert isinstance(source, fx.Node)
        length = int(self.env[source].shape[0])
        was = self.env[source].numel() // length
        return (length, *shape[1:]) if was == math.prod(_sizes(operation)) else None  # what was axis 0 was 1


def _sizes(operation: Operation) -> Sequence[int]:
    kind = operation.outputs[0].type
    return [size or 0 for size in kind.shape or ()] if isinstance(kind, TensorType) else ()


def _check_follows(operation: Operation, changed: Mapping[str, set[int]], given: Mapping[str, Any]) -> None:
    if changed and not _follows(operation, changed, given):
        raise UsageError(
            f"the new shape reaches '{operation.name}' ({operation.type}), whose own constants may hold the old one",
            AGAIN,
        )


def _follows(operation: Operation, changed: Mapping[str, set[int]], given: Mapping[str, Any]) -> bool:
    axes = changed.get("x", set())
    if operation.type == "gather":
        axis = given.get("axis", 0)
        # Constant indices may mean other elements in an axis of another length.
        return set(changed) == {"indices"} or (set(changed) == {"x"} and axis >= 0 and axis not in axes)
    if operation.type == "split":
        return given["axis"] >= 0 and given["axis"] not in axes
    if operation.type == "slice_by_index":
        masks = [given.get(name) or () for name in ("begin_mask", "end_mask", "squeeze_mask")]
        # Along each changed axis the whole has to be taken: begin and end masked, and not squeezed.
        whole = [tuple(mask[axis : axis + 1]) for mask in masks for axis in sorted(axes)]
        return set(changed) == {"x"} and set(whole[: -len(axes)]) == {(True,)} and (True,) not in whole[-len(axes) :]
    if operation.type == "reshape":
        return isinstance(given["shape"], fx.Node)  # computed from what there is
    versions = library().get(operation.type, ())
    known = operation.type in _FOLLOW or any(version.family in _FAMILIES for version in versions)
    return known and "output_shape" not in operation.inputs  # conv_transpose's, a constant length


def _different(kind: Any, value: Any) -> set[int]:
    """Return the axes of a value whose size differs from the declared one."""
    if not (isinstance(kind, TensorType) and isinstance(value, torch.Tensor)) or kind.shape is None:
        return set()
    # Another rank: no axis can be said to be unchanged.
    if len(kind.shape) != value.ndim:
        return set(range(max(1, value.ndim)))
    return {axis for axis, (was, now) in enumerate(zip(kind.shape, value.shape, strict=True)) if was != now}


def _zeros(kind: Any, shape: Shape | None, most: float) -> torch.Tensor:
    wrapped = kind.wrapped if isinstance(kind, StateType) else kind
    size = shape or wrapped.shape
    if size is None or None in size:
        raise UsageError("the program mixes fixed lengths with open ones", AGAIN)
    sizes = tuple(int(length or 0) for length in size)
    said = budget.over(math.prod(sizes), most)
    if said:
        raise UsageError(f"an input of that shape has {said[0]}", said[1])
    return torch.zeros(sizes, dtype=CARRIERS[wrapped.dtype])
