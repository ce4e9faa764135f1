"""Branches and loops. Their networks write names that are seen outside; MIL's blocks yield values instead.

A loop becomes ``while_loop`` over all names that a turn may change, a branch ``cond``. A break or continue sets flags,
and what stands after it runs where they are not set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.arithmetic import binary
from tlkit.frontends.network.kit.blob import Blob, Shape
from tlkit.frontends.network.kit.graph import Graph, scalar
from tlkit.frontends.network.kit.weights import zeros
from tlkit.mil.program import Block, NamedType, TensorType
from tlkit.mil.types import DType

KINDS = ("branch", "loop", "loopBreak", "loopContinue")
_STOP, _BREAK = "\0stop", "\0break"  # no blob can have these names: a file's have no such character
_NEAR_0 = 1e-6  # NeuralNetwork.proto: a condition holds if its absolute value is above this
_PASSES = 8  # each can only open lengths and add names, so that sound loops settle long before
Scope = dict[str, Blob]
Run = Callable[[Graph, Scope], None]


class Layers(Protocol):
    """What makes layers: see :class:`~tlkit.frontends.network.build.Builder`."""

    def network(self, g: Graph, network: Any, scope: Scope) -> None:
        """Make the layers of a network."""

    def read_elsewhere(self, name: str, inside: Counter[str]) -> bool:
        """Whether ``name`` is read outside."""


def inner(message: Any) -> list[Any]:
    """Return the networks inside a layer."""
    kind = message.WhichOneof("layer")
    if kind == "branch":
        return [message.branch.ifBranch, message.branch.elseBranch]
    return [message.loop.conditionNetwork, message.loop.bodyNetwork] if kind == "loop" else []


def reads(network: Any) -> Counter[str]:
    """Return how often each name is read in a network, those inside it among it."""
    found: Counter[str] = Counter()
    stack = [network]
    while stack:
        for message in stack.pop().layers:
            found.update(message.input)
            stack += inner(message)
            if message.WhichOneof("layer") == "loop":
                found[message.loop.conditionVar] += 1
    return found


def make(layers: Layers, g: Graph, message: Any, scope: Scope) -> bool:
    """Make a branch, a loop, a break or a continue; return whether what comes after it may be skipped."""
    kind = message.WhichOneof("layer")
    g.title = message.name or kind
    if kind == "branch":
        _branch(layers, g, message, scope)
        # A branch without a break leaves the flag at its known 0.
        return _STOP in scope and g.known(scope[_STOP]) != (0.0,)
    if kind == "loop":
        _Loop(layers, message).make(g, scope)
        return False
    if _STOP not in scope:
        raise LoadError("it is in no loop", "the network is damaged")
    scope[_STOP] = _flag(g, 1)
    if kind == "loopBreak":
        scope[_BREAK] = _flag(g, 1)
    return True


def unless_stopped(layers: Layers, g: Graph, scope: Scope, rest: Run) -> None:
    """Make what stands after a break: nothing if it is always reached, else a branch."""
    known = g.known(scope[_STOP])
    if known == (1.0,):
        return
    stopped = binary(g, "equal", scope[_STOP], 0.0, out=DType.BOOL)
    choose(layers, g, scope, stopped, rest, lambda graph, names: None, Counter())


def _flag(g: Graph, value: int) -> Blob:
    # An f32 like every value in a scope, so that blocks can yield it.
    return g.know(g.tensor(scalar([float(value)]), "flag"), (float(value),))


def _truth(g: Graph, x: Blob) -> Blob:
    """Return whether a value of one element is not near 0."""
    single = g.reshape(x, (1,))
    return g.op("greater", (1,), out=DType.BOOL, x=g.op("abs", (1,), x=single), y=_NEAR_0)


def _scalar(g: Graph, x: Blob) -> Blob:
    return g.op("squeeze", (), out=DType.BOOL, x=x, axes=[0])


def _branch(layers: Layers, g: Graph, message: Any, scope: Scope) -> None:
    if not message.input or message.input[0] not in scope:
        raise LoadError("it has no input", "the network is damaged")
    networks = inner(message)
    inside = sum(map(reads, networks), Counter())
    one, two = (partial(_inside, layers, network) for network in networks)
    choose(layers, g, scope, _truth(g, scope[message.input[0]]), one, two, inside)


def _inside(layers: Layers, network: Any, g: Graph, scope: Scope) -> None:
    layers.network(g, network, scope)


def choose(layers: Layers, g: Graph, scope: Scope, truth: Blob, one: Run, two: Run, inside: Counter[str]) -> None:
    """Make a ``cond`` of two runs, and put what either changes into ``scope``, but for what only they read."""
    graphs, scopes, title = [], [], g.title
    for run in (one, two):
        with g.inner() as graph:
            names = dict(scope)
            run(graph, names)
        graphs.append(graph)
        scopes.append(names)
    g.title = title
    changed = [
        name
        for name in dict.fromkeys((*scopes[0], *scopes[1]))
        if any(names.get(name) != scope.get(name) for names in scopes)
        and (name.startswith("\0") or name in scope or layers.read_elsewhere(name, inside))
    ]
    if not changed:
        return
    yielded = [
        [_whole(graph, names.get(name)) for name in changed] for graph, names in zip(graphs, scopes, strict=True)
    ]
    shapes = [_merged(a, b) for a, b in zip(*yielded, strict=True)]
    blocks = []
    for graph, blobs in zip(graphs, yielded, strict=True):
        outputs = [blob.name if blob else _absent(graph, shape) for blob, shape in zip(blobs, shapes, strict=True)]
        blocks.append(Block((), tuple(outputs), tuple(graph.operations)))
    made = g.emit("cond", [(shape, DType.FP32) for shape in shapes], tuple(blocks), pred=_scalar(g, truth))
    for name, value, shape in zip(changed, made, shapes, strict=True):
        scope[name] = Blob(value, shape)


def _whole(graph: Graph, blob: Blob | None) -> Blob | None:
    return graph.lay(blob) if blob else None


def _absent(graph: Graph, shape: Shape) -> str:
    """Return the name of zeros: what a name stands for where nothing was written to it."""
    return graph.tensor(zeros([1 if d is None else d for d in shape]), "absent").name


def _merged(one: Blob | None, two: Blob | None) -> Shape:
    if one is None or two is None:
        found = one or two
        assert found is not None
        return found.shape
    if len(one.shape) != len(two.shape):
        raise LoadError(
            f"one value of shape {one.shape} or {two.shape}", "tlkit needs the rank of each value to run it"
        )
    return tuple(a if a == b else None for a, b in zip(one.shape, two.shape, strict=True))


class _Loop:
    """A loop, as ``while_loop`` over a counter, whether it goes on, and the names that a turn changes."""

    def __init__(self, layers: Layers, message: Any) -> None:
        self.layers, self.message, self.p = layers, message, message.loop
        self.inside = sum(map(reads, inner(message)), Counter())
        self.inside[self.p.conditionVar] += 1

    def make(self, g: Graph, scope: Scope) -> None:
        """Make it; ``scope`` has the names as they are after the loop."""
        title = g.title
        limit = self._limit(g, scope)
        going = self._before(g, scope, limit)
        names, initial = self._settled(g, scope, limit)
        shapes: list[tuple[Shape, DType]] = [((1,), DType.FP32), ((1,), DType.BOOL)]
        shapes += [(blob.shape, DType.FP32) for blob in initial.values()]
        with g.inner() as graph:
            inputs, inside = self._inputs(graph, scope, initial)
            results = self._turn(graph, inside, Blob(inputs[0].name, (1,)), limit, names)
            body = Block(tuple(inputs), tuple(results[name].name for name in results), tuple(graph.operations))
        # MIL's test block yields only a bool, but a condition's network may write names: it runs at the body's end.
        with g.inner() as graph:
            tested, _ = self._inputs(graph, scope, initial)
            test = Block(tuple(tested), (tested[1].name,), ())
        g.title = title
        start = [
            g.tensor(scalar([0.0]), "count"),
            going,
            *(self._start(g, scope, name, initial[name]) for name in names),
        ]
        made = g.emit("while_loop", shapes, (test, body), loop_vars=start)
        for name, value in zip(names, made[2:], strict=True):
            scope[name] = Blob(value, initial[name].shape)

    def _limit(self, g: Graph, scope: Scope) -> Blob | float | None:
        """Return how often the loop may turn: what its input says, else its own number, None for as long as it will."""
        if self.message.input:
            if self.message.input[0] not in scope:
                raise LoadError(f"it uses '{self.message.input[0]}' before anything makes it", "the network is damaged")
            return g.reshape(scope[self.message.input[0]], (1,))
        return float(self.p.maxLoopIterations) if self.p.maxLoopIterations else None

    def _before(self, g: Graph, scope: Scope, limit: Blob | float | None) -> Blob:
        """Return whether there is a first turn."""
        first = binary(
            g, "less", g.tensor(scalar([0.0]), "count"), float("inf") if limit is None else limit, out=DType.BOOL
        )
        return self._condition(g, scope, first)

    def _condition(self, g: Graph, scope: Scope, going: Blob) -> Blob:
        """Run the condition's network; return whether that, too, is for another turn."""
        if not self.p.conditionVar:
            return going
        self.layers.network(g, self.p.conditionNetwork, scope)
        if self.p.conditionVar not in scope:
            raise LoadError(f"its condition '{self.p.conditionVar}' is made by nothing", "the network is damaged")
        truth = _truth(g, scope[self.p.conditionVar])
        return g.op("logical_and", (1,), out=DType.BOOL, x=going, y=truth)

    def _turn(
        self, g: Graph, scope: Scope, count: Blob, limit: Blob | float | None, names: Sequence[str]
    ) -> dict[str, Blob]:
        """Make the body and then the condition of the next turn; return the loop's variables as they are after it."""
        scope[_STOP] = scope[_BREAK] = _flag(g, 0)
        self.layers.network(g, self.p.bodyNetwork, scope)
        broken = scope[_BREAK]
        del scope[_STOP], scope[_BREAK]
        one = binary(g, "add", count, 1.0)
        going = binary(g, "less", one, float("inf") if limit is None else limit, out=DType.BOOL)
        # After a break the condition's network does not run again, so it stands in a branch of its own.
        if g.known(broken) != (0.0,):
            going = g.op(
                "logical_and", (1,), out=DType.BOOL, x=going, y=binary(g, "equal", broken, 0.0, out=DType.BOOL)
            )
            held = "\0going"
            scope[held] = g.cast(going, DType.FP32, DType.BOOL)

            def condition(graph: Graph, inside: Scope) -> None:
                again = binary(graph, "greater", inside[held], 0.5, out=DType.BOOL)
                inside[held] = graph.cast(self._condition(graph, inside, again), DType.FP32, DType.BOOL)

            choose(self.layers, g, scope, going, condition, lambda graph, inside: None, Counter())
            going = binary(g, "greater", scope.pop(held), 0.5, out=DType.BOOL)
        else:
            going = self._condition(g, scope, going)
        return {"\0count": one, "\0go": going} | {name: g.lay(scope[name]) for name in names}

    def _settled(self, g: Graph, scope: Scope, limit: Blob | float | None) -> tuple[list[str], dict[str, Blob]]:
        """Return the names that a turn changes, and a blob of the shape that each has before any turn."""
        names: list[str] = []
        initial: dict[str, Blob] = {}
        for _ in range(_PASSES):
            with g.inner() as graph:
                inputs, inside = self._inputs(graph, scope, initial)
                before = dict(inside)
                self._turn(graph, inside, Blob(inputs[0].name, (1,)), limit, names)
                changed = [name for name in inside if inside[name] != before.get(name) and self._carried(name, scope)]
                after = {name: graph.lay(inside[name]) for name in changed}
            found = dict(initial)
            for name, blob in after.items():
                old = initial.get(name) or (g.lay(scope[name]) if name in scope else blob)
                found[name] = Blob("", _merged(old, blob))
            if found == initial:
                return names, initial
            initial, names = found, list(found)
        raise LoadError("its values change their shape at each turn", "the network is damaged")

    def _carried(self, name: str, scope: Scope) -> bool:
        return not name.startswith("\0") and (name in scope or self.layers.read_elsewhere(name, self.inside))

    def _inputs(self, g: Graph, scope: Scope, initial: dict[str, Blob]) -> tuple[list[NamedType], Scope]:
        """Return a block's inputs, and the names as it sees them."""
        inputs = [NamedType(g.fresh("count"), TensorType(DType.FP32, (1,)))]
        inputs.append(NamedType(g.fresh("going"), TensorType(DType.BOOL, (1,))))
        inside = {name: blob for name, blob in scope.items() if not name.startswith("\0")}
        for name, blob in initial.items():
            value = NamedType(g.fresh(name), TensorType(DType.FP32, blob.shape))
            inputs.append(value)
            inside[name] = Blob(value.name, blob.shape)
        return inputs, inside

    def _start(self, g: Graph, scope: Scope, name: str, blob: Blob) -> Blob:
        return g.lay(scope[name]) if name in scope else Blob(_absent(g, blob.shape), blob.shape)
