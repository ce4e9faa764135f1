"""A PyTorch module as a side of a comparison. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from tlkit.core.convert.capture.cases import Case
from tlkit.core.convert.capture.examples import to_source
from tlkit.core.convert.capture.trace import Recorder, capture_error, named_outputs, plain_attention, prepared
from tlkit.core.convert.source.opened import ordered
from tlkit.core.convert.source.source import load_source
from tlkit.core.judge.side import Side
from tlkit.errors import TlkitError
from tlkit.host import budget
from tlkit.host.quiet import quiet
from tlkit.mil.lower.guard import bounded
from tlkit.types import TensorSpec


class SourceSide(Side):
    """What ``convert`` takes as a source: a callable, a TorchScript file, a ``.pt2``, a model folder, a module."""

    def __init__(self, text: Any, *, trust: bool = False) -> None:
        self.source = load_source(text, None, None, trust, None)
        self.text = self.source.text
        self.told = "PyTorch, f32"
        self._stack = ExitStack()
        self.module = self._stack.enter_context(prepared(self.source.module, frozen=self.source.program is not None))

    def ports(self) -> tuple[TensorSpec, ...]:
        """Return the ports that built-ins, model folders and exported programs come with."""
        return self.source.ports

    def placed(self, ports: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        """Return ``ports`` in the order in which the source takes them."""
        return ordered(self.source.program, ports) if self.source.program is not None else ports

    def run(self, case: Case) -> Mapping[str, Any]:
        """See :class:`Side`; the outputs have the names that ``convert`` would give them."""
        values = dict(zip((port.name for port in case.ports), case.values, strict=True))
        ports = self.placed(case.ports)
        recorder = Recorder(self.module, ports)
        inputs = [to_source(port, values[port.name]) for port in ports]
        with quiet(), torch.no_grad(), plain_attention():
            try:
                self._bounded(partial(recorder, *inputs), sum(map(torch.numel, inputs)))
            except TlkitError:
                raise
            except Exception as error:
                raise capture_error(error, recorder, ports) from error
        named = zip(named_outputs(recorder, ports, ()), recorder.seen.values(), strict=True)
        return {output.name: value.detach().numpy().copy() for output, value in named}

    def _bounded(self, call: Callable[[], Any], elements: int) -> None:
        """Run the user's own code as it is, and a stranger's program within what its file and inputs warrant."""
        if self.source.stored is None:
            with budget.lifted():
                call()
        else:
            bounded(call, budget.warranted(self.source.stored, elements), where=lambda: f"{self.text}: ")
