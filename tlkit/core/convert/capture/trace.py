"""Run a module once on seeded inputs and record what it did, as TorchScript that coremltools reads.

Importing this module imports torch.
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.jit._trace import TracerWarning

from tlkit.core.convert.capture.examples import channel_ratios
from tlkit.core.convert.capture.places import origins
from tlkit.core.convert.capture.preflight import Place, find_op, find_place, lost_writes
from tlkit.core.convert.capture.states import BufferState, Watch, found_states, start_notes, watching
from tlkit.core.convert.capture.writes import without_writes
from tlkit.core.inspect.places import Origin
from tlkit.errors import ConversionError, UsageError, reason
from tlkit.host.quiet import quiet
from tlkit.host.where import where
from tlkit.ports.parse import check_name, parse_output
from tlkit.ports.port import OutputPort, port_text, safe_name
from tlkit.types import TensorSpec


@dataclass(frozen=True, slots=True)
class Output:
    """An output of the traced module: its port in the package, and its value on the example."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    port: OutputPort


@dataclass(frozen=True, slots=True)
class Traced:
    """A module's recorded graph: TorchScript, or torch.export's.

    ``notes`` are sentences about what was lost. ``frozen`` are the lines where the tracer saw a tensor become a Python
    number: a size, or a value of the example; of torch.export, those where it took a choice that not all lengths take.
    """

    program: torch.jit.ScriptModule | ExportedProgram
    ports: tuple[TensorSpec, ...]
    outputs: tuple[Output, ...]
    notes: tuple[str, ...] = ()
    states: tuple[BufferState, ...] = ()
    frozen: tuple[str, ...] = ()

    def place(self, name: str, kind: str = "", count: int = 0) -> Place | None:
        """Return the place of the op that gives the value ``name``, or else of the one after ``count`` of its kind."""
        return find_place(self.program, name, kind, count)

    def op(self, name: str) -> tuple[str, Place] | None:
        """Return the kind and the place of the op that gives the value ``name``."""
        return find_op(self.program, name)

    def origins(self, made: Any) -> dict[str, Origin]:
        """Return the origin of each operation of ``made``, coremltools' program of it, by its name."""
        return origins(self.program, made)


@contextmanager
def prepared(module: nn.Module, *, frozen: bool = False) -> Iterator[nn.Module]:
    """Yield ``module`` ready to be traced: in eval mode, on the CPU, floating point in f32.

    A caller's module gets its modes back; one that must move or widen is copied first. A ``frozen`` one, an exported
    program, stays as it is.
    """
    if frozen:
        yield module
        return
    tensors = [*module.parameters(), *module.buffers()]
    if any(t.device.type != "cpu" or (t.is_floating_point() and t.dtype != torch.float32) for t in tensors):
        module = copy.deepcopy(module).cpu().float()
    modes = [(part, part.training) for part in module.modules() if hasattr(part, "training")]  # frozen ones lack it
    try:
        yield module.eval()
    finally:
        for part, training in modes:
            part.training = training


def trace(
    module: nn.Module, ports: tuple[TensorSpec, ...], examples: tuple[Tensor, ...], names: Sequence[str] = ()
) -> Traced:
    """Return ``module`` traced on ``examples`` of ``ports``; ``names`` are its outputs' names, in order.

    Raises :class:`UsageError` where the module does not take such inputs, :class:`ConversionError` where it runs but
    cannot be traced.
    """
    recorder = Recorder(module, ports)
    examples = recorder.unscaled(examples)
    with quiet(), warnings.catch_warnings(record=True) as caught, torch.no_grad(), plain_attention():
        # Python shows a warning once per line and process; each trace has to see its own.
        warnings.simplefilter("always")
        with watching(recorder) as watch:
            try:
                script = _recorded(recorder, examples, watch)
            except Exception as error:
                raise capture_error(error, recorder, ports) from error
            states = found_states(recorder, watch.changed())
        without_writes(script)
    outputs = named_outputs(recorder, ports, names)
    notes = (*recorder.notes, *_lost(script), *start_notes(recorder, states))
    return Traced(script, ports, outputs, notes, states, _frozen(caught))


