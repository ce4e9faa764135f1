"""Buffers that a module's forward pass changes: they become the states of a package. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlkit.errors import UsageError
from tlkit.ports.port import parse_dims, safe_name


@dataclass(frozen=True, slots=True)
class BufferState:
    """A state: its name in the package, its shape, the buffer it is in the captured graph and in the module run."""

    name: str
    shape: tuple[int, ...]
    source: str
    buffer: str


class Watch:
    """Detects which buffers of a module change while it runs, and restores their values."""

    def __init__(self, module: nn.Module) -> None:
        self._buffers = dict(module.named_buffers())
        # torch counts the writes to a tensor; comparing values would miss one that writes the same.
        self._before = {name: (buffer._version, buffer.clone()) for name, buffer in self._buffers.items()}

    def changed(self) -> tuple[str, ...]:
        """Return the paths of the buffers changed since, in the module's order."""
        return tuple(name for name, buffer in self._buffers.items() if buffer._version != self._before[name][0])

    def restore(self) -> None:
        """Give the buffers their values back."""
        with torch.no_grad():
            for name in self.changed():
                self._buffers[name].copy_(self._before[name][1])


@contextmanager
def watching(module: nn.Module) -> Iterator[Watch]:
    """Leave the buffers of ``module`` as they were, whatever the body does to them."""
    watch = Watch(module)
    try:
        yield watch
    finally:
        watch.restore()


def found_states(module: nn.Module, changed: Sequence[str], prefix: str = "inner.") -> tuple[BufferState, ...]:
    """Return the states for the buffers ``changed`` of ``module``; ``prefix``, which is tlkit's, is left out of
    names."""
    buffers: dict[str, Tensor] = dict(module.named_buffers())
    return tuple(
        BufferState(safe_name(path.removeprefix(prefix), set()), tuple(buffers[path].shape), path, path)
        for path in changed
    )


def check_states(given: Sequence[str], found: Sequence[BufferState]) -> None:
    """Raise :class:`UsageError` if ``given`` (``NAME`` or ``NAME=SHAPE``) is not empty and differs from the states
    found."""
    listed = ", ".join(f"{state.name}={'x'.join(map(str, state.shape))}" for state in found) or "none"
    names = []
    for text in given:
        name, equals, dims = text.partition("=")
        name = safe_name(name.strip(), set())
        state = next((state for state in found if state.name == name), None)
        if state is None:
            raise UsageError(f"--state {text}: the model changes no such buffer", f"it changes: {listed}")
        parsed = parse_dims(dims) if equals else (tuple((size, size) for size in state.shape), ())
        if parsed is None or parsed[0] != tuple((size, size) for size in state.shape):
            raise UsageError(f"--state {text}: the buffer has another shape", f"it changes: {listed}")
        names.append(state.name)
    left = [state.name for state in found if state.name not in names]
    if given and left:
        raise UsageError(f"the model changes the buffer {left[0]} too", f"name all of its states: {listed}")


@contextmanager
def zeroed(module: nn.Module, states: Sequence[BufferState]) -> Iterator[None]:
    """Let the body run ``module`` from states of zeros, as in Core ML, then restore the buffers."""
    buffers = dict(module.named_buffers())
    with watching(module):
        with torch.no_grad():
            for state in states:
                buffers[state.buffer].zero_()
        yield


def start_notes(module: nn.Module, states: Sequence[BufferState]) -> tuple[str, ...]:
    """Note which buffers do not start at zero, as Core ML's states do."""
    buffers = dict(module.named_buffers())
    filled = [state.name for state in states if bool(buffers[state.buffer].any())]
    return (f"{', '.join(filled)}: Core ML's states begin as zeros, the buffer does not",) if filled else ()
