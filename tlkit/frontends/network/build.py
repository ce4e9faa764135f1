"""A network's layers one after the other, each made into operations by the function of its kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from tlkit.errors import LoadError, contradictions
from tlkit.frontends.network import control, layers
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.registry import Layer, lookup
from tlkit.frontends.network.kit.weights import Weights

FAMILIES = layers.__name__
"""The layer kinds, which importing it registers."""

Hooks = Mapping[str, Callable[..., Any] | None]
"""What runs custom layers, by the class that they name; None where the program is looked at and not run."""


class Builder:
    """Makes layers. ``constant_rank`` is the rank with which the network sees a constant; ``hooks`` run custom ones."""

    def __init__(self, network: Any, weights: Weights, hooks: Hooks, constant_rank: int, wanted: Iterable[str]) -> None:
        self.weights, self.hooks, self.constant_rank = weights, hooks, constant_rank
        self._reads = control.reads(network)
        self._reads.update(wanted)
        self._titles: set[str] = set()

    def read_elsewhere(self, name: str, inside: Counter[str]) -> bool:
        """Whether a layer outside of what reads ``inside`` reads ``name``, or it is an output."""
        return self._reads[name] > inside[name]

    def network(self, g: Graph, network: Any, scope: dict[str, Blob]) -> None:
        """Make the layers of a network; ``scope`` has the blobs by name before, and after."""
        self._layers(g, list(network.layers), scope)

    def _layers(self, g: Graph, messages: Sequence[Any], scope: dict[str, Blob]) -> None:
        for index, message in enumerate(messages):
            kind = message.WhichOneof("layer") or ""
            said = f"layer '{message.name}' ({kind})"
            try:
                with contradictions(f"{said} contradicts itself", "the network is damaged"):
                    done = kind in control.KINDS and control.make(self, g, message, scope)
                    if kind not in control.KINDS:
                        self._layer(g, kind, message, scope)
            except LoadError as error:
                # A layer in a branch or a loop has been named already.
                if error.message.startswith("layer '"):
                    raise
                raise LoadError(f"{said}: {error.message}", error.hint) from None
            if done:  # nothing after a break is reached, or only sometimes
                control.unless_stopped(self, g, scope, partial(self._rest, messages[index + 1 :]))
                return

    def _rest(self, messages: Sequence[Any], g: Graph, scope: dict[str, Blob]) -> None:
        self._layers(g, messages, scope)

    def _layer(self, g: Graph, kind: str, message: Any, scope: dict[str, Blob]) -> None:
        found = lookup(kind)
        if found is None:
            raise LoadError(
                "tlkit has no such layer", "the file is damaged, or newer than this tlkit: see `tlkit inspect`"
            )
        function, least = found
        for name in message.input:
            if name not in scope:
                raise LoadError(f"it uses '{name}' before anything makes it", "the network is damaged")
        if len(message.input) < least or not message.output:
            raise LoadError(f"{len(message.input)} inputs where it needs {least}", "the network is damaged")
        g.title, start = message.name or kind, len(g.operations)
        inputs = tuple(scope[name] for name in message.input)
        # -1 and 0 stand for a length that is not known.
        declared = tuple(tuple(d if d > 0 else None for d in tensor.dimValue) for tensor in message.outputTensor)
        layer = Layer(message.name, getattr(message, kind), inputs, tuple(message.output), declared, self.weights, self)
        made = function(g, layer)
        blobs = [made] if isinstance(made, Blob) else list(made)
        if len(blobs) < len(message.output):
            raise LoadError(f"{len(message.output)} outputs where it has {len(blobs)}", "the network is damaged")
        self._named(g, start, message, blobs, scope)

    def _named(self, g: Graph, start: int, message: Any, blobs: Sequence[Blob], scope: dict[str, Blob]) -> None:
        """Give what a layer made the network's names, and its last operation the layer's."""
        here = {item.name for operation in g.operations[start:] for item in operation.outputs}
        constants = {o.outputs[0].name for o in g.operations[start:] if o.type == "const"}
        wanted: dict[str, str] = {}
        for name, blob in zip(message.output, blobs, strict=False):
            # Not renamed: constants, which are shared, and inputs passed on; no value can have two names.
            if blob.name in here - constants and blob.name not in wanted:
                wanted[blob.name] = g.fresh(name)
            made = wanted.get(blob.name, blob.name)
            scope[name] = Blob(made, blob.shape, blob.lead, blob.trail)
        # A file may give several layers the same name.
        title = message.name if message.name and message.name not in self._titles else ""
        self._titles.add(message.name)
        g.settle(start, wanted, title)


def unknown(network: Any, hooks: Hooks) -> list[str]:
    """Return the kinds of layers in a network that nothing makes, custom ones by their class, each once."""
    found: dict[str, None] = {}
    stack = [network]
    while stack:
        for message in stack.pop().layers:
            kind = message.WhichOneof("layer")
            if kind == "custom" and message.custom.className not in hooks:
                found[f"custom layer {message.custom.className}"] = None
            elif kind is None or (kind not in control.KINDS and lookup(kind) is None):
                found[kind or "a layer without a kind"] = None
            stack += control.inner(message)
    return list(found)
