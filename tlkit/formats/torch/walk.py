"""Find the tensors in what a pickle would create, each by its dotted path, wherever they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tlkit.errors import LoadError, one_line
from tlkit.formats.torch.objects import Absorbed, Found, storage_key
from tlkit.formats.torch.pickle_machine import Call, Dict, Global, Persistent
from tlkit.formats.torch.recognise import recognise

_NESTED = 64
_PATHS = 100_000  # tensors in all, those counted again that shared containers lead to again
_PARTS = ("_parameters", "_buffers", "_modules")

Path = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Walked:
    """All tensors by path, in order.

    ``once``: shared containers were searched only at their first place. ``absorbed`` are parts of tensors that are not
    tensors of the model.
    """

    tensors: tuple[tuple[Path, Found], ...]
    once: bool
    absorbed: tuple[Absorbed, ...] = ()


def find_tensors(root: Any, where: str) -> Walked:
    """Return every tensor in ``root``; those of a module have the paths of its ``state_dict``.

    A shared object has one path per place, unless there are more than any model has. LoadError for a malformed tensor.
    """
    return _Walk(root, where).all()


class _Walk:
    """One search: first each container's tensors are counted, then they are visited by path."""

    def __init__(self, root: Any, where: str) -> None:
        self._root, self._where = root, where
        self._counts: dict[int, int] = {}
        self._known: dict[int, tuple[Found | None, Any]] = {}  # what each object is; keeps alive what was made for it
        self._count()

    def all(self) -> Walked:
        """Return the tensors by path."""
        once = self._counts.get(id(self._root), 0) > _PATHS
        seen: set[int] = set()
        found: list[tuple[Path, Found]] = []
        stack: list[tuple[Path, Any, frozenset[int]]] = [((), self._root, frozenset())]
        while stack:
            path, value, above = stack.pop()
            tensor, _ = self._what(value, path)
            if tensor is not None:
                found.append((path, tensor))
            if not self._counts.get(id(value)) or id(value) in above or (once and id(value) in seen):
                continue
            seen.add(id(value))
            inner = [(path if key == () else (*path, key), item) for key, item in self._inside(value, path)]
            # Reversed, since a stack gives the last one first.
            stack.extend((place, item, above | {id(value)}) for place, item in reversed(inner))
        absorbed = tuple(more for _, more in self._known.values() if isinstance(more, Absorbed))
        return Walked(tuple(found), once, absorbed)

    def _what(self, value: Any, path: Path) -> tuple[Found | None, Any]:
        if not isinstance(value, Call | Persistent):
            return None, None
        if id(value) not in self._known:
            self._known[id(value)] = recognise(value, spot(path, self._where))
        return self._known[id(value)]

    def _inside(self, value: Any, path: Path) -> list[tuple[Any, Any]]:
        """Return a value's children that may lead to tensors; for a tensor, what its subclass adds."""
        tensor, more = self._what(value, path)
        hanging = more if isinstance(more, list) else [more]
        parts = [((), item) for item in hanging] if tensor is not None else children(value)
        return [(key, item) for key, item in parts if is_container(item) or isinstance(item, Persistent)]

    def _count(self) -> None:
        """Count the tensors reachable from each container; cycles are not followed again."""
        stack: list[tuple[Any, Path, list[Any] | None]] = [(self._root, (), None)]
        while stack:
            value, path, inner = stack.pop()
            # It comes a second time, and now its children are counted.
            if inner is not None:
                self._counts[id(value)] += sum(self._counts.get(id(item), 0) for item in inner)
            elif id(value) not in self._counts:
                parts = self._inside(value, path)
                if len(path) > _NESTED and parts:
                    raise LoadError(f"{self._where}: objects nested over {_NESTED} deep", "no model is")
                self._counts[id(value)] = int(self._what(value, path)[0] is not None)
                stack.append((value, path, [item for _, item in parts]))
                stack.extend((item, (*path, key), None) for key, item in parts)


def spot(path: Path, where: str) -> str:
    """Return the name of the place ``path`` in the file ``where``, for errors."""
    return f"{where}: '{one_line(dotted(path)[:100])}'"


