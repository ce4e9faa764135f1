"""Follow a module's inputs through one run: which index, divide, count or mask, and which choices depend on values.

Importing this module imports torch.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from tlkit.core.convert.capture.jumps import step_of

# Decorators in transformers/utils wrap each forward.
LIBRARIES = ("/torch/", "/tlkit/core/", "/transformers/utils/", "/contextlib.py")
"""Parts of the paths of files that are not the model's own."""
_INT32 = 2**31


@dataclass
class Use:
    """How an input's values are used, as far as they can be followed unchanged or shifted by constants.

    ``low`` and ``high`` are what an integer may be to index all that it indexes and to count all that it counts, None
    where unbounded. ``marks`` says that only 0 and 1 make sense, ``tested`` that it is compared with 0 or 1, ``read``
    that it becomes a Python number.
    """

    low: int | None = None
    high: int | None = None
    index: bool = False
    unique: bool = False
    length: bool = False
    divides: bool = False
    marks: bool = False
    tested: bool = False
    added: bool = False
    floats: bool = False
    read: bool = False
    compared: set[int] = field(default_factory=set)

    def bound(self, low: int, high: int) -> None:
        """Keep to ``low`` to ``high``, both included, as well."""
        self.low = low if self.low is None else max(self.low, low)
        self.high = high if self.high is None else min(self.high, high)


class Trail(NamedTuple):
    """A tensor's way back: its values are those of ``port`` plus ``low`` to ``high``; ``turned``: 1 minus them."""

    port: str
    low: int = 0
    high: int = 0
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """A value of the run that became a Python number, and the line of the user's code where it did."""

    place: str
    value: float


class EnoughError(Exception):
    """Ends a run from which nothing more is to be learned."""


