"""The interface of engines: what they can be asked, how their kinds describe themselves, and how one is chosen.

A new engine is a folder beside ``torch/`` and ``coreml/`` with an :class:`Engine` and an :class:`EngineKind`, and an
entry in the table in ``tlkit/core/model/engines.py``. Nothing else names engines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tlkit.mil.program import Function
from tlkit.types import TensorSpec, Unit

if TYPE_CHECKING:
    from tlkit.mil.units.emulation import Emulation

Arrays = Mapping[str, Any]
"""An inference's inputs by name: numpy arrays in the types and shapes of the ports."""


class Can(Enum):
    """Optional abilities of engines, beyond running a model."""

    WATCH = "watch"
    """Run operation by operation and show each (:class:`Watching`)."""
    CHECK = "check"
    """Say which operation first made something infinite or NaN (:class:`Checking`)."""


@dataclass(frozen=True, slots=True)
class HowToRun:
    """How to run a model: ``mode`` is the value of ``--engine``, ``threads`` None leaves the choice to the engine.

    ``streams`` is how many inferences are going to run at once: with more than one, an engine that can splits its
    threads among them, for more throughput and a longer latency; 0 leaves the number to the engine.
    ``part`` says that it is one stage of a pipeline, without a file of its own. ``cache`` lets engines keep what they
    compile in the user's cache folder. ``emulate`` makes, for a function, the emulation of Apple's units by which it is
    run (``mil/units``); None runs it as MIL says.
    """

    precision: str = "f16"
    mode: str = "eager"
    unit: Unit = Unit.CPU
    strict_mil: bool = False
    threads: int | None = None
    part: bool = False
    cache: bool = True
    streams: int = 1
    emulate: Callable[[Function], Emulation] | None = None


@dataclass(frozen=True, slots=True)
class Loadable:
    """What an engine loads: the file or folder, its ports, and the function to run (None: the only one).

    ``program`` returns the MIL function after checking that its weights exist; LoadError where there is none.
    ``message`` is Core ML's ``Model``, for kinds of model that are read from it.
    ``shaped`` is there where the program depends on the shapes of the inputs: it returns the function for those given,
    for the ports' own where it is given None.
    """

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    function: str | None
    program: Callable[[], Function]
    message: Any = None
    shaped: Callable[[Mapping[str, tuple[int, ...]] | None], Function] | None = None


class Engine(Protocol):
    """A model loaded to run."""

    name: str

    def run(self, arrays: Arrays, state: Any = None) -> dict[str, Any]:
        """Run once; return the outputs by name: arrays, pictures, a label, a dictionary of probabilities."""

    def bind(self, arrays: Arrays, state: Any = None) -> Callable[[], Any]:
        """Convert the inputs once; return a call that runs exactly one inference and returns when it is done."""

    def make_state(self) -> Any:
        """Return a fresh state for a stateful model, of a type private to the engine."""


class Watching(Engine, Protocol):
    """An engine that can :attr:`Can.WATCH`."""

    def watch(self, arrays: Arrays, seen: Callable[..., bool], state: Any = None) -> dict[str, Any] | None:
        """Run once and show each operation to ``seen``, which stops the run by returning True; None is returned
        then."""


class Checking(Engine, Protocol):
    """An engine that can :attr:`Can.CHECK`."""

    def check(self, arrays: Arrays, state: Any = None) -> tuple[dict[str, Any], Any]:
        """Run once; return :meth:`run`'s outputs and the first operation with a non-finite result, or None."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an engine does not accept some settings, and which to leave out."""

    message: str
    hint: str


EMULATED = Refusal("PyTorch emulates units, eagerly", "leave --engine out")
"""What every other engine says to :attr:`HowToRun.emulate`."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """Where operations run, and the source of that: (name, type, unit, share of the cost 0..1 or None) for each.

    Where they were measured, ``costs`` has what was met of each, and ``roofline`` the most that the device did
    (``gmacs_per_s``, ``gb_per_s``).
    """

    source: str
    operations: tuple[tuple[str, str, str, float | None], ...]
    costs: tuple[Mapping[str, Any], ...] = ()
    roofline: Mapping[str, float] | None = None


class EngineKind(ABC):
    """An engine's properties before a model is loaded. Importing one imports nothing heavy."""

    name: str
    modes: tuple[str, ...] = ()
    """What ``--engine`` may name, where the engine has ways of running to choose from."""
    can: frozenset[Can] = frozenset()

    @abstractmethod
    def available(self, *, stand_in: bool = False) -> bool:
        """Whether it is available; with ``stand_in``, also where a stand-in replaces it (as measuring asks)."""

    @abstractmethod
    def runs(self, kind: str) -> bool:
        """Whether it runs models of ``kind`` (``mlProgram``, ``pipeline``, ``neuralNetwork``, ...) as they are."""

    def refuses(self, settings: HowToRun) -> Refusal | None:
        """Return why it cannot run models with ``settings``, or None."""
        return None

    @abstractmethod
    def load(self, model: Loadable, settings: HowToRun) -> Engine:
        """Make ``model`` ready to run. Raises LoadError, or UnavailableError where the unit is not here."""

    def checks(self, settings: HowToRun) -> bool:
        """Whether :attr:`Can.CHECK` executes a model exactly as running it does."""
        return False

    # What measuring asks for

    def units(self) -> tuple[Unit, ...]:
        """Return its compute-unit settings on this machine."""
        return (Unit.CPU,)

    def compile(self, path: Path, folder: Path) -> Path | None:
        """Compile ``path``, once, into ``folder`` for every measured process to load; None where they load the file
        itself."""
        return None

    def begin(self, settings: HowToRun) -> None:
        """Import what loading needs, since loading is timed; UnavailableError where the unit is not here."""
        return None

    def rebinds(self, settings: HowToRun) -> bool:
        """Whether inputs can be bound again without compiling or running the model."""
        return True

    def describe(self, settings: HowToRun) -> dict[str, Any]:
        """Return ``backend`` and ``device`` as text, ``threads``, and ``kind``, by which rows are compared."""
        return {"backend": self.name, "device": str(settings.unit), "threads": None, "kind": str(settings.unit)}

    def placement(self, engine: Engine, arrays: Arrays, model: Loadable, settings: HowToRun) -> Allocation:
        """Return which unit runs which operation; UnavailableError where the engine cannot say."""
        return Allocation("", ())

    placement_is_costly: bool = False
    """Whether :meth:`placement` runs the model, and is therefore skipped unless costs per operation are requested."""
