"""Check that sizes in a ``.pt2``, which sympy evaluates, and conditions, which Python runs, are cheap arithmetic.

An expression's cost is bounded before it is evaluated: the digits of its numbers (``9**9**9``), and its terms once
products are multiplied out, as torch's simplification does.
"""

from __future__ import annotations

import ast
import math
import re
from functools import lru_cache

_LONGEST = 20_000  # characters
_DEEPEST = 100
_TERMS = 4096
_BITS = 4096
_POWER = 64
_PLAIN = re.compile(r"[A-Za-z0-9_ ()*+\-/%,.=<>!&|~']*")  # no ^, which sympy takes for a power, no #, no line's end
_SYMBOL = re.compile(r"[a-zA-Z]{1,8}[0-9]{0,5}|int_oo|[A-Z]\w{0,40}")
_ASSUMPTIONS = {"positive", "nonnegative", "integer", "real", "finite", "negative", "nonzero", "extended_real"}
_SUMS = {"Add", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan"}
_SUMS |= {"StrictGreaterThan", "GreaterThan", "And", "Or", "Not"}
_PRODUCTS = {"Mul", "Rational"}
_POWERS = {"Pow", "PowByNatural", "FloatPow"}
_SHIFTS = {"LShift", "RShift"}
_FUNCTIONS = {"Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv", "IntTrueDiv", "FloatTrueDiv", "Abs"}
_FUNCTIONS |= {"ToFloat", "TruncToInt", "TruncToFloat", "CeilToInt", "FloorToInt", "RoundToInt", "RoundDecimal"}
_FUNCTIONS |= {"Where", "Identity", "ModularIndexing", "IsNonOverlappingAndDenseIndicator", "floor", "ceiling"}
_NUMBERS = {"Integer", "Float"}
_CONSTANTS = {"Infinity", "NegativeInfinity", "IntInfinity", "NegativeIntInfinity", "BooleanTrue", "BooleanFalse"}
Cost = tuple[int, int]
"""Terms after multiplying out, and bits of the largest number."""


class _TooMuch(Exception):
    """An expression that is more than arithmetic, or more expensive than any real size."""


@lru_cache(maxsize=10_000)
def terms(text: str) -> int | None:
    """Return how many terms the size ``text`` has when multiplied out; None if it is more than cheap arithmetic."""
    if len(text) > _LONGEST or not _PLAIN.fullmatch(text):
        return None
    try:
        return _cost(ast.parse(text.strip(), mode="eval").body, 0)[0]
    except (SyntaxError, ValueError, MemoryError, RecursionError, _TooMuch):
        return None


@lru_cache(maxsize=10_000)
def is_condition(text: str) -> bool:
    """Whether ``text`` only compares sizes of the inputs, ``L['x'].size()[0] <= 16``, in Python's words."""
    if len(text) > _LONGEST or "\n" in text or "\\" in text:
        return False
    try:
        _condition(ast.parse(text.strip(), mode="eval").body, 0)
    except (SyntaxError, ValueError, MemoryError, RecursionError, _TooMuch):
        return False
    return True


def _cost(node: ast.expr, depth: int) -> Cost:
    if depth > _DEEPEST:
        raise _TooMuch
    match node:
        case ast.Constant(value=bool()):
            # Before the integers: True is one.
            cost = (1, 1)
        case ast.Constant(value=int(number)):
            cost = (1, number.bit_length())
        case ast.Constant(value=float()):
            cost = (1, 64)
        case ast.Name(id=name) if _SYMBOL.fullmatch(name):
            cost = (1, 64)
        case ast.UnaryOp(operand=operand):
            cost = _cost(operand, depth + 1)
        case ast.BoolOp(values=values):
            cost = _sum([_cost(value, depth + 1) for value in values])
        case ast.Compare(left=left, comparators=others):
            cost = _sum([_cost(value, depth + 1) for value in (left, *others)])
        case ast.BinOp(left=left, op=operator, right=right):
            cost = _binary(left, operator, right, depth)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            cost = _call(name, args, keywords, depth)
        case _:
            raise _TooMuch
    if cost[0] > _TERMS or cost[1] > _BITS:
        raise _TooMuch
    return cost


def _sum(costs: list[Cost]) -> Cost:
    # n numbers of b bits add up to b + log2(n) bits.
    return sum(cost[0] for cost in costs), max((cost[1] for cost in costs), default=0) + len(costs).bit_length()


def _product(costs: list[Cost]) -> Cost:
    return math.prod(cost[0] for cost in costs), sum(cost[1] for cost in costs)


def _binary(left: ast.expr, operator: ast.operator, right: ast.expr, depth: int) -> Cost:
    if isinstance(operator, ast.Pow):
        return _power(left, right, depth)
    costs = [_cost(left, depth + 1), _cost(right, depth + 1)]
    if isinstance(operator, ast.Mult):
        return _product(costs)
    if isinstance(operator, ast.Add | ast.Sub | ast.BitAnd | ast.BitOr):
        return _sum(costs)
    if isinstance(operator, ast.Div | ast.FloorDiv | ast.Mod):
        return costs[0][0], max(costs[0][1], costs[1][1])
    raise _TooMuch


def _power(base: ast.expr, exponent: ast.expr, depth: int) -> Cost:
    found = _cost(base, depth + 1)
    size = abs(_number(exponent))
    if size > _POWER:
        raise _TooMuch
    # As many terms as multiplying it out could give.
    return found[0] ** size, found[1] * size


def _number(node: ast.expr) -> int:
    """Return the whole number that ``node`` is, written out or as ``Integer(2)``."""
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.Call(func=ast.Name(id="Integer"), args=[argument], keywords=[]):
            return _number(argument)
    raise _TooMuch


def _call(name: str, args: list[ast.expr], keywords: list[ast.keyword], depth: int) -> Cost:
    if name == "Symbol":
        return _symbol(args, keywords)
    if name == "Float":
        return _float(args, keywords)
    if keywords:
        raise _TooMuch
    if name in _CONSTANTS and not args:
        return 1, 1
    if name == "Integer":
        # Over the limit, which `_cost` refuses.
        return 1, sum(map(_number, args)).bit_length() if len(args) == 1 else _BITS + 1
    if name in _POWERS and len(args) == 2:
        return _power(args[0], args[1], depth)
    if name in _SHIFTS and len(args) == 2:
        shift = _number(args[1])
        if not 0 <= shift < 64:
            raise _TooMuch
        found = _cost(args[0], depth + 1)
        return found[0], found[1] + shift
    costs = [_cost(argument, depth + 1) for argument in args]
    if name in _SUMS:
        return _sum(costs)
    if name in _PRODUCTS:
        return _product(costs)
    if name in _FUNCTIONS and costs:
        # What a function holds is not multiplied out: it is one term.
        return 1, max(cost[1] for cost in costs)
    raise _TooMuch


def _symbol(args: list[ast.expr], keywords: list[ast.keyword]) -> Cost:
    match args:
        case [ast.Constant(value=str(name))] if _SYMBOL.fullmatch(name):
            pass
        case _:
            raise _TooMuch
    for keyword in keywords:
        if keyword.arg not in _ASSUMPTIONS or not isinstance(keyword.value, ast.Constant):
            raise _TooMuch
        if not isinstance(keyword.value.value, bool):
            raise _TooMuch
    return 1, 64


def _float(args: list[ast.expr], keywords: list[ast.keyword]) -> Cost:
    match args:
        case [ast.Constant(value=str(text))] if re.fullmatch(r"-?\d{1,20}(\.\d{0,40})?(e[+-]?\d{1,3})?", text):
            pass
        case [ast.Constant(value=float())]:
            pass
        case _:
            raise _TooMuch
    for keyword in keywords:
        if keyword.arg not in ("precision", "dps") or not 0 < _number(keyword.value) < 256:
            raise _TooMuch
    return 1, 64


def _condition(node: ast.expr, depth: int) -> None:
    if depth > _DEEPEST:
        raise _TooMuch
    match node:
        case ast.Constant(value=int(number)) if number.bit_length() < 64:
            return
        case ast.BoolOp(values=parts):
            inner = list(parts)
        case ast.Compare(left=left, comparators=others):
            inner = [left, *others]
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            inner = [operand]
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv() | ast.Mod(), right=right):
            inner = [left, right]
        case ast.Subscript(value=ast.Call(func=ast.Attribute(value=port, attr="size"), args=[], keywords=[])):
            if not (isinstance(node.slice, ast.Constant) and type(node.slice.value) is int and _is_port(port)):
                raise _TooMuch
            return
        case _:
            raise _TooMuch
    for part in inner:
        _condition(part, depth + 1)


def _is_port(node: ast.expr) -> bool:
    """Whether ``node`` is an input: ``L['x']``, ``L['x'][0]``, ``L['x']['key']``."""
    while isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        key = node.slice.value
        if not (type(key) is int or (isinstance(key, str) and key.isidentifier())):
            return False
        node = node.value
        if isinstance(node, ast.Name):
            # torch's name for the inputs of the exported function.
            return node.id == "L"
    return False
