"""Find operations of a program by what people call them: name, value, type, or the module of the PyTorch model.

A name is looked up in this order; the first way that finds something decides:

1. the name of an operation or of one of its values, exactly;
2. ``TYPE``: all operations of a type, and ``TYPE_N`` the one with that number among them, from 0;
3. a module's path (``encoder.layers.3.attention``): all operations inside it, as far as the program records modules.

Operations inside the blocks of ``cond`` and ``while_loop`` are found by :func:`everywhere` only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from fnmatch import fnmatchcase
from itertools import pairwise

from tlkit.mil.program import Function, Operation, Ref, walk
from tlkit.mil.types import DType

_NEAREST = 3
_SUFFIX = re.compile(
    r"_(?:weight|bias|gamma|beta|(?:running_)?mean|running_var|variance|alpha|in_proj_weight|in_proj_bias)(?=_|$)"
)
"""What coremltools adds to a module's name for its parameters, and then for how they are stored."""
_EXPORTED = ("p_", "b_", "c_")
"""How ``torch.export`` begins the names of all parameters, buffers and constants."""
_MODULE_KEYS = ("module", "scope", "torch_module", "module_path", "layer")
"""Text attributes in which a writer records the module that an operation came from."""


def names_of(operation: Operation) -> tuple[str, ...]:
    """Return the names by which an operation can be chosen: its own and those of its values."""
    return (operation.name, *(item.name for item in operation.outputs))


def is_constant(operation: Operation) -> bool:
    """Whether the operation is known before the program runs: a constant or a compressed weight."""
    return operation.type == "const" or operation.type.startswith("constexpr_")


def running(function: Function) -> list[Operation]:
    """Return the operations of the function's own block that run: no constants."""
    return [op for op in function.block.operations if not is_constant(op)]


def everywhere(function: Function) -> Mapping[str, Operation]:
    """Return every operation, nested ones and constants too, by each of its names."""
    return {name: op for op in walk(function.block.operations) for name in names_of(op)}


def find(function: Function, name: str) -> tuple[Operation, ...]:
    """Return the running operations that ``name`` means, in program order; empty where it means none."""
    inside = running(function)
    for op in inside:
        if name in names_of(op):
            return (op,)
    of_type = [op for op in inside if op.type == name]
    kind, _, number = name.rpartition("_")
    if not of_type and number.isascii() and number.isdecimal():
        numbered = [op for op in inside if op.type == kind]
        of_type = numbered[int(number[:9]) :][:1]
    if of_type:
        return tuple(of_type)
    plain = _plain(name)
    return tuple(op for op, module in zip(inside, modules(inside), strict=True) if _inside(_plain(module), plain))


def matching(function: Function, pattern: str) -> tuple[Operation, ...]:
    """Return the running operations of which a name, the type or the module matches ``pattern`` (``*`` and ``?``);
    without those marks, those that :func:`find` finds for it."""
    inside = running(function)
    found = [
        op
        for op, module in zip(inside, modules(inside), strict=True)
        if any(fnmatchcase(text, pattern) for text in (op.type, *names_of(op), module) if text)
    ]
    return tuple(found) or find(function, pattern)


def nearest(function: Function, name: str) -> tuple[str, ...]:
    """Return the names most like ``name`` that :func:`find` finds something for, best first; at most three."""
    import difflib  # only a name that is not found needs it

    inside = running(function)
    known = [text for op in inside for text in (*names_of(op), op.type)] + [text for text in modules(inside) if text]
    unique = list(dict.fromkeys(known))
    parts = [text for text in unique if name and name.lower() in text.lower()]
    close = difflib.get_close_matches(name, unique, _NEAREST, 0.5)
    return tuple(dict.fromkeys([*close, *parts]))[:_NEAREST]


def modules(operations: Sequence[Operation]) -> list[str]:
    """Return, per operation, the path of the PyTorch module that it came from; empty where nothing records it.

    A writer's text attribute says it, or the names of the operation's weights, from which coremltools makes the names
    of constants: ``layers_3_fc_weight_to_fp16`` is of ``layers.3.fc`` (numbers are modules; other underscores stay),
    or a path in the operation's own name (``block1/conv/Conv2D``).
    """
    # What runs is named after operations (``reduce_mean_3``), constants after modules.
    made = {item.name for op in operations for item in op.outputs}
    by_weights = [_by_weights(op, made) for op in operations]
    told = [name for name in by_weights if name]
    if told and all(name.startswith(_EXPORTED) for name in told):  # one module named so says nothing
        by_weights = [name[2:].removeprefix("inner_") for name in by_weights]
    return [_recorded(op) or name or module_of_path(op.name) for op, name in zip(operations, by_weights, strict=True)]


def modules_before(operations: Sequence[Operation], recorded: Sequence[str]) -> list[str]:
    """Return, per operation, the recorded module that what it reads came from, through whatever lies between; its own
    where it has one, empty where nothing before it has.

    Most operations have no weights, and so no record of their module: what they read tells where in the model to look.
    Of several modules the one that ran last counts: it is the nearest.
    """
    found: list[str] = []
    last: dict[str, int] = {}  # by value: the index of the latest operation with a module that it was made from
    for index, (op, module) in enumerate(zip(operations, recorded, strict=True)):
        read = (item.name for items in op.inputs.values() for item in items if isinstance(item, Ref))
        nearest_one = index if module else max((last.get(name, -1) for name in read), default=-1)
        last.update((item.name, nearest_one) for item in op.outputs)
        found.append(recorded[nearest_one] if nearest_one >= 0 else "")
    return found


def module_of_path(name: str) -> str:
    """Return the module that a path in an operation's name tells (``block1/conv/Conv2D``); empty where it has none."""
    return ".".join([part for part in name.split("/") if part][:-1])


def _recorded(operation: Operation) -> str:
    for key in _MODULE_KEYS:
        value = operation.attributes.get(key)
        if value is not None and getattr(value.type, "dtype", None) is DType.STRING and isinstance(value.data, tuple):
            return str(value.data[0]) if value.data else ""
    return ""


def _by_weights(operation: Operation, made: Set[str]) -> str:
    for name in _references(operation):
        found = _SUFFIX.search(name) if "_" in name and name not in made else None
        if found is not None and found.start():
            return _dotted(name[: found.start()])
    return ""


def _references(operation: Operation) -> Iterator[str]:
    for key in ("weight", "bias", "gamma", "beta", "y", "x", "weight_ih", "weight_hh"):
        for argument in operation.inputs.get(key, ()):
            if isinstance(argument, Ref):
                yield argument.name


def _dotted(name: str) -> str:
    if "/" in name:  # a path already, as converters from TensorFlow write them
        return name.replace("/", ".")
    parts = name.removeprefix("inner_").split("_")  # inner: the wrapper in which tlkit traces a model
    marks = ["." if before.isdecimal() or after.isdecimal() else "_" for before, after in pairwise(parts)]
    return "".join(text for pair in zip(parts, [*marks, ""], strict=True) for text in pair)


def _plain(path: str) -> str:
    """Return a path with one mark between its parts: dots, slashes and underscores are not told apart."""
    return re.sub(r"[._/]+", "_", path).strip("_").lower()


def _inside(module: str, wanted: str) -> bool:
    return bool(wanted) and (module == wanted or module.startswith(f"{wanted}_"))
