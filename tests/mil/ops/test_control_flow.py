"""Choices, loops and lists, against the same in Python."""

import numpy as np

from tests.mil.ops.optable import VALUE, case, rows, table

R = np.random.default_rng(4)
A, B = R.normal(size=(3, 3)), R.normal(size=(3, 3))
F32 = np.float32


def i32(values):
    return np.array(values, dtype=np.int32)


def branches(mb, pred, b):
    def first():
        return mb.add(x=b, y=mb.const(val=F32(1))), mb.mul(x=b, y=mb.const(val=F32(2)))

    def second():
        return mb.add(x=b, y=mb.const(val=F32(-1))), mb.mul(x=b, y=mb.const(val=F32(-2)))

    return mb.cond(pred=pred, _true_fn=first, _false_fn=second)


def one_branch(mb, pred, b):
    return mb.cond(pred=pred, _true_fn=lambda: mb.relu(x=b), _false_fn=lambda: mb.identity(x=b))


def power(mb, a, b):
    def body(result, i):
        return mb.mul(x=result, y=a), mb.add(x=i, y=F32(1))

    one, zero = mb.const(val=np.array([1.0], F32)), mb.const(val=np.array([0.0], F32))
    return mb.while_loop(_cond=lambda result, i: mb.less(x=i, y=b), _body=body, loop_vars=(one, zero))[0]


def nested(mb, x, y):
    """while i < j: { while 2i < i + 2: i += 1; i += 2 }"""
    one, two = mb.const(val=np.array([1.0], F32)), mb.const(val=np.array([2.0], F32))

    def inner(i):
        return mb.less(x=mb.mul(x=two, y=i), y=mb.add(x=i, y=two))

    def outer_body(i, j):
        risen = mb.while_loop(_cond=inner, _body=lambda i: mb.add(x=i, y=one), loop_vars=(i,))
        return mb.add(x=risen, y=two), j

    return mb.while_loop(_cond=lambda i, j: mb.less(x=i, y=j), _body=outer_body, loop_vars=(x, y))


def choice_in_a_loop(mb, x):
    """Collatz steps of x down to 1: a cond, captured constants and int arithmetic inside a loop."""

    def body(n, steps):
        halves = mb.equal(x=mb.mod(x=n, y=2), y=0)
        new = mb.cond(
            pred=halves,
            _true_fn=lambda: mb.floor_div(x=n, y=2),
            _false_fn=lambda: mb.add(x=mb.mul(x=n, y=3), y=1),
        )
        return new, mb.add(x=steps, y=1)

    start = mb.squeeze(x=x)
    return mb.while_loop(_cond=lambda n, steps: mb.greater(x=n, y=1), _body=body, loop_vars=(start, 0))[1]


def lists(mb, a, b):
    ls = mb.make_list(init_length=2, elem_shape=(2,))
    first = mb.list_read(ls=ls, index=0)
    ls = mb.list_write(ls=ls, index=0, value=a)
    ls = mb.list_write(ls=ls, index=4, value=b)
    ls = mb.list_scatter(ls=ls, indices=[2, 1], value=np.array([[-1, -2], [-4, -5]], F32))
    return first, mb.list_read(ls=ls, index=0), mb.list_gather(ls=ls, indices=[4, 2, 3]), mb.list_length(ls=ls)


def growing(mb, count, update):
    def body(i, ls):
        return mb.add(x=i, y=1), mb.list_write(ls=ls, index=i, value=mb.mul(x=update, y=mb.cast(x=i, dtype="fp32")))

    ls = mb.make_list(init_length=1, elem_shape=(2,), dtype="fp32")
    limit = mb.squeeze(x=count)
    _, ls = mb.while_loop(_cond=lambda i, ls: mb.less(x=i, y=limit), _body=body, loop_vars=(0, ls))
    return mb.list_gather(ls=ls, indices=mb.range_1d(start=0, end=mb.list_length(ls=ls), step=1))


def kept(mb, a):
    """A list keeps its contents when another is made of it."""
    old = mb.list_write(ls=mb.make_list(init_length=2, elem_shape=(2,)), index=1, value=a)
    new = mb.list_write(ls=old, index=1, value=mb.mul(x=a, y=F32(3)))
    return mb.list_read(ls=old, index=1), mb.list_read(ls=new, index=1)


def outside(mb, a):
    ls = mb.make_list(init_length=2, elem_shape=(2,), dynamic_length=False)
    return mb.list_read(ls=mb.list_write(ls=ls, index=2, value=a), index=0)


def of_named_shape(mb, a):
    ls = mb.make_list(init_length=3, elem_shape=("is_any",))
    ls = mb.list_write(ls=ls, index=1, value=a)
    return mb.list_gather(ls=ls, indices=[0, 1])


PAIR = {"a": np.array([1.0, 3.0], F32), "b": np.array([2.0, 4.0], F32)}

CASES = rows(
    case("select", {"cond": A > 0, "a": A, "b": B}, expected=VALUE),
    case(
        "select",
        {"cond": np.array([[True], [False], [True]]), "a": A[0], "b": B},
        expected=lambda cond, a, b: np.where(cond, a, b),
        label="broadcast",
    ),
    case("select", {"cond": A > 0, "b": B}, parameters={"a": 1.5}, expected=lambda cond, a, b: np.where(cond, a, b)),
    case("select", {"a": i32([1, 2]), "b": i32([3, 4])}, parameters={"cond": False}, expected=i32([3, 4])),
    case(
        "cond",
        {"pred": np.array(True), "b": F32([[2]])},
        program=branches,
        expected=([[3.0]], [[4.0]]),
        label="true",
    ),
    case("cond", {"pred": np.array(False), "b": F32([2])}, program=branches, expected=([1.0], [-4.0]), label="false"),
    case("cond", {"pred": np.array(True), "b": A}, program=one_branch, expected=lambda pred, b: np.maximum(b, 0)),
    case("while_loop", {"a": F32([2]), "b": F32([4])}, program=power, expected=np.array([16.0]), label="power"),
    case("while_loop", {"x": F32([0]), "y": F32([10])}, program=nested, expected=([10.0], [10.0]), label="nested"),
    case("while_loop", {"x": F32([9]), "y": F32([4])}, program=nested, expected=([9.0], [4.0]), label="no turn"),
    case("while_loop", {"x": i32([27])}, program=choice_in_a_loop, expected=i32(111), label="a cond inside"),
    case(
        "make_list",
        PAIR,
        program=lists,
        expected=([0.0, 0], [1.0, 3], [[2.0, 4], [-1, -2], [0, 0]], i32(5)),
        label="lists",
    ),
    case(
        "list_gather",
        {"count": i32([3]), "update": F32([1, 2])},
        program=growing,
        expected=np.array([[0.0, 0], [1, 2], [2, 4]]),
        label="grown in a loop",
    ),
    case("list_read", {"a": PAIR["a"]}, program=kept, expected=([1.0, 3], [3.0, 9]), label="persistent"),
    case("list_write", {"a": PAIR["a"]}, program=outside, fails="outside a list of 2", label="fixed length"),
    case(
        "list_scatter", {"a": PAIR["a"]}, program=of_named_shape, expected=np.array([[0.0, 0], [1, 3]]), label="named"
    ),
)

COVERS = ("list_length",)
"""Ops that the rows above run inside other programs."""

test_op = table(CASES)