def dotted(path: Path) -> str:
    """Return a path as a dotted name; keys that are not text as their repr."""
    return ".".join(key if isinstance(key, str) else _key(key) for key in path if key != ())


def _key(key: Any) -> str:
    if isinstance(key, tuple):
        inside = ", ".join(repr(item) if isinstance(item, str) else _key(item) for item in key)
        return f"({inside}{',' if len(key) == 1 else ''})"
    if isinstance(key, int | float | bytes | bool) or key is None:
        return repr(key)[:100]
    # Bytes, as protocols up to 2 write them.
    if isinstance(key, Call) and str(key.func) == "_codecs.encode" and isinstance(key.args, tuple) and key.args:
        return repr(str(key.args[0]).encode("latin-1", "replace"))[:100]
    if isinstance(key, Call) and isinstance(key.func, Global) and isinstance(key.args, tuple):
        inside = ", ".join(repr(item)[:40] for item in key.args if isinstance(item, str | int | float))
        return f"{key.func}({inside})"[:100]  # a member of an enumeration
    return str(key)[:100] if isinstance(key, Global) else type(key).__name__


def storages_in(value: Any) -> Iterator[str]:
    """Yield the key of every storage that ``value`` refers to, at any depth, each once."""
    seen: set[int] = set()
    keys: set[str] = set()
    stack = [value]
    while stack:
        item = stack.pop()
        key = storage_key(item)
        if key is not None and key not in keys:
            keys.add(key)
            yield key
        if is_container(item) and id(item) not in seen:
            seen.add(id(item))
            stack.extend(inner for _, inner in children(item))


def is_container(value: Any) -> bool:
    """Whether ``value`` can hold other values."""
    return isinstance(value, Call | Dict | list | tuple)


def children(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield a container's children by key; ``()`` is the key of a child that adds nothing to the path.

    Other values, which may be all that a file holds, have no children.
    """
    if isinstance(value, list | tuple):
        yield from enumerate(value)
    elif isinstance(value, Dict):
        yield from _last(value.pairs)
    elif isinstance(value, Call):
        state = _attributes(value.state)
        if any(part in state for part in ("_parameters", "_modules")):
            for part in _PARTS:
                yield from _last(getattr(state.get(part), "pairs", ()))
            yield from ((key, item) for key, item in state.items() if key not in _PARTS)
        else:
            yield from _arguments(value)
            # What a subclass of dict or list holds.
            yield from _last(value.pairs)
            yield from enumerate(value.items)
            # The versions of a state_dict's modules: no tensors.
            yield from ((key, item) for key, item in state.items() if key != "_metadata")
            if value.state is not None and not state:
                yield (), value.state


def _arguments(value: Call) -> Iterator[tuple[Any, Any]]:
    """Yield a call's arguments; the pairs given to Python 2's OrderedDict are its items."""
    args = value.args if isinstance(value.args, tuple | list) else ()
    pairs = args[0] if args and str(value.func).lower().endswith("dict") and isinstance(args[0], list | tuple) else ()
    if pairs and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        yield from _last([tuple(pair) for pair in pairs])
    else:
        yield from enumerate(args)


def _attributes(state: Any) -> dict[Any, Any]:
    """Return an object's state: a dictionary, or a pair of them (the second for ``__slots__``)."""
    if isinstance(state, tuple) and len(state) == 2 and all(part is None or isinstance(part, Dict) for part in state):
        return {key: item for part in state if part is not None for key, item in _last(part.pairs)}
    return dict(_last(state.pairs)) if isinstance(state, Dict) else {}


def _last(pairs: Any) -> list[tuple[Any, Any]]:
    """Return pairs as a dictionary would keep them: a repeated key has its last value, at its first place."""
    found: dict[tuple[str, Any], tuple[Any, Any]] = {}
    for index, (key, item) in enumerate(pairs):
        mark = ("key", key) if isinstance(key, str | int | float | bytes) or key is None else ("place", index)
        found[mark] = (key if _hashable(key) else str(key), item)
    return list(found.values())


def _hashable(key: Any) -> bool:
    """Whether a dictionary could have the key: a damaged pickle names lists."""
    try:
        hash(key)
    except TypeError:
        return False
    return True