def _recorded(recorder: Recorder, examples: tuple[Tensor, ...], watch: Watch) -> Any:
    """Trace ``recorder``; once more, untold, where that fails. Leaves in ``recorder.seen`` whether it runs at all."""
    # No check by torch, which would trace again: the package itself is compared.
    record: Callable[[], Any] = partial(torch.jit.trace, recorder.eval(), examples, check_trace=False)
    try:
        return record()
    except Exception as error:
        watch.restore()
        with suppress(Exception), _untold():
            return record()
        if not recorder.seen:  # it may run all the same: some look at lengths, which a trace makes tensors of
            with suppress(Exception):
                recorder(*examples)
        raise error


@contextmanager
def _untold() -> Iterator[None]:
    """While active, torch.jit.is_tracing is False for all but torch: transformers makes masks in a trace that not all
    models take; and torch._check takes what a trace makes of sizes (by 2.13 max_unpool2d checks some)."""
    whole: Any = torch
    tracing, check = whole.jit.is_tracing, whole._check_with

    def checked(error: Any, condition: Any, message: Any) -> None:
        check(error, bool(condition) if isinstance(condition, Tensor) else condition, message)

    whole._check_with = checked
    whole.jit.is_tracing = lambda: sys._getframe(1).f_globals["__name__"].startswith("torch.") and tracing()
    try:
        yield
    finally:
        whole.jit.is_tracing, whole._check_with = tracing, check


def named_outputs(recorder: Recorder, ports: tuple[TensorSpec, ...], names: Sequence[str]) -> tuple[Output, ...]:
    """Describe the outputs of the last run, under ``names`` (``y``, ``y:f16``) or those the model gives them."""
    wanted = {port.name: port for port in map(parse_output, names)}
    for name, value in recorder.seen.items():
        if value.is_complex():
            raise ConversionError(
                f"output '{name}' is complex, and Core ML has no complex numbers",
                "return torch.view_as_real of it, or its real and imaginary parts",
            )
    return tuple(
        Output(name, tuple(value.shape), value.dtype, wanted.get(name, OutputPort(name)))
        for name, value in _named(recorder.seen, ports, list(wanted)).items()
    )


@contextmanager
def plain_attention() -> Iterator[None]:
    """Keep nn.TransformerEncoder and nn.MultiheadAttention from using fused ops, which no converter knows."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Last:
    """The results of the last run; a separate object, because torch.export watches a module's attributes."""

    def __init__(self) -> None:
        self.outputs: dict[str, Tensor] = {}
        self.notes: tuple[str, ...] = ()


