"""Find values that a module runs on: those that its graph allows, tried before they are used. Imports torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.core.convert.capture.examples import Values, draw, example_inputs, narrowed, values_for
from tlkit.core.convert.capture.flow import Decision, EnoughError, Flow, Use
from tlkit.core.convert.capture.states import watching
from tlkit.core.convert.capture.trace import Recorder, capture_error, plain_attention
from tlkit.errors import TlkitError, reason
from tlkit.host.interrupt import check
from tlkit.host.quiet import quiet
from tlkit.types import TensorSpec

Arrays = list[NDArray[Any]]
Ports = tuple[TensorSpec, ...]
# From all that the graph allows to ever tamer values.
_LADDER = ("", "thousand", "positive", "counted", "hundred", "sorted", "few", "bits", "ones", "zeros")
_DRAWS = 6
_LEARNED = 8  # runs that each may teach one more bound, before the next rung


@dataclass(frozen=True, slots=True)
class Study:
    """Values that the module ran on: arrays as a package takes them, in the order of ``ports``, drawn from ``values``.

    ``choices`` are the numbers that it read from them in Python, ``random`` its operations that draw random numbers.
    ``vacuous``: no output had a finite value other than 0. ``note`` mentions values on which it did not run,
    ``jumps`` operations that make steps of floating inputs (see :class:`Flow`).
    """

    ports: Ports
    arrays: tuple[NDArray[Any], ...]
    values: Mapping[str, Values]
    choices: tuple[Decision, ...] = ()
    random: tuple[str, ...] = ()
    vacuous: bool = False
    note: str = ""
    jumps: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The values as the module takes them."""
        return example_inputs(self.ports, list(self.arrays))


@dataclass(slots=True)
class Observed:
    """One run: its flow, and the problem with its values, if any; ``vacuous`` as in :class:`Study`."""

    flow: Flow
    arrays: Arrays
    error: Exception | None = None
    vacuous: bool = False

    @property
    def right(self) -> bool:
        """Whether it ran to its end and told something, in integers that a package can hold."""
        return self.error is None and not self.vacuous and not self.flow.wide

    def study(self, ports: Ports, values: Mapping[str, Values], note: str = "") -> Study:
        """Return what it shows of ``values``, from which its arrays for ``ports`` were drawn."""
        flow = self.flow
        return Study(
            ports,
            tuple(self.arrays),
            values,
            tuple(flow.choices),
            tuple(flow.random),
            self.vacuous,
            note,
            tuple(flow.jumps),
        )


def study(module: nn.Module, ports: Ports, seed: int) -> Study:
    """Return values drawn from ``seed`` for ``ports`` (of one shape each) that ``module`` (prepared) runs on.

    A first run on 0 and 1 shows what integers are for, the next ones draw over the range that this allows; where that
    fails, tamer values are tried. Ports that only work as booleans become such. Raises :class:`UsageError` where no
    values do, :class:`ConversionError` for outputs that a package cannot have.
    """
    ports, recorder, run = _started(module, ports, seed)
    uses, tried, refused = run.flow.uses, list[Mapping[str, Values]](), list[tuple[str, Exception]]()
    furthest = run
    best: tuple[Observed, Mapping[str, Values]] | None = None
    if run.right and _chosen(ports, uses, "") == (start := {port.name: _start(port) for port in ports}):
        return run.study(ports, start)  # nothing but pixels and normals: one run is enough
    for rung in _LADDER:
        for _ in range(_LEARNED):
            values = _chosen(ports, uses, rung)
            if values in tried:
                break
            tried.append(values)
            run = observed(recorder, ports, draw(ports, values, seed))
            uses = {name: _merged(use, run.flow.uses[name]) for name, use in uses.items()}
            # A run without an error is kept even if it tells nothing, until a better one comes.
            furthest = run if run.flow.steps > furthest.flow.steps else furthest
            if run.error is None and (best is None or (run.right and not best[0].right)):
                best = run, values
            if _chosen(ports, uses, rung) == values:  # nothing new learned
                if run.error is not None:
                    refused.append((_told(values), run.error))
                break
        if best is not None and best[0].right:
            break
    if best is None:
        error = furthest.error  # not of values, perhaps, which others may be right for
        assert error is not None
        raise capture_error(error, recorder, ports, tried=True)
    return best[0].study(ports, best[1], _note(module, refused, best[1]))


