"""Copy the program of a ``.pt2`` part by part, keeping only what is known to be data.

Whoever rebuilds the program looks operators up by name, evaluates sizes as expressions, imports the modules that
containers name, and writes the names of values into Python code that it runs. So only what is recognised is passed on:
names are names, operators only compute, expressions are cheap arithmetic, containers are Python's own.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from typing import Any

import torch

from tlkit.core.convert.source.operators import NAMESPACES, computes_only
from tlkit.core.convert.source.pt2_expressions import is_condition, terms
from tlkit.errors import LoadError
from tlkit.formats.files.mapped import parse_json

_PROGRAM = ("graph_module", "opset_version", "range_constraints", "schema_version", "verifiers", "torch_version")
_HIGHER = {"cond", "while_loop", "map_impl", "scan", "associative_scan", "flex_attention", "out_dtype", "strict_mode"}
_HIGHER |= {"wrap_with_set_grad_enabled", "wrap_with_autocast", "auto_functionalized", "auto_functionalized_v2"}
_HIGHER |= {"invoke_subgraph", "tag_activation_checkpoint", "hints_wrapper", "wrap"}
_PYTHON = {"eq", "ne", "le", "ge", "lt", "gt", "neg", "pos", "mul", "add", "sub", "floordiv", "mod", "pow", "truediv"}
_PYTHON |= {"and_", "or_", "getitem"}
_MATH = {"trunc", "ceil", "floor", "sqrt"}
_SYMBOLIC = {"sym_not", "sym_int", "sym_float", "sym_ite", "sym_max", "sym_min", "sym_sqrt", "_sym_sqrt", "sym_sum"}
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_CONTAINERS |= {"torch.fx.immutable_collections.immutable_list", "torch.fx.immutable_collections.immutable_dict"}
_WORD = re.compile(r"[\w.:+-]{0,200}")
_PATH = re.compile(r"[^\x00-\x1f\x7f\"'\\{}]{0,1000}")  # a dotted path in a module; torch writes it between quotes
_SYMBOLS = 100_000  # torch counts up to the number in a symbol's name
_TEXT = 100_000  # characters of one text
_TERMS = 100_000  # of all different sizes together
_KEPT = ("nn_module_stack", "stack_trace")  # of a node's metadata: what messages tell
_TRUST = "convert the module it was made of, or open it as torch does, if you know who made it: --trust"


def clean(program: Any, where: str) -> dict[str, Any]:
    """Return the recognised parts of ``program`` (its parsed JSON); LoadError names what could do more than compute."""
    if not isinstance(program, dict):
        raise LoadError(f"{where}: not an exported program", "save it again with torch.export.save")
    cleaner = _Cleaner(where)
    found: dict[str, Any] = {key: cleaner.copy(key, program[key]) for key in _PROGRAM if key in program}
    guards = program.get("guards_code") or ()
    # Conditions on inputs, which Python runs at each call: one that is not understood is left out, as torch before 2.9
    # left out all.
    found["guards_code"] = [text for text in guards if isinstance(text, str) and is_condition(text)]
    for name in found.get("range_constraints") or ():
        if _number(name) > _SYMBOLS:
            raise cleaner.refused(f"the range of '{name[:40]}'")
    return found


def _number(symbol: str) -> int:
    """Return what torch takes for the number of a symbol, ``u7``; 0 for an expression, which it only looks up."""
    try:
        return int(symbol.lstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    except ValueError:
        return 0


class _Cleaner:
    """Copies JSON, each value by the rule of its key."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._sizes: dict[str, int] = {}

    def refused(self, what: str) -> LoadError:
        return LoadError(f"{self._where} holds {what}, which loading it would run", _TRUST)

    def copy(self, key: str, value: Any) -> Any:
        """Return ``value``, which stands under ``key``."""
        if isinstance(value, dict):
            if key == "metadata":
                return self._metadata(value)
            if key in ("custom_obj", "as_custom_obj", "custom_obj_values") and value:
                raise self.refused("a custom object")
            return {self._checked(str(name), _PATH): self.copy(name, item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.copy(key, item) for item in value]
        if isinstance(value, str):
            _RULES.get(key, _Cleaner._word)(self, value)
        elif isinstance(value, int) and value.bit_length() > 64:
            raise self.refused("a number of many digits")
        return value

    def _metadata(self, value: dict[str, Any]) -> dict[str, str]:
        return {key: value[key] for key in _KEPT if isinstance(value.get(key), str) and len(value[key]) < _TEXT}

    def _checked(self, text: str, pattern: re.Pattern[str]) -> str:
        if not pattern.fullmatch(text):
            raise self.refused(f"the name '{text[:40]}'")
        return text

    def _word(self, text: str) -> None:
        self._checked(text, _WORD)

    def _path(self, text: str) -> None:
        self._checked(text, _PATH)

    def _text(self, text: str) -> None:
        if len(text) > _TEXT:
            raise self.refused("a text of many characters")

    def _name(self, text: str) -> None:
        # `from` is an argument of aten's uniform and random.
        if text and (not text.isascii() or not text.isidentifier() or (keyword.iskeyword(text) and text != "from")):
            raise self.refused(f"the name '{text[:40]}'")

    def _operator(self, text: str) -> None:
        if not _known(text):
            raise self.refused(f"a call of '{text[:80]}'")

    def _expression(self, text: str) -> None:
        if text not in self._sizes:
            count = terms(text)
            if count is None:
                raise self.refused(f"the expression '{text[:40]}'")
            self._sizes[text] = count
            if sum(self._sizes.values()) > _TERMS:
                raise self.refused("too many expressions")

    def _inputs(self, text: str) -> None:
        spec = self._structure(text)
        children = spec.get("children_spec")
        keywords = children[1] if isinstance(children, list) and len(children) == 2 else {}
        for name in _keys(keywords.get("context")) if isinstance(keywords, dict) else ():
            self._name(str(name))  # torch writes them into a function's head

    def _structure(self, text: str) -> dict[str, Any]:
        content = parse_json(text.encode("utf-8", "replace"), self._where)
        # [protocol, structure]: torch writes its pytrees by protocol 1.
        if not (isinstance(content, list) and len(content) == 2 and content[0] == 1 and isinstance(content[1], dict)):
            raise self.refused("a structure of an unknown kind")
        specs = [content[1]]
        while specs:
            spec = specs.pop()
            kind, context, children = (spec.get(key) for key in ("type", "context", "children_spec"))
            if set(spec) - {"type", "context", "children_spec"} or not isinstance(children, list):
                raise self.refused("a structure of an unknown kind")
            if kind is not None and kind not in _CONTAINERS:
                raise self.refused(f"a container of the type '{str(kind)[:80]}'")
            # A leaf has neither keys nor children.
            if kind is None and (context is not None or children):
                raise self.refused("a structure of an unknown kind")
            if any(not isinstance(name, str | int) for name in _keys(context)) or _keys(context) is _STRANGE:
                raise self.refused(f"a container with the keys {str(context)[:80]}")
            if not all(isinstance(child, dict) for child in children):
                raise self.refused("a structure of an unknown kind")
            specs.extend(children)
        first: dict[str, Any] = content[1]
        return first


_STRANGE: list[Any] = [object()]


def _keys(context: Any) -> list[Any]:
    """Return a container's keys, empty for a list; an invalid key for anything else."""
    if context is None:
        return []
    try:
        found = parse_json(str(context).encode("utf-8", "replace"), "")
    except LoadError:
        return _STRANGE
    return [] if found is None else found if isinstance(found, list) else _STRANGE


def _known(target: str) -> bool:
    """Whether ``target`` is an operator that only computes, looked up only as far as needed."""
    parts = target.split(".")
    match parts:
        case ["_operator", name]:
            return name in _PYTHON
        case ["math", name]:
            return name in _MATH
        case ["torch", name]:
            return name in _SYMBOLIC
        case ["torch", "ops", "higher_order", name]:
            return name in _HIGHER
        case ["torch", "ops", namespace, name, overload] if namespace in NAMESPACES:
            found = getattr(getattr(getattr(torch.ops, namespace), name, None), overload, None)
        case _:
            return False
    return isinstance(found, torch._ops.OpOverload) and computes_only(f"{parts[2]}::{parts[3]}", str(found._schema))


_RULES: dict[str, Callable[[_Cleaner, str], Any]] = {
    "target": _Cleaner._operator,
    "as_operator": _Cleaner._operator,
    "expr_str": _Cleaner._expression,
    "in_spec": _Cleaner._inputs,
    "out_spec": _Cleaner._structure,
    "as_string": _Cleaner._text,
    "as_strings": _Cleaner._text,
    **dict.fromkeys(("name", "as_name", "forward_arg_names", "user_input_name"), _Cleaner._name),
    **dict.fromkeys(("fqn", "parameter_name", "buffer_name", "tensor_constant_name"), _Cleaner._path),
}