class Recorder(nn.Module):
    """A module with tensors in and a tensor or a flat tuple of tensors out; keeps the outputs of its last run."""

    def __init__(self, inner: nn.Module, ports: tuple[TensorSpec, ...]) -> None:
        super().__init__()
        self.inner = inner
        self._last = _Last()
        self._types = [_taken(port) for port in ports]
        self.keywords = _bind(inner, ports)
        self._ports = ports
        self._ratios: dict[int, str] = {}

    def unscaled(self, examples: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """From now on, take images as Core ML scales them, with one factor for all channels; return ``examples``
        converted."""
        made = list(examples)
        for index, port in enumerate(self._ports):
            ratios = channel_ratios(port)
            if ratios is not None:
                self._ratios[index] = f"ratios_of_{port.name}"
                self.register_buffer(self._ratios[index], ratios)
                made[index] = made[index] / ratios
        return tuple(made)

    @property
    def seen(self) -> dict[str, Tensor]:
        """The outputs of the last run by name; empty before the inner module has run."""
        return self._last.outputs

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes about those outputs."""
        return self._last.notes

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the inner module; parameters are filled by name if the ports have their names, else by position."""
        exporting = torch.compiler.is_exporting()  # which runs the module on tensors without values
        if not exporting:
            self._last.outputs = {}  # not empty afterwards: the inner module ran
        tensors = tuple(t.to(kind) if kind else t for t, kind in zip(tensors, self._types, strict=True))
        if self._ratios:
            tensors = tuple(
                tensor * getattr(self, self._ratios[index]) if index in self._ratios else tensor
                for index, tensor in enumerate(tensors)
            )
        named = dict(zip(self.keywords, tensors, strict=True)) if self.keywords else {}
        result = self.inner(**named) if named else self.inner(*tensors)
        outputs, self._last.notes = _distinct(dict(_flatten(result)), tensors)
        if not exporting:
            self._last.outputs = outputs
        flat = tuple(outputs.values())
        return flat if len(flat) > 1 else flat[0]


def _taken(port: TensorSpec) -> torch.dtype | None:
    """Return the type that the module takes for ``port`` where it is not that of the tensor given, else None."""
    if port.intake.boolean:
        return torch.bool
    return torch.int32 if port.intake.narrow else None


def _distinct(outputs: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Make outputs distinct: a package can neither return the same tensor twice nor return its input."""
    kept: dict[str, Tensor] = {}
    given: dict[str, Tensor] = {}
    notes = []
    for name, value in outputs.items():
        twin = next((other for other, tensor in given.items() if tensor is value), None)
        if twin:
            notes.append(f"output '{name}' is the same tensor as '{twin}': kept once")
            continue
        given[name] = kept[name] = value
        if any(value is tensor for tensor in inputs):
            notes.append(f"output '{name}' is an input, unchanged")
            if value.dtype == torch.bool:
                raise ConversionError(notes[-1], "return only computed tensors")
            kept[name] = value + 0  # coremltools takes this for a computed one
    if not kept:
        raise ConversionError("the model returns no tensor", "wrap it so that it returns what it computes")
    return kept, tuple(notes)


def _bind(module: nn.Module, ports: tuple[TensorSpec, ...]) -> list[str]:
    """Return the names by which to pass the ports, empty for positions; UsageError where forward cannot take that
    many."""
    names = [port.name for port in ports]
    if isinstance(module, torch.jit.ScriptModule):
        return names if set(names) <= set(parameters(module)) else []
    signature = inspect.signature(module.forward)
    kinds = [item.kind for item in signature.parameters.values()]
    named = {item.name for item in signature.parameters.values() if item.kind in _BY_NAME}
    # forward(**inputs) takes any name, unless it takes positions as well.
    anything = inspect.Parameter.VAR_KEYWORD in kinds and not _by_position(kinds)
    keywords = names if anything or set(names) <= named else []
    try:
        signature.bind(**dict.fromkeys(keywords)) if keywords else signature.bind(*names)
    except TypeError as error:
        takes = ", ".join(map(str, signature.parameters.values()))
        raise UsageError(
            f"the model does not take {len(names)} input(s): {reason(error)}", f"it is forward({takes})"
        ) from None
    return keywords


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _by_position(kinds: Sequence[Any]) -> bool:
    return any(kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY) for kind in kinds)


def parameters(module: nn.Module) -> list[str]:
    """Return the names of the parameters of ``module``'s forward."""
    if isinstance(module, torch.jit.ScriptModule):
        return [argument.name for argument in module.forward.schema.arguments[1:]]  # type: ignore[attr-defined]
    return list(inspect.signature(module.forward).parameters)


def needed(module: nn.Module) -> list[str]:
    """Return forward's required parameters, or its first one if none is required."""
    if isinstance(module, torch.jit.ScriptModule):
        return parameters(module)
    named = inspect.signature(module.forward).parameters.values()
    found = [item.name for item in named if item.default is item.empty and item.kind is not item.VAR_KEYWORD]
    return found or parameters(module)[:1]


def _flatten(result: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(result, Tensor):
        yield name or "output", result
    # transformers' outputs are both; as mappings they leave out what is None.
    elif is_dataclass(result) and not isinstance(result, Mapping):
        yield from _flatten({field.name: getattr(result, field.name) for field in fields(result)}, name)
    elif isinstance(result, Mapping):
        for key, value in result.items():
            yield from _flatten(value, f"{name}_{key}" if name else str(key))
    elif isinstance(result, tuple | list):
        # A named tuple has names of its own.
        names = getattr(result, "_fields", None) or [f"{name or 'output'}_{index}" for index in range(len(result))]
        if len(result) == 1 and not name:
            names = ["output"]
        for key, value in zip(names, result, strict=True):
            yield from _flatten(value, key)
    elif result is not None:
        raise ConversionError(
            f"output {name or 'of the model'} is of type {type(result).__name__}, not a tensor",
            "wrap the model so that it returns only tensors",
        )


def _named(seen: dict[str, Tensor], ports: tuple[TensorSpec, ...], names: Sequence[str]) -> dict[str, Tensor]:
    """Give the outputs the user's names, or names that a package can hold and that no input has."""
    if names and len(names) != len(seen):
        raise UsageError(f"{len(names)} output name(s) for {len(seen)} output(s)", f"they are: {', '.join(seen)}")
    taken = {port.name for port in ports}
    chosen = [check_name(name) for name in names] or [safe_name(name, taken) for name in seen]
    if len({*chosen} | taken) < len(chosen) + len(taken):
        raise UsageError(f"names must differ: {', '.join([*taken, *chosen])}", "choose other output names")
    return dict(zip(chosen, seen.values(), strict=True))


def capture_error(
    error: Exception, recorder: Recorder, ports: tuple[TensorSpec, ...], how: str = "trace", *, tried: bool = False
) -> UsageError | ConversionError:
    """Return the error to show for ``error``: the model cannot run on its inputs, or cannot be captured.

    ``tried``: it ran on none of the values that were tried.
    """
    if isinstance(error, UsageError | ConversionError):
        return error
    said = reason(error)
    if isinstance(error, AssertionError) and not str(error).strip():
        said = "what it asserts is not so"
    if "data-dependent" in said:
        said = "a choice or a size depends on a value that is known only at run time"
    # The module itself ran: only the capture failed.
    if recorder.seen:
        return ConversionError(f"cannot {how} the model: {said}{where(error)}", _TRACEABLE[how])
    given = ", ".join(map(port_text, ports))
    return UsageError(
        f"{type(recorder.inner).__name__} does not run on {given}: {said}{where(error)}",
        _mend_of(said, tried),
    )


def _mend_of(text: str, tried: bool) -> str:
    if re.search(r"\b(half|float16|bfloat16|double|c10::Half|Half)\b", text, re.IGNORECASE):
        return _DTYPES
    return f"check the names, shapes and types of its inputs{_EXAMPLE if tried else ''}"


_EXAMPLE = "; if only some values work, give real ones: --example FILE.npz with an array for each input"
_DTYPES = "its weights are f32 here, floating inputs too: let forward take its type from a parameter; check the inputs"
_TRACEABLE = {
    "trace": "make its forward pass traceable by torch.jit.trace",
    "export": "make its forward pass exportable by torch.export.export",
}


def _lost(script: torch.jit.ScriptModule) -> tuple[str, ...]:
    found = lost_writes(script)
    if not found:
        return ()
    return (f"coremltools loses what a trace writes into a part of a tensor, at {', '.join(found[:4])}",)


def _frozen(caught: list[warnings.WarningMessage]) -> tuple[str, ...]:
    """Return the lines where the example decided what was recorded; torch's own modules depend only on shapes."""
    own = str(Path(torch.__file__).parent)
    warned = [w for w in caught if issubclass(w.category, TracerWarning) and not w.filename.startswith(own)]
    return tuple(sorted({f"{Path(w.filename).name}:{w.lineno}" for w in warned}))
