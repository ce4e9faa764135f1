"""Sizes and conditions in a ``.pt2``: what torch writes is taken, what is more, or costs too much, is not."""

from __future__ import annotations

import pytest
import sympy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._sympy import functions

from tlkit.core.convert.source.pt2_expressions import is_condition, terms

SYMBOLS = [sympy.Symbol(f"s{index}", positive=True, integer=True) for index in range(4)]
SIZES = st.recursive(
    st.tuples(st.sampled_from(SYMBOLS), st.integers(1, 3)).map(lambda pair: pair[0] ** pair[1])
    | st.integers(-100, 100).map(sympy.Integer),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: pair[0] + pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] * pair[1]),
        st.tuples(inner, st.integers(2, 9)).map(lambda pair: functions.FloorDiv(pair[0], sympy.Integer(pair[1]))),
        st.tuples(inner, st.integers(2, 9)).map(lambda pair: functions.PythonMod(pair[0], sympy.Integer(pair[1]))),
    ),
    max_leaves=5,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # sympy imports parts of itself when used
@given(SIZES)
def test_what_torch_writes_is_taken_and_never_has_more_terms_than_said(size: sympy.Expr) -> None:
    count = terms(sympy.srepr(size))
    assert count is not None
    assert len(sympy.Add.make_args(sympy.expand(size))) <= count


@pytest.mark.parametrize(
    "text",
    [
        "s0",
        "2*s0 + 1",
        "s0//2",
        "Max(1, s0)",
        "Mul(Rational(1, 2), Symbol('s0', positive=True, integer=True))",
        "Float('0.5', precision=53)",
        "-s0",
        "And(Eq(s0, 3), s1 < 4)",
        "Pow(Symbol('s77', integer=True), Integer(2))",
        "int_oo",
    ],
)
def test_usual_sizes(text: str) -> None:
    assert terms(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9**9**9**9",
        "9**9**9",
        "9^9",
        "2**s0",
        "Pow(2, s0)",
        "PowByNatural(Integer(9), Integer(999999))",
        "Mul(" + "Pow(Integer(999), Integer(64)), " * 40 + "Integer(1))",
        "*".join(f"(s{index} + t{index})" for index in range(13)),
        "LShift(1, 99999)",
        "LShift(1, s0)",
        "s0.is_integer",
        "__import__",
        "__import__('os')",
        "Symbol('x y')",
        "Symbol('s0', real=__import__)",
        "Symbol(s0)",
        "Float('9e999999999')",
        "Float('1', precision=999999999)",
        "Integer('9' * 9)",
        "lambda: 1",
        "[1]",
        "s0 if s1 else s2",
        "'text'",
        "factorial(99999999)",
        "Sum(1, (s0, 1, 10**9))",
        "binomial(10**9, 10**8)",
        "s0\n",
        "s0 # x",
        "s0!",
        "(" * 200 + "s0" + ")" * 200 + "!",
        "-" * 5000 + "s0",
        "s0 + " * 10_000 + "s0",
    ],
)
def test_more_than_cheap_arithmetic(text: str) -> None:
    assert terms(text) is None


@given(st.text(alphabet="s0L'[](){}.,+-*/%<>=!&|~^ \\\"#\n_abcsize9", max_size=60))
def test_a_condition_calls_nothing_but_size(text: str) -> None:
    if is_condition(text):
        calls = text.count("(") - text.replace(" ", "").count("size()")
        code = compile(text.strip(), "", "eval")
        assert set(code.co_names) <= {"L", "size"} and calls >= 0


@pytest.mark.parametrize(
    "text",
    ["L['x'].size()[0] <= 16", "not (L['a'][0]['k'].size()[1] % 2 == 1) and 3 < 2 * L['x'].size()[0] - 1"],
)
def test_usual_conditions(text: str) -> None:
    assert is_condition(text)


@pytest.mark.parametrize(
    "text",
    [
        "L['x'].data",
        "L['x'].size(0)[0] > 1",
        "9**9**9 > 1",
        "L['\"'].size()[0] > 1",
        "x.size()[0] > 1",
        "1 << 99",
        "L['x'].size()[L]",
    ],
)
def test_no_conditions(text: str) -> None:
    assert not is_condition(text)