def assumed(ports: Ports, seed: int) -> Study:
    """Return values drawn from ``seed`` for floating ``ports`` and images, on which no module was run."""
    values = {port.name: _start(port) for port in ports}
    return Study(ports, tuple(draw(ports, values, seed)), values)


def varying(module: nn.Module, found: Study, seed: int) -> tuple[str, ...]:
    """Return the lines where ``module`` reads a number that depends on its inputs' values and changes with them.

    Tried on further draws, and on masks that hide nothing; a number that is the same for all is assumed to depend on
    shapes only.
    """
    if not found.choices:
        return ()
    seen = [found.choices, *(choices for _, choices in _redrawn(module, found, seed))]
    places = dict.fromkeys(choice.place for choices in seen for choice in choices)
    return tuple(place for place in places if len({_read(choices, place) for choices in seen}) > 1)


def otherwise(module: nn.Module, found: Study, seed: int) -> tuple[NDArray[Any], ...] | None:
    """Return values on which ``module`` reads another number of them, and so may take another way; None: not found."""
    if not found.choices or not found.values:
        return None
    return next((arrays for arrays, choices in _redrawn(module, found, seed) if choices != found.choices), None)


def _redrawn(
    module: nn.Module, found: Study, seed: int
) -> Iterator[tuple[tuple[NDArray[Any], ...], tuple[Decision, ...]]]:
    """Yield further draws that ``module`` runs on, and the numbers that it reads of them."""
    recorder = Recorder(module, found.ports)
    for step in range(_DRAWS):
        arrays = draw(found.ports, found.values, seed + step) if found.values else list(found.arrays)
        if step == 0:
            arrays = [_full(port, array) for port, array in zip(found.ports, arrays, strict=True)]
        # As many choices as the capture made: while they are the same, so is what comes after them.
        run = observed(recorder, found.ports, arrays, len(found.choices))
        if run.error is None:
            yield tuple(arrays), tuple(run.flow.choices)


def random_by_itself(module: nn.Module, found: Study) -> bool:
    """Whether two runs of ``module`` on the values of ``found`` give different outputs."""
    recorder, seen = Recorder(module, found.ports), list[list[Tensor]]()
    for _ in range(2):
        if observed(recorder, found.ports, list(found.arrays)).error is not None:
            return False
        seen.append([value.detach().clone() for value in recorder.seen.values()])
    return not all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(*seen, strict=True))


def _read(choices: Sequence[Decision], place: str) -> tuple[float, ...]:
    return tuple(choice.value for choice in choices if choice.place == place)