class Flow(TorchDispatchMode):
    """While active, sees every operation of a run on ``inputs`` (tensors by port).

    ``uses`` says how the ports are used, ``choices`` which numbers that depend on input values were read in Python,
    ``random`` which operations draw random numbers, ``wide`` whether an integer exceeded 32 bits, ``steps`` how many
    operations ran. ``jumps`` names the operations that make steps of floating numbers that were computed from inputs
    place by place; with ``keep`` their results are in ``levels``. ``enough``: the number of choices after which the run
    ends by :class:`EnoughError`; 0: none.
    """

    def __init__(self, inputs: Mapping[str, Tensor], enough: int = 0, keep: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uses = {name: Use() for name in inputs}
        self.choices: list[Decision] = []
        self.random: dict[str, None] = {}
        self.wide = False
        self.steps = 0
        self.enough = enough
        self.jumps: dict[str, None] = {}
        self.levels: list[Tensor] | None = [] if keep else None
        # By identity, since == of tensors is elementwise; weakly, so that no intermediate value is kept alive.
        self._trails: Any = WeakIdKeyDictionary()
        self._depends: Any = WeakIdKeyDictionary()
        self._placewise: Any = WeakIdKeyDictionary()
        for name, tensor in inputs.items():
            self._placewise[tensor] = True
            self._trails[tensor] = Trail(name)
            self._depends[tensor] = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would make torch import its compiler, a second or two for nothing

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note what the operation does with the inputs' values, then run it."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = list(_tensors((*args, *kwargs.values())))
        depends = any(tensor in self._depends for tensor in tensors)
        if depends:
            self._note(name.rstrip("_"), args, kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags and _draws(func, args, kwargs):
            self.random[f"{name.rstrip('_')} at {place()}" if place() else name.rstrip("_")] = None
        result = func(*args, **kwargs)
        self.steps += 1
        if depends:
            self._follow(func, name.rstrip("_"), args, kwargs, result)
        return result

    def _trail(self, value: Any) -> Trail | None:
        return self._trails.get(value) if isinstance(value, Tensor) else None

    def _note(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        for index, size, wraps, unique in _indices(name, args, kwargs):
            self._index(index, size, wraps, unique)
        if name in _DIVIDES and len(args) > 1 and (trail := self._trail(args[1])):
            self.uses[trail.port].divides = True
        if name in _COMPARES and len(args) > 1:
            self._compare(name, args[0], args[1])
            self._compare(name, args[1], args[0])
        if name == "_pack_padded_sequence" and (trail := self._trail(args[1])):
            # args[2] is batch_first; without it the tensor is T x B x features.
            self._count(trail, 1, args[0].shape[1 if args[2] else 0])
        if name == "repeat_interleave" and (trail := self._trail(args[-1])):
            # Any count is valid; small ones keep the result small.
            self._count(trail, 0, 4)
        if name == "bincount":
            least = args[2] if len(args) > 2 else kwargs.get("minlength", 0)
            # A value of minlength or more would make the output longer.
            self._index(args[0], max(least, 1), False, False)
        if name in ("logical_not", "bitwise_not", "logical_and", "logical_or", "where") and (
            trail := self._trail(args[0])
        ):
            self.uses[trail.port].marks |= args[0].dtype == torch.bool or name.startswith("logical")
        if name == "masked_fill" and (trail := self._trail(args[1])):
            self.uses[trail.port].marks = True
        if name == "add" or name.startswith("_scaled_dot_product"):
            # Of attention: what comes after query, key and value.
            given = args[1:2] if name == "add" else [*args[3:], kwargs.get("attn_mask")]
            for trail in filter(None, map(self._trail, [*given, *(args[:1] if name == "add" else ())])):
                self.uses[trail.port].added |= trail[1:] == (0, 0, False)

    def _index(self, index: Tensor, size: int, wraps: bool, unique: bool) -> None:
        trail = self._trail(index)
        if trail is None or trail.turned:
            return
        use = self.uses[trail.port]
        if index.dtype == torch.bool:
            use.marks = True
            return
        use.index, use.unique = True, use.unique or unique
        # What indexes is the port's value plus the trail's low to high; both ends have to stay inside.
        use.bound((-size if wraps else 0) - trail.low, size - 1 - trail.high)

    def _count(self, trail: Trail, low: int, high: int) -> None:
        self.uses[trail.port].length = True
        self.uses[trail.port].bound(low - trail.low, high - trail.high)

    def _compare(self, name: str, value: Any, other: Any) -> None:
        trail = self._trail(value)
        if trail is None or trail.turned:
            return
        use = self.uses[trail.port]
        if isinstance(other, Tensor):
            inner = not value.is_floating_point() and not other.is_floating_point() and other.numel() > 1
            if inner and other not in self._depends:  # arange(n) < lengths
                if name in ("eq", "ne"):
                    use.index = True
                    use.bound(int(other.min()) - trail.low, int(other.max()) - trail.high)
                else:
                    self._count(trail, int(other.min()) + 1, int(other.max()) + 1)
        elif float(other).is_integer():
            use.compared.add(int(other) - trail.low)
            use.tested |= other in (0, 1)

    def _follow(self, func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        # What item(), int() and bool() of a tensor end in.
        if name == "_local_scalar_dense":
            self._chose(args[0], float(result))
            return
        if name in _SHAPES:
            return
        self._jumped(func, name, args, kwargs, result)
        trail = self._carried(name, args)
        for tensor in _tensors([result]):
            self._depends[tensor] = True
            if tensor.dtype in (torch.int64, torch.int32) and tensor.numel():
                # A package's integers have 32 bits: values beyond would differ for that reason only.
                self.wide |= int(tensor.max()) >= _INT32 or int(tensor.min()) < -_INT32
            # Where sorted values come from is no value of the input.
            if trail is None or (name == "sort" and tensor is not result[0]):
                continue
            use = self.uses[trail.port]
            if tensor.is_floating_point():
                use.floats = True
            if tensor.dtype == torch.bool:
                use.marks |= name == "_to_copy"
            if tensor is not args[0]:
                self._trails[tensor] = trail
        if func._schema.is_mutable and isinstance(args[0], Tensor):
            self._depends[args[0]] = True
            # A write into a view changes what it is a view of.
            if args[0]._base is not None:
                self._depends[args[0]._base] = True

    def _jumped(self, func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """Note a step of what depends on inputs place by place: no sum, product of matrices or statistic is in it."""
        given = [tensor for tensor in _tensors((*args, *kwargs.values())) if tensor in self._depends]
        if not any(tensor in self._placewise for tensor in given):
            return
        step = step_of(name, args, kwargs, result)
        if step is not None and step[0] in self._placewise:
            self.jumps[name] = None
            if self.levels is not None:
                self.levels.append(step[1].detach().clone())
        if name not in _KEEPS and name not in _PARTS and torch.Tag.pointwise not in func.tags:
            return
        if all(tensor in self._placewise for tensor in given):
            for tensor in _tensors([result]):
                self._placewise[tensor] = True

    def _chose(self, tensor: Tensor, value: float) -> None:
        self.choices.append(Decision(place(), value))
        if trail := self._trail(tensor):
            self.uses[trail.port].read = True
        if len(self.choices) == self.enough:
            raise EnoughError

    def _carried(self, name: str, args: Sequence[Any]) -> Trail | None:
        """Return the trail of an operation's result: that of the operand whose values it hands on."""
        if name in _KEEPS:
            return next(filter(None, map(self._trail, _tensors(args))), None)
        if name == "where":
            return next(filter(None, map(self._trail, args[1:])), None)
        if name in ("index", "index_select", "gather", "take", "masked_fill"):
            return self._trail(args[0])
        if name not in ("add", "sub", "rsub", "mul", "remainder", "div", "floor_divide"):
            return None
        trails = [self._trail(value) for value in args[:2]]
        trail = next(filter(None, trails), None)
        if trail is None or all(trails):
            return None
        use, other = self.uses[trail.port], args[1] if trails[0] else args[0]
        if name == "mul":
            # (1 - mask) * -1e4 is the usual way to make an additive mask of a mask.
            large = abs(float(other)) >= 1e3 if isinstance(other, int | float) else _large(other)
            use.marks |= trail.turned and large
            use.floats |= isinstance(other, float) or (isinstance(other, Tensor) and other.is_floating_point())
            return None
        if name == "rsub" or (name == "sub" and trails[0] is None):
            one = other == 1 if isinstance(other, int | float) else bool((other == 1).all())
            return trail._replace(turned=True) if one and trail[1:] == (0, 0, False) else None
        if name not in ("add", "sub") or trail.turned:
            return None
        return _shifted(trail, other, -1 if name == "sub" else 1)


# Ops that only move or copy values.
_KEEPS = {
    *("_to_copy", "view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "expand", "permute"),
    *("transpose", "t", "clone", "alias", "detach", "slice", "select", "narrow", "repeat", "flatten", "cat", "stack"),
    *("split", "split_with_sizes", "unbind", "chunk", "flip", "roll", "sort", "contiguous", "lift_fresh", "copy"),
    "lift_fresh_copy",
}
# Ops that keep each number in a place of its own, besides those.
_PARTS = frozenset(["masked_fill", "constant_pad_nd", "as_strided"])
_DIVIDES = frozenset(["div", "floor_divide", "remainder", "fmod"])
_COMPARES = frozenset(["eq", "ne", "lt", "le", "gt", "ge"])
# Ops that take only the shape of their operand.
_SHAPES = {
    *("ones_like", "zeros_like", "empty_like", "full_like", "rand_like", "randn_like"),
    *("new_ones", "new_zeros", "new_full", "new_empty"),
}


def _draws(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation that can draw random numbers does: attention only does so to drop a share."""
    place = next((index for index, item in enumerate(func._schema.arguments) if item.name == "dropout_p"), None)
    if place is None:
        return True
    return bool(args[place] if place < len(args) else kwargs.get("dropout_p", 0))


def _large(other: Tensor) -> bool:
    return other.is_floating_point() and other.numel() > 0 and bool((other.abs() >= 1e3).all())


def _shifted(trail: Trail, other: Any, sign: int) -> Trail | None:
    """Return the trail of the values plus (``sign`` -1: minus) a number, or a constant tensor of whole numbers."""
    if isinstance(other, Tensor):
        if other.is_floating_point() or other.dtype == torch.bool or not other.numel():
            return None
        ends = sorted((sign * int(other.min()), sign * int(other.max())))
    elif isinstance(other, int):
        ends = [sign * other] * 2
    else:
        return None
    return trail._replace(low=trail.low + ends[0], high=trail.high + ends[1])


def _indices(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[Tensor, int, bool, bool]]:
    """Yield each operand that indexes: it, the axis's size, whether negatives count from the end, whether twice the
    same would be two writes to one place."""
    if name in ("embedding", "embedding_bag", "_embedding_bag"):
        yield args[1], args[0].shape[0], False, False
    elif name in ("index", "index_put", "_unsafe_index", "_index_put_impl"):
        unique = "put" in name and not (args[3] if len(args) > 3 else kwargs.get("accumulate", False))
        places = args[1] if len(args) > 1 else ()
        for axis, index in enumerate(places):
            if index is not None:
                yield index, args[0].shape[axis], True, unique
    elif name in (
        "index_select",
        "gather",
        "scatter",
        "scatter_add",
        "scatter_reduce",
        "index_copy",
        "index_add",
        "index_reduce",
    ):
        yield args[2], args[0].shape[args[1]] if args[0].ndim else 1, False, name in ("scatter", "index_copy")
    elif name == "index_fill":
        yield args[2], args[0].shape[args[1]], True, False
    elif name == "take":
        yield args[1], args[0].numel(), True, False


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def place() -> str:
    """Return the innermost running line outside libraries, as ``net.py:12``; empty if there is none."""
    for frame in reversed(traceback.extract_stack()):
        path = frame.filename.replace("\\", "/")
        if not any(part in path for part in LIBRARIES) and not path.startswith("<"):
            return f"{Path(path).name}:{frame.lineno}"
    return ""
