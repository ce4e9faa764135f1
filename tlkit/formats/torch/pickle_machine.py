"""A pickle machine with stand-ins for everything that it would create: imports become names, calls records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Global:
    """Something that loading would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Call:
    """Something that loading would call or create, and the state that it would then set."""

    func: Any
    args: Any = ()
    state: Any = None
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Dict:
    """A dictionary, as pairs in order: keys may be unhashable stand-ins."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """A reference to something outside the pickle: in PyTorch's files, a storage."""

    id: Any


class LongBytes(bytes):
    """The start of a long run of bytes, with its place in the pickle; ``len`` is that of the whole run."""

    def __new__(cls, head: bytes, start: int, length: int) -> LongBytes:
        """Keep the first bytes, and where all of them lie."""
        found = super().__new__(cls, bytes(head))
        found.start, found.length = start, length
        return found

    start: int
    length: int

    def __len__(self) -> int:
        return self.length


class LongText(str):
    """The start of a long text, with its place in the pickle; ``encoded`` in UTF-8, else one byte per character."""

    __slots__ = ("encoded", "length", "start")

    def __new__(cls, head: str, start: int, length: int, encoded: bool) -> LongText:
        """Keep the first characters, and where all of them lie."""
        found = super().__new__(cls, head)
        found.start, found.length, found.encoded = start, length, encoded
        return found

    start: int
    length: int
    encoded: bool


class PickleMachine:
    """The stack on which opcodes work; ``imports`` are the names found, ``references`` the persistent ones, in
    order."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.imports: dict[str, None] = {}
        self.references: list[Persistent] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Execute the opcode ``name`` on stand-ins; IndexError, KeyError and the like where the pickle is invalid."""
        method = _STEPS.get(name)
        if method is not None:
            method(self, argument)
        elif name not in _IGNORED:
            self.stack.append(argument)  # every other opcode pushes what it carries

    def _mark(self, _: Any) -> None:
        self._marks.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        found, self.stack = self.stack, self._marks.pop()
        return found

    def _pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        # Where nothing is left above a mark, POP takes the mark.
        else:
            self._since_mark()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _get(self, argument: Any) -> None:
        self.stack.append(self._memo[int(argument)])

    def _put(self, argument: Any) -> None:
        self._memo[int(argument)] = self.stack[-1]

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def _tuple(self, _: Any) -> None:
        found = self._since_mark()
        self.stack.append(tuple(found))

    def _tuple_of(self, count: int) -> None:
        found = tuple(self.stack[-count:])
        if len(found) != count:
            raise IndexError("the stack is empty")
        self.stack[-count:] = [found]

    def _list(self, _: Any) -> None:
        found = self._since_mark()
        self.stack.append(found)

    def _dict(self, _: Any) -> None:
        found = self._since_mark()
        self.stack.append(Dict(_pairs(found)))

    def _append(self, _: Any) -> None:
        value = self.stack.pop()
        _items(self.stack[-1]).append(value)

    def _appends(self, _: Any) -> None:
        found = self._since_mark()
        _items(self.stack[-1]).extend(found)

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1].pairs.append((key, value))

    def _setitems(self, _: Any) -> None:
        found = self._since_mark()
        self.stack[-1].pairs.extend(_pairs(found))

    def _imported(self, argument: str) -> None:
        # pickletools joins module and name by a blank.
        module, _, name = argument.partition(" ")
        self.stack.append(self._global(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a global that is not named by text")
        self.stack.append(self._global(module, name))

    def _extension(self, argument: Any) -> None:
        self.stack.append(self._global("copyreg extension", str(argument)))

    def _global(self, module: str, name: str) -> Global:
        self.imports[f"{module[:200]}.{name[:200]}"] = None
        return Global(module, name)

    def _reduce(self, _: Any) -> None:
        args, func = self.stack.pop(), self.stack.pop()
        self.stack.append(Call(func, args))

    def _newobj_ex(self, _: Any) -> None:
        _, args, func = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(Call(func, args))

    def _inst(self, argument: str) -> None:
        args = tuple(self._since_mark())
        module, _, name = argument.partition(" ")
        self.stack.append(Call(self._global(module, name), args))

    def _obj(self, _: Any) -> None:
        func, *args = self._since_mark()
        self.stack.append(Call(func, tuple(args)))

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Call):
            self.stack[-1].state = state

    def _persistent(self, argument: Any) -> None:
        self.references.append(Persistent(self.stack.pop() if argument is None else argument))
        self.stack.append(self.references[-1])


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else value.items


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


_STEPS: dict[str, Callable[[PickleMachine, Any], None]] = {
    "MARK": PickleMachine._mark,
    "POP": PickleMachine._pop,
    "POP_MARK": PickleMachine._pop_mark,
    "DUP": PickleMachine._dup,
    "TUPLE": PickleMachine._tuple,
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "LIST": PickleMachine._list,
    # Sets are lists here: their items may be stand-ins that have no hash.
    "FROZENSET": PickleMachine._list,
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_SET": lambda machine, _: machine.stack.append([]),
    "DICT": PickleMachine._dict,
    "EMPTY_DICT": lambda machine, _: machine.stack.append(Dict()),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "APPEND": PickleMachine._append,
    "APPENDS": PickleMachine._appends,
    "ADDITEMS": PickleMachine._appends,
    "SETITEM": PickleMachine._setitem,
    "SETITEMS": PickleMachine._setitems,
    "GLOBAL": PickleMachine._imported,
    "STACK_GLOBAL": PickleMachine._stack_global,
    "REDUCE": PickleMachine._reduce,
    "NEWOBJ": PickleMachine._reduce,
    "NEWOBJ_EX": PickleMachine._newobj_ex,
    "INST": PickleMachine._inst,
    "OBJ": PickleMachine._obj,
    "BUILD": PickleMachine._build,
    "PERSID": PickleMachine._persistent,
    "BINPERSID": PickleMachine._persistent,
    "MEMOIZE": PickleMachine._memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), PickleMachine._get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), PickleMachine._put),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), PickleMachine._extension),
}
_IGNORED = {"PROTO", "FRAME", "STOP", "READONLY_BUFFER"}
