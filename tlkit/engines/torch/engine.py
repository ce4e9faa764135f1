"""The torch engine: a lowered MIL function, run anywhere PyTorch runs.

Faithful f16 (``precision="f16"``): values that the program declares fp16 live in f32 tensors that hold f16 values, and
each op rounds its result once (``mil.ops``). Measured bit-identical to f16 storage, and many times faster than torch's
own f16 kernels on a CPU.

On a GPU these values are f16 tensors (``halves.py``), and on CUDA an inference is captured as a graph (``graphs.py``).

``engine="compile"`` hands the graph to ``torch.compile``. Two inductor settings are needed and set here, only for the
compilation: ``freezing`` (weights folded and packed) and ``emulate_precision_casts``, without which inductor removes
the f32 -> f16 -> f32 round trip as a no-op, and with it the rounding.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx

from tlkit.engines.labels import presenters
from tlkit.engines.told import slowly
from tlkit.engines.torch import selftest
from tlkit.engines.torch.device import device_for, enough_memory, place_weights, waiting_call
from tlkit.engines.torch.finite import Finder, Stray
from tlkit.engines.torch.fused.blocks import InBlocks
from tlkit.engines.torch.fused.decoding import resident
from tlkit.engines.torch.fused.fuse import fuse
from tlkit.engines.torch.fused.steps import fuse_steps
from tlkit.engines.torch.graphs import Graphs
from tlkit.engines.torch.guarded import FirstGuarded
from tlkit.engines.torch.halves import CARRIERS as HALVED
from tlkit.engines.torch.halves import halvable, halve
from tlkit.engines.torch.state import State, fixed, held
from tlkit.engines.torch.watch import Seen, Stopped, Tracker
from tlkit.errors import ExecutionError, LoadError, TlkitError, UnavailableError, reason
from tlkit.host import budget
from tlkit.host.allocator import give_back, keep_freed
from tlkit.host.forked import use_one_thread
from tlkit.mil import ops
from tlkit.mil.lower import lower
from tlkit.mil.lower.constants import Stays, half_bytes, mapped, stored
from tlkit.mil.lower.guard import Guard, TooLargeError
from tlkit.mil.ops.kit import narrow
from tlkit.mil.ops.transformation import slice_update, slice_update_
from tlkit.mil.program import Function, StateType, TensorType, Type, walk
from tlkit.mil.types import DType
from tlkit.mil.units.threads import apart
from tlkit.types import Unit

if TYPE_CHECKING:
    from tlkit.mil.units.emulation import Emulation

_PLACED = (slice_update, slice_update_)
"""Ops whose result has a fixed size wherever their parameters point."""


class TorchEngine:
    """Runs one function of a program. Arrays in and out are numpy's, in the ports' declared types."""

    name = "torch"

    def __init__(
        self,
        function: Function,
        *,
        precision: str = "f16",
        engine: str = "eager",
        unit: Unit = Unit.CPU,
        constants: dict[Any, torch.Tensor] | None = None,
        strict_mil: bool = False,
        halves: bool | None = None,
        emulate: Callable[[Function], Emulation] | None = None,
        decoding: bool = False,
    ) -> None:
        """``decoding`` is for a decoder's function, whose caller makes sure that its cache has room: on a GPU its
        weights and cache then stay there, in ``constants`` as well (``fused/decoding.py``)."""
        self.device = device_for(unit)
        self.compiled = engine == "compile"
        self._function = function
        self._rounding = precision == "f16"
        missing = lower.unsupported(function)
        if missing:
            listed = ", ".join(f"{name} (x{count})" for name, count in sorted(missing.items()))
            raise LoadError(f"the program uses ops that tlkit does not run: {listed}", "`tlkit ops` lists what it runs")
        for item in function.inputs:
            wrapped = item.type.wrapped if isinstance(item.type, StateType) else item.type
            if not isinstance(wrapped, TensorType) or wrapped.dtype not in ops.CARRIERS:
                raise LoadError(f"the input '{item.name}' is of type {wrapped}, which is not supported")
        use_one_thread()
        # What the profiles of Apple's units changed, where the program is run by them.
        self.emulation = emulate(function) if emulate is not None else None
        on_gpu = self.device.type != "cpu" and emulate is None
        halved = self._rounding and (on_gpu if halves is None else halves) and halvable(function)
        self.module = lower.lower(
            function,
            precision=precision,
            constants=constants,
            strict=strict_mil,
            emulation=self.emulation,
            stays=self._stays(halved, decoding),
        )
        held = [tensor for tensor in self.module.buffers() if narrow.mark_of(tensor) is not None]
        self.halved = halved and halve(self.module, function)
        # A GPU reads each page once; what was read goes back, so that the weights are not in memory here and there.
        with enough_memory(self.device), narrow.giving_back(held if on_gpu else ()):
            if decoding and self.device.type == "cuda":
                resident(self.module, function, self.device, {} if constants is None else constants)
                fuse_steps(self.module)
            place_weights(self.module, self.device, packed=self.emulation is None)
        if self.device.type == "cuda":
            # Sums of f16 products are f32 sums, as they are on the CPU.
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        self._graphs = Graphs()
        self._state_places = [i for i, item in enumerate(function.inputs) if isinstance(item.type, StateType)]
        self._stored = stored(walk(function.block.operations))
        # Values read back to Python, or nested blocks (loops), may change sizes from run to run.
        self._convolves = any(item.type == "conv" for item in walk(function.block.operations))
        nested = any(isinstance(inner, fx.GraphModule) for inner in self.module.children())
        self._varies = any(map(_may_vary, self.module.graph.nodes)) or nested
        self._draws = any(item.type.startswith("random_") for item in walk(function.block.operations))
        # What varies is never captured, and would have its inputs converted twice.
        self._captures = self.device.type == "cuda" and not (self._varies or self._draws or self.emulation is not None)
        self._seen: set[tuple[tuple[int, ...], ...]] = set()
        self._present: Mapping[str, Callable[[Any], Any]] = presenters(function)
        fused = fuse(self.module, function, convolutions=not self.compiled) if self.halved else self.module
        self._forward: Callable[..., Any] = fused.forward
        if self.emulation is not None:
            self._forward = apart(self._forward)
        if self.compiled:
            # Fixed shapes: inductor then specialises its kernels, and other shapes compile again.
            self._forward = torch.compile(fused, dynamic=False)
        if self.device.type == "cpu":
            keep_freed()  # last: the weights go back to the system with the engine

    def _stays(self, halved: bool, decoding: bool) -> Stays | None:
        """What stays as it is stored: a decoder's blocks on a GPU, and large f16 weights, in their file until they are
        needed (on the CPU) or taken to a GPU in f16."""
        if decoding and self.device.type == "cuda":
            return InBlocks(self.device)
        plain = (halved or (self.device.type == "cpu" and not self.compiled)) and self.emulation is None
        return mapped if plain and half_bytes(walk(self._function.block.operations)) >= narrow.FROM else None

    @property
    def input_names(self) -> tuple[str, ...]:
        """The function's plain inputs, in order; states are not among them."""
        return tuple(item.name for item in self._function.inputs if not isinstance(item.type, StateType))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The function's outputs, in order."""
        return self._function.block.outputs

    @property
    def function(self) -> Function:
        """The function that runs."""
        return self._function

    def make_state(self) -> State:
        """Return a fresh state: a tensor of zeros for each of the function's states."""
        kinds = {item.name: item.type.wrapped for item in self._function.inputs if isinstance(item.type, StateType)}
        halves = [name for name, kind in kinds.items() if kind.dtype is DType.FP16 and self._rounding]
        return State({name: self._zeros(kind) for name, kind in kinds.items()}, halves)

    def _zeros(self, kind: TensorType) -> torch.Tensor:
        said = budget.over(math.prod(fixed(kind)), budget.warranted(self._stored))
        if said:
            raise LoadError(f"a state has {said[0]}", said[1])
        with enough_memory(self.device):
            return torch.zeros(fixed(kind), dtype=ops.CARRIERS[kind.dtype], device=self.device)

    def bind(
        self, arrays: Mapping[str, np.ndarray[Any, Any]], state: State | None = None
    ) -> Callable[[], Sequence[Any]]:
        """Convert the inputs once and return a call that runs exactly one inference on them.

        The call returns the raw outputs in order, tensors on the engine's device; on a GPU it waits for them. Its first
        run, or with ``torch.compile`` one before that is compiled, is watched for the sizes that it makes.
        """
        operands = self.operands(arrays, state)
        shapes = tuple(array.shape for array in arrays.values())
        if self.compiled:
            if self._unknown(shapes):
                with torch.inference_mode(), self._guarded(arrays):
                    self.module(*self.operands(arrays))  # on a state of its own
            self._compile(operands if state is None else self.operands(arrays))
        if self.device.type == "cuda" and not self._draws and self.emulation is None:
            return self._captured(arrays, operands, shapes, state)
        call = waiting_call(self._forward, operands, self.device)
        if self.compiled or not self._unknown(shapes):
            return call
        passed, where = (lambda: self._seen.add(shapes)), (lambda: self._failing(arrays, state))
        return FirstGuarded(call, self._warranted(arrays), passed, where, self._largest)

    def _captured(
        self,
        arrays: Mapping[str, np.ndarray[Any, Any]],
        operands: Sequence[Any],
        shapes: tuple[tuple[int, ...], ...],
        state: State | None,
    ) -> Callable[[], Sequence[Any]]:
        """Return a call of a CUDA graph; what changes from run to run runs as it is."""
        if self._unknown(shapes) and not self.compiled:
            with torch.inference_mode(), self._guarded(arrays):
                self.module(*self.operands(arrays))  # on a state of its own
        # Compiled, there is nothing plainer; what runs without a graph runs operation by operation.
        plain = self._forward if self.compiled else self.module.forward
        if not self._varies:
            plain = self._graphs.of(self._forward, operands, plain, self._state_places)
        return waiting_call(plain, operands, self.device)

    def run(self, arrays: Mapping[str, np.ndarray[Any, Any]], state: State | None = None) -> dict[str, Any]:
        """Run once; return the outputs by name: numpy arrays, and a classifier's label and {label: probability}."""
        try:
            with enough_memory(self.device):
                outputs = self._replayed(arrays, state) or self.bind(arrays, state)()
        except TlkitError:
            raise
        except Exception as error:
            raise self._explain(arrays, state, error) from error
        return self._named(outputs)

    def _replayed(self, arrays: Mapping[str, np.ndarray[Any, Any]], state: State | None) -> list[Any] | None:
        """Run once by the graph that was captured for such inputs and this state; None where there is none."""
        if not self._captures or (self._state_places and state is None):
            return None
        given, states, shapes = [], [], []
        for item in self._function.inputs:
            if isinstance(item.type, StateType):
                assert state is not None
                states.append(held(state, item.name, item.type.wrapped))
                shapes.append(states[-1].shape)
            else:
                given.append(self._to_carrier(arrays[item.name], item.type, torch.device("cpu")))
                shapes.append(given[-1].shape)
        found = self._graphs.ready(shapes, states)
        return None if found is None else found.fed(given)

    def watch(
        self, arrays: Mapping[str, np.ndarray[Any, Any]], seen: Seen, state: State | None = None
    ) -> dict[str, Any] | None:
        """Run once, operation by operation, showing each to ``seen``; return :meth:`run`'s outputs, None if stopped."""
        tracker = Tracker(self.module, seen, rounded=self._rounding)
        try:
            with torch.inference_mode(), self._guarded(arrays), enough_memory(self.device):
                return self._named(tracker.run(*self.operands(arrays, state)))
        except Stopped:
            return None
        except TooLargeError as error:
            raise ExecutionError(f"{tracker.where()}: {error.message}", error.hint) from error
        except (TlkitError, OSError):
            raise
        except Exception as error:
            raise ExecutionError(f"{tracker.where()}: {reason(error)}") from error

    def through(self, runner: fx.Interpreter, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Run once, on states of zeros, through an interpreter of :attr:`module`, watched for values too large."""
        with torch.inference_mode(), self._guarded(arrays):
            runner.run(*self.operands(arrays))

    def check(
        self, arrays: Mapping[str, np.ndarray[Any, Any]], state: State | None = None
    ) -> tuple[dict[str, Any], Stray | None]:
        """Run once, operation by operation; return :meth:`run`'s outputs and the first operation that strays."""
        finder = Finder(self.module, rounded=self._rounding)
        try:
            with torch.inference_mode(), self._guarded(arrays), enough_memory(self.device):
                return self._named(finder.run(*self.operands(arrays, state))), finder.stray
        except TooLargeError as error:
            raise ExecutionError(f"{finder.where()}: {error.message}", error.hint) from error
        except TlkitError:
            raise
        except Exception as error:
            raise ExecutionError(f"{finder.where()}: {reason(error)}") from error

    @contextmanager
    def _guarded(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Iterator[None]:
        """Watch the sizes of values made in the body, unless the same inference ran before (see
        ``mil.lower.guard``)."""
        shapes = tuple(array.shape for array in arrays.values())
        if not self._unknown(shapes):
            yield
            return
        with Guard(self._warranted(arrays), self._largest), budget.inference():
            yield
        self._seen.add(shapes)

    def _unknown(self, shapes: tuple[tuple[int, ...], ...]) -> bool:
        return self._varies or shapes not in self._seen

    def _warranted(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> float:
        return budget.warranted(self._stored, sum(array.size for array in arrays.values()))

    def _largest(self) -> float:
        """Return the elements of the largest value whose shape the program says."""
        kinds = (item.type for operation in walk(self._function.block.operations) for item in operation.outputs)
        shapes = (kind.shape for kind in kinds if isinstance(kind, TensorType))
        return max((math.prod(size or 0 for size in shape) for shape in shapes if shape is not None), default=0)

    def _failing(self, arrays: Mapping[str, np.ndarray[Any, Any]], state: State | None) -> str:
        """Return a text that names the refused operation, found by running again; empty where that run succeeds."""
        give_back()  # what the first run made
        tracker = Tracker(self.module)
        try:
            with torch.inference_mode(), self._guarded(arrays):
                tracker.run(*self.operands(arrays, state))
        except Exception:
            return f"{tracker.where()}: "
        return ""

    def _named(self, outputs: Sequence[Any]) -> dict[str, Any]:
        named = zip(self.output_names, outputs, strict=True)
        return {name: self._present.get(name, _to_numpy)(value) for name, value in named}

    def operands(self, arrays: Mapping[str, np.ndarray[Any, Any]], state: State | None = None) -> list[Any]:
        """Return the inputs as tensors on the engine's device, in the graph's order, states among them."""
        use_one_thread()
        state = self.make_state() if state is None else state
        operands: list[Any] = []
        for item in self._function.inputs:
            if isinstance(item.type, StateType):
                operands.append(held(state, item.name, item.type.wrapped))
            else:
                operands.append(self._to_carrier(arrays[item.name], item.type, self.device))
        return operands

    def _to_carrier(self, array: np.ndarray[Any, Any], kind: Type, device: torch.device) -> torch.Tensor:
        assert isinstance(kind, TensorType)  # as __init__ made sure
        # A copy in C order: torch refuses numpy's views with negative strides.
        tensor = torch.from_numpy(np.array(array, order="C"))
        if device.type == "cuda":
            if self._convolves and tensor.ndim == 4:  # as its convolutions want it, outside what is timed
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            tensor = tensor.pin_memory()
        carriers = HALVED if self.halved else ops.CARRIERS
        tensor = tensor.to(device, non_blocking=True).to(carriers[kind.dtype])
        # A port has at least one axis; a scalar in the program has none.
        if kind.shape == ():
            tensor = tensor.reshape(())
        if self.halved:
            return tensor
        return ops.round_f16(tensor) if kind.dtype is DType.FP16 and self._rounding else tensor

    def _compile(self, operands: Sequence[Any]) -> None:
        from torch._inductor import config as inductor

        settings = {"freezing": True, "emulate_precision_casts": True}
        try:
            told = slowly("compiling with torch.compile")
            with told, inductor.patch(settings), torch.inference_mode(), warnings.catch_warnings():
                # Inductor warns about the machine (few cores, no GPU), which is not about the model.
                warnings.simplefilter("ignore")
                self._check_compiler()
                self._forward(*operands)
        except TlkitError:
            raise
        except Exception as error:
            raise ExecutionError(f"torch.compile failed: {reason(error)}", "use --engine eager") from error

    def _check_compiler(self) -> None:
        """Refuse a compiler that drops f16's roundings; a GPU's values are of f16 and round by themselves."""
        if self.halved or not self._rounding or selftest.is_known_to_keep_rounding() or selftest.keeps_rounding():
            return
        raise UnavailableError(
            f"PyTorch {torch.__version__} compiles f16's rounding away on this machine",
            "use --engine eager, --precision f32, or PyTorch 2.13 or later",
        )

    def _explain(
        self, arrays: Mapping[str, np.ndarray[Any, Any]], state: State | None, error: Exception
    ) -> ExecutionError:
        """Run again op by op to name the one that failed."""
        tracker = Tracker(self.module)
        try:
            with torch.inference_mode():
                tracker.run(*self.operands(arrays, state))
        except Exception:
            return ExecutionError(f"{tracker.where()}: {reason(error)}")
        return ExecutionError(reason(error))


def _may_vary(node: fx.Node) -> bool:
    """Whether a node reads back a value that may decide on sizes; where a slice goes in decides on none."""
    return node.target is ops.host and not all(user.target in _PLACED for user in node.users)


def _to_numpy(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    wide = value.to(torch.float32) if value.dtype is torch.float16 else value
    array = wide.detach().cpu().contiguous().numpy()
    # Core ML has no rank 0: scalars come back as arrays of one element.
    return array.reshape(1) if array.ndim == 0 else array
