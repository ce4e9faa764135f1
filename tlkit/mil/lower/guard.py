"""Watch a program's first inference, so that no value becomes larger than its file and inputs warrant.

Before torch runs an operation, the size of its result is computed on tensors without data. So an op, or a chain of ops,
that would fill the memory is stopped first. Later inferences at the same shapes have the same sizes and run unwatched,
unless sizes or loop counts depend on values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NoReturn, TypeVar

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from tlkit.errors import ExecutionError, TlkitError
from tlkit.host import budget

_Result = TypeVar("_Result")
_RANK = 64
"""The dimensions that PyTorch's own operations go up to (Core ML's to 5)."""
_ITEM = 4  # bytes of an element, for what may be held at one time


class TooLargeError(ExecutionError):
    """A program would make a value that is too large for the file and inputs that it comes from."""


class Guard(TorchDispatchMode):
    """Raises TooLargeError before a result has more than ``most`` elements (see ``host.budget``).

    ``refused`` is that error without its traceback: what TorchScript raises in its place has no message. ``coming``
    returns the elements of the largest value that the program is known to make, for the advice.
    """

    def __init__(self, most: float, coming: Callable[[], float] = lambda: 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._most, self._coming = most, coming
        self.refused: TooLargeError | None = None
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}
        self._bytes = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would make torch import its compiler, a second or two for nothing

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for given in (*args, *kwargs.values()):
            self._check_rank(func, given)
        if not func.is_view:
            new = not any(
                result.alias_info for result in func._schema.returns
            )  # reshape may hand out what it was given
            room = budget.HELD * self._most - self._bytes / _ITEM if new else self._most
            sizes = [math.prod(shape) for shape in _shapes(func, args, kwargs, min(self._most, max(room, 0)))]
            for size in sizes:
                self._check(size)
            if new and sum(sizes) > room:
                self._check_held(_ITEM * sum(sizes))
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            if func.is_view:  # a view costs nothing, but what is computed from it will
                self._check(tensor.numel())
            self._hold(tensor)
        return result

    def _check_rank(self, func: Any, given: Any) -> None:
        # A list of numbers is a shape, or one number per dimension; torch takes quadratic time before it refuses.
        listed = isinstance(given, list | tuple) and len(given) > _RANK and type(given[0]) is int
        if listed and "split" not in func.__name__:  # the sizes of a split are one per part
            self._refuse(f"it makes a value of {len(given):,} dimensions", "Core ML knows 5: make the model again")

    def _check(self, elements: int) -> None:
        if elements > self._most:
            said = budget.over(elements, self._most, self._coming())
            assert said is not None
            self._refuse(f"it makes a value of {said[0]}", said[1])

    def _hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        # Identifies the storage in C++, whichever Python object stands for it.
        key = storage._cdata
        # Small storages cannot exhaust memory, and tracking them would slow every op down.
        if storage.nbytes() < 1 << 16 or key in self._held:
            return
        # The weak reference lets the data be freed, but keeps another storage from getting the same address.
        self._held[key] = StorageWeakRef(storage), storage.nbytes()
        self._bytes += storage.nbytes()
        if self._bytes > budget.HELD * _ITEM * self._most:
            self._check_held(0)

    def _check_held(self, more: int) -> None:
        """Refuse ``more`` bytes beside what is still held, if that is too much."""
        self._held = {key: item for key, item in self._held.items() if not item[0].expired()}
        self._bytes = sum(size for _, size in self._held.values())
        said = budget.over((self._bytes + more) / _ITEM, budget.HELD * self._most)
        if said:
            self._refuse(f"it holds values of {said[0]}", said[1])

    def _refuse(self, message: str, hint: str) -> NoReturn:
        self.refused = TooLargeError(message, hint)
        raise TooLargeError(message, hint)


def bounded(
    call: Callable[[], _Result],
    most: float,
    *,
    error: type[TlkitError] = ExecutionError,
    where: Callable[[], str] = lambda: "",
    coming: Callable[[], float] = lambda: 0,
) -> _Result:
    """Return what ``call`` returns under a :class:`Guard`; ``error``, beginning with ``where()``, where that refused.

    It does so whatever became of the refusal in ``call``: TorchScript, for one, raises an error without its words.
    """
    guard = Guard(most, coming)
    try:
        with guard, budget.inference():
            result = call()
    except Exception:
        if guard.refused is None:
            raise
    if guard.refused is not None:  # outside the handler: what was made goes with the frames of the other error
        raise error(f"{where()}{guard.refused.message}", guard.refused.hint)
    return result


def _shapes(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], most: float) -> Iterator[Sequence[int]]:
    """Yield the shapes of the results; nothing where they are certainly small, or depend on values.

    No result has more elements than the product of all sizes and numbers that go in, so small products are enough to
    know.
    """
    tensors = list(_tensors([*args, *kwargs.values()]))
    # At least 2 each, so that sizes of 1 or 0 cannot hide a product that the operation makes of them.
    bound = math.prod(max(size, 2) for tensor in tensors for size in tensor.shape)
    for number in _numbers([*args, *kwargs.values()]):
        bound *= max(math.ceil(abs(number)), 1) if math.isfinite(number) else 1
    # 4 leaves room for operations that pad, or return several results.
    if tensors and 4 * bound <= most:
        return
    known = _BOUNDS.get(func.overloadpacket)
    if known is not None and _at_most(known, args) <= most:
        return
    if torch.Tag.pointwise in func.tags:
        yield _broadcast([tensor.shape for tensor in tensors])
        return
    try:
        made = func(*_without_data(args), **{key: _without_data(value) for key, value in _settings(func, kwargs)})
    except Exception:  # its sizes depend on values, or it does not work without data
        if not tensors:  # made of nothing but numbers, such as random ones: their product is the most there can be
            yield (bound,)
        return
    yield from (tensor.shape for tensor in _tensors(made))


def _broadcast(shapes: Sequence[Sequence[int]]) -> list[int]:
    """Return the common shape; where there is none the operation itself says so. torch's own function would import
    sympy and its compiler."""
    sizes = zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1)
    return [0 if 0 in several else max(several) for several in sizes]


def _at_most(known: Callable[..., int], args: Sequence[Any]) -> float:
    try:
        return known(*args)
    except (TypeError, ValueError, IndexError, AttributeError):  # arguments that the operation itself may refuse
        return math.inf


def _convolved(
    x: torch.Tensor, weight: torch.Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, *_: Any
) -> int:
    wide = [0] if isinstance(padding, str) else [padding] if isinstance(padding, int) else list(padding)
    wide = wide * (x.ndim - 2) if len(wide) == 1 else wide
    batch = int(x.shape[0]) if x.ndim == weight.ndim else 1
    # A kernel and stride of 1 make the most positions.
    sizes = [int(size) + 2 * int(pad) for size, pad in zip(x.shape[2:], wide, strict=False)]
    return batch * int(weight.shape[0]) * math.prod(sizes)


def _linear(x: torch.Tensor, weight: torch.Tensor, *_: Any) -> int:
    return math.prod(x.shape[:-1]) * weight.shape[0]


def _matmul(x: torch.Tensor, y: torch.Tensor, *_: Any) -> int:
    # Broadcasting makes at most the product of both sides' batches.
    batches = max(math.prod(x.shape[:-2]), 1) * max(math.prod(y.shape[:-2]), 1)
    if x.shape[:-2] == y.shape[:-2]:
        batches = math.prod(x.shape[:-2])
    # Slices, because a vector lacks one of the two.
    rows, columns = x.shape[-2:-1], y.shape[-1:] if y.ndim > 1 else ()
    return batches * math.prod(rows) * math.prod(columns)


def _first(x: torch.Tensor, *_: Any) -> int:
    return x.numel()


def _reduced(x: torch.Tensor, *_: Any) -> int:
    return math.prod(max(size, 1) for size in x.shape)  # a sum over nothing is 0


def _padded(x: torch.Tensor, pad: Sequence[int], *_: Any) -> int:
    # torch lists the last axis first, each as a pair (low, high).
    wider = [low + high for low, high in zip(pad[::2], pad[1::2], strict=True)]
    fixed = x.shape[: max(x.ndim - len(wider), 0)]
    sizes = zip(reversed(x.shape), wider, strict=False)
    return math.prod(fixed) * math.prod(max(size + more, 0) for size, more in sizes)


def _joined(tensors: Sequence[torch.Tensor], *_: Any) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _asked(size: Sequence[int], *_: Any) -> int:
    return math.prod(size)


_ATEN = torch.ops.aten
_BOUNDS: Mapping[Any, Callable[..., int]] = {
    **dict.fromkeys((_ATEN.conv1d, _ATEN.conv2d, _ATEN.conv3d), _convolved),
    **dict.fromkeys((_ATEN.linear,), _linear),
    **dict.fromkeys((_ATEN.matmul, _ATEN.mm, _ATEN.bmm), _matmul),
    **dict.fromkeys((_ATEN.cat, _ATEN.stack), _joined),
    **dict.fromkeys((_ATEN.full, _ATEN.zeros, _ATEN.ones, _ATEN.empty, _ATEN.rand, _ATEN.randn), _asked),
    **dict.fromkeys((_ATEN.batch_norm, _ATEN.layer_norm, _ATEN.group_norm, _ATEN.instance_norm), _first),
    **dict.fromkeys((_ATEN.softmax, _ATEN.log_softmax, _ATEN.copy_), _first),
    **dict.fromkeys((_ATEN.sum, _ATEN.mean, _ATEN.amax, _ATEN.amin), _reduced),
    **dict.fromkeys((_ATEN.pad, _ATEN.constant_pad_nd), _padded),
}
"""Upper bounds for the results of the most common operations. Asking torch imports sympy and its compiler for some of
them, two seconds, so that is only done where the bound is exceeded."""


def _settings(func: Any, kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in kwargs.items():
        # A generator belongs to a device, and none belongs to meta.
        yield key, None if key == "generator" else value
    if any(argument.name == "device" for argument in func._schema.arguments):
        yield "device", torch.device("meta")


def _without_data(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        # Some operations (view) depend on the strides.
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, list | tuple):
        return type(value)(_without_data(item) for item in value)
    return value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