def _full(port: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    if port.image is None and "mask" in port.name.lower():
        return np.ones_like(array)
    # Turns the choices that hang on a sign.
    return -array if array.dtype.kind == "f" else array


def study_given(module: nn.Module, ports: Ports, arrays: Arrays, name: str) -> Study:
    """Return what a run of ``module`` on ``arrays`` shows, which the user gave in the file ``name``."""
    recorder = Recorder(module, ports)
    run = observed(recorder, ports, arrays)
    if run.error is not None and (made := _otherwise_typed(module, ports, lambda _: arrays, run.error)):
        ports, recorder, run = made
    if run.error is not None:
        error = capture_error(run.error, recorder, ports)
        error.message = f"{error.message}, on {name}"
        raise error
    return run.study(ports, {})


def _started(module: nn.Module, ports: Ports, seed: int) -> tuple[Ports, Recorder, Observed]:
    """Run once on integers of 0 and 1, with ports as booleans or as int32 where that works and int64 does not."""

    def values(ports: Ports) -> Arrays:
        return draw(ports, {port.name: _start(port) for port in ports}, seed)

    recorder = Recorder(module, ports)
    run = observed(recorder, ports, values(ports))
    made = _otherwise_typed(module, ports, values, run.error) if run.error is not None else None
    return made or (ports, recorder, run)


def _otherwise_typed(
    module: nn.Module, ports: Ports, values: Callable[[Ports], Arrays], error: Exception
) -> tuple[Ports, Recorder, Observed] | None:
    """Return a run of ``module`` with its integers as another type than int64, where ``error`` hints at that."""
    return _as_booleans(module, ports, values, error) or _as_int32(module, ports, values, error)


def _as_int32(
    module: nn.Module, ports: Ports, values: Callable[[Ports], Arrays], error: Exception
) -> tuple[Ports, Recorder, Observed] | None:
    # What a model asserts need not name a type.
    if not (isinstance(error, AssertionError) or _TYPED.search(reason(error))):
        return None
    names = [port.name for port in ports if port.image is None and port.dtype == "int32"]
    for chosen in dict.fromkeys([tuple(names), *((name,) for name in names)]):
        tried = tuple(
            replace(port, intake=replace(port.intake, narrow=True)) if port.name in chosen else port for port in ports
        )
        recorder = Recorder(module, tried)
        run = observed(recorder, tried, values(tried))
        if chosen and run.error is None:
            return tried, recorder, run
    return None


# As torch and numpy write types in messages: "Int but got Long", "torch.int64", "same dtype".
_TYPED = re.compile(r"\b(int|long|int32|int64|dtypes?|scalar type)\b", re.IGNORECASE)


def _as_booleans(
    module: nn.Module,
    ports: Ports,
    values: Callable[[Ports], Arrays],
    error: Exception,
) -> tuple[Ports, Recorder, Observed] | None:
    # torch's message for an operand that ought to be a boolean names that type.
    if not re.search(r"\bbool", reason(error), re.IGNORECASE):
        return None
    names = [port.name for port in ports if port.image is None]
    masks = [name for name in names if "mask" in name.lower()]
    # Masks first, since they are the usual ones; then each port, then all.
    for chosen in [masks, *([name] for name in names), names]:
        tried = tuple(
            replace(port, intake=replace(port.intake, boolean=True)) if port.name in chosen else port for port in ports
        )
        recorder = Recorder(module, tried)
        run = observed(recorder, tried, values(tried))
        # An error about something else is progress: other values may mend it.
        if chosen and (run.error is None or not re.search(r"\bbool", reason(run.error), re.IGNORECASE)):
            return tried, recorder, run
    return None


def _start(port: TensorSpec) -> Values:
    if port.image is not None or port.dtype != "int32":
        return values_for(port, Use())
    return Values("whole", 0, 1)


def _chosen(ports: Sequence[TensorSpec], uses: Mapping[str, Use], rung: str) -> dict[str, Values]:
    return {port.name: narrowed(values_for(port, uses[port.name]), rung) for port in ports}


def observed(recorder: Recorder, ports: Ports, arrays: Arrays, enough: int = 0, *, keep: bool = False) -> Observed:
    """Run the module on ``arrays``; ``enough`` and ``keep`` as in :class:`Flow`."""
    check()
    inputs = example_inputs(ports, arrays)
    flow = Flow(dict(zip((port.name for port in ports), inputs, strict=True)), enough, keep)
    run = Observed(flow, arrays)
    with quiet(), torch.no_grad(), plain_attention(), watching(recorder):
        try:
            with flow:
                recorder(*inputs)
            run.vacuous = not any(map(_tells, recorder.seen.values()))
        # An output that a package cannot have: no other values would mend that.
        except EnoughError:
            pass
        except TlkitError:
            raise
        except Exception as error:
            run.error = error
    return run


def _tells(output: Tensor) -> bool:
    return bool((output.isfinite() & (output != 0)).any())


def _merged(one: Use, other: Use) -> Use:
    """Return the combined findings of both runs."""
    found = replace(one, compared=one.compared | other.compared)
    if other.low is not None and other.high is not None:
        found.bound(other.low, other.high)
    for item in fields(Use):
        if isinstance(getattr(one, item.name), bool):
            setattr(found, item.name, getattr(one, item.name) or getattr(other, item.name))
    return found


def _told(values: Mapping[str, Values]) -> str:
    return ", ".join(f"{name} {text}" for name, text in ((name, str(item)) for name, item in values.items()) if text)


def _note(module: nn.Module, refused: list[tuple[str, Exception]], values: Mapping[str, Values]) -> str:
    if not refused:
        return ""
    told, error = refused[0]
    where = f" on {told}" if told else " on standard normals"
    instead = f"captured and checked on {_told(values) or 'others'}"
    return f"{type(module).__name__} does not run{where} ({reason(error)}); {instead}"
