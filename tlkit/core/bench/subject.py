"""What a measuring child measures: a model under one setting. Runs only in the child (``worker.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.core.model.engines import measured
from tlkit.engines.engine import Allocation, HowToRun, Loadable
from tlkit.errors import TlkitError, UnavailableError
from tlkit.host import budget
from tlkit.host.allocator import keep_freed
from tlkit.types import Unit


@dataclass(frozen=True, slots=True)
class Task:
    """A model under one setting, as the parent tells the child (JSON): see :func:`make`."""

    path: str
    unit: str
    precision: str = "f16"
    engine: str = "eager"
    arrays: str = ""
    compiled: str = ""
    function: str | None = None
    strict_mil: bool = False
    cache: bool = True
    custom: Sequence[str] = ()
    trust: bool = False
    drawn: bool = False
    """Whether the inputs were drawn, in shapes that the file asks for."""

    @property
    def settings(self) -> HowToRun:
        """The setting, as engines take it."""
        return HowToRun(self.precision, self.engine, Unit(self.unit), self.strict_mil, cache=self.cache)


def make(**arguments: Any) -> EngineSubject:
    """Return the subject for the :class:`Task` with these fields, on this machine's engine.

    ``arrays`` is an .npz file with the inputs (see :func:`store_inputs`), ``compiled`` the compiled model to load.
    """
    return EngineSubject(Task(**arguments))


def make_source(**arguments: Any) -> SourceSubject:
    """Return what measures the PyTorch source (``path`` is its text) under the :class:`Task` with these fields."""
    return SourceSubject(Task(**arguments))


class EngineSubject:
    """An engine under the setting. Where the model was compiled, every setting loads that, from the same path."""

    def __init__(self, target: Task) -> None:
        # What load() and bind() would import is imported here: they are timed.
        import tlkit.core.model.inputs
        import tlkit.formats.coreml.describe  # noqa: F401
        from tlkit.core.model.load import load_model

        self._target = target
        self._settings = target.settings
        self._kind = measured(target.engine)
        self._kind.begin(self._settings)
        self._inputs = _inputs(target)
        self._compiled: Loadable | None = None
        self._bound: Any = None
        if target.compiled:
            model = load_model(target.path, function=target.function)
            self._compiled = model.loadable(Path(target.compiled))
        self.rebind = self._kind.rebinds(self._settings)

    def load(self, streams: int = 1) -> Any:
        """Load what was compiled; or open the file, read its program and bring the weights to the device."""
        if self._compiled is not None:
            return self._kind.load(self._compiled, self._settings)
        from tlkit.core.model.custom import customs
        from tlkit.core.model.load import load_model

        target = self._target
        options: dict[str, Any] = {"precision": target.precision, "engine": target.engine, "unit": target.unit}
        options |= {
            "strict_mil": target.strict_mil,
            "custom": customs(target.custom),
            "cache": target.cache,
            "streams": streams,
        }
        model = load_model(target.path, **options, function=target.function)
        model.prepare()
        return model

    def bind(self, model: Any) -> Callable[[], object]:
        """Return the call to time."""
        self._bound = model
        with budget.drawn(self._target.drawn):
            call: Callable[[], object] = model.bind(self._inputs)
        return call

    def crowd(self, model: Any, callers: int) -> list[Callable[[], object]]:
        """Return a call for each of several callers at once: by the engine's own streams, where it has them."""
        if hasattr(getattr(model, "engine", None), "streams"):
            model = self.load(callers)
        with budget.drawn(self._target.drawn):
            return [model.bind(self._inputs) for _ in range(callers)]

    def describe(self) -> dict[str, Any]:
        """Return what runs the model; an engine that chooses another one knows it once inputs are bound."""
        told = getattr(getattr(self._bound, "engine", None), "describe", None)
        found: dict[str, Any] = told() if told else self._kind.describe(self._settings)
        return found

    def placement(self, model: Any, per_op: bool) -> dict[str, Any]:
        """Return which unit runs which operation, or why nobody knows; what costs a run only if that is asked for."""
        if self._kind.placement_is_costly and not per_op:
            return {}
        whole = self._compiled is None
        engine, arrays = (model.engine, model.arrays(self._inputs)) if whole else (model, self._inputs)
        try:
            loadable = self._compiled or model.loadable()
            tell = getattr(engine, "placement", None)
            found = tell(arrays, loadable) if tell else self._kind.placement(engine, arrays, loadable, self._settings)
        except TlkitError as error:
            return {"note": error.message}
        return _placement(found, per_op)


class SourceSubject:
    """A PyTorch module as its author wrote it, in eager f32, on the device that stands for the setting."""

    rebind = True

    def __init__(self, target: Task) -> None:
        import tlkit.core.convert.source.source  # noqa: F401
        from tlkit.engines.torch.device import device_for

        if target.unit == Unit.ANE:
            raise UnavailableError(
                "PyTorch does not reach the Neural Engine", "convert the source, measure its package"
            )
        self._target = target
        self._device = device_for(Unit(target.unit))
        self._inputs = _inputs(target)

    def load(self) -> Any:
        """Build the module, or read the TorchScript file, and bring the weights to the device."""
        from tlkit.core.convert.source.source import load_source

        module = load_source(self._target.path, trust=self._target.trust).module.eval().to(self._device)
        if self._device.type == "cpu":
            keep_freed()  # as the engine does: what is compared is the work, not who clears pages
        return module

    def bind(self, model: Any) -> Callable[[], object]:
        """Return the call to time."""
        import numpy as np
        import torch

        from tlkit.engines.torch.device import waiting_call

        def tensor(array: Any) -> torch.Tensor:
            return torch.from_numpy(np.array(array, np.float32 if array.dtype == np.float16 else None)).to(self._device)

        operands = [tensor(array) for array in self._inputs.values()]
        watched = (
            isinstance(model, torch.jit.ScriptModule) and not self._target.trust
        )  # a stranger's, not the user's code
        if watched and self._target.engine == "compile":
            # Once as it is and guarded, before torch compiles a stranger's code.
            self._guarded(waiting_call(model, operands, self._device))()
        forward = torch.compile(model, dynamic=False) if self._target.engine == "compile" else model
        call = waiting_call(forward, operands, self._device)
        return self._guarded(call) if watched and forward is model else call

    def _guarded(self, call: Callable[[], object]) -> Callable[[], object]:
        from tlkit.engines.torch.guarded import FirstGuarded

        elements = sum(array.size for array in self._inputs.values())
        with budget.drawn(self._target.drawn):
            most = budget.warranted(Path(self._target.path).stat().st_size, elements)
        return FirstGuarded(call, most)

    def describe(self) -> dict[str, Any]:
        """Return what runs the model."""
        from tlkit.engines.torch.device import described

        return described(self._device, f"{self._target.engine}, as written")


def store_inputs(values: Mapping[str, Any], file: Path) -> None:
    """Write the inputs for the children. They go by number: a port's name may hold what a zip member's may not.

    Texts, dictionaries and sequences become JSON, a dictionary as pairs, since its keys may be integers.
    """
    import json

    import numpy as np

    stored: dict[str, Any] = {}
    for index, value in enumerate(values.values()):
        plain = not isinstance(value, np.ndarray)
        pairs = list(value.items()) if isinstance(value, Mapping) else None
        text = json.dumps({"value": value} if pairs is None else {"pairs": pairs}) if plain else None
        stored[f"{'j' if plain else 'a'}{index}"] = value if text is None else np.array(text)
    np.savez(file, names=np.array(list(values), dtype=str), **stored)


def _inputs(target: Task) -> dict[str, Any]:
    import numpy as np

    with np.load(target.arrays, allow_pickle=False) as stored:
        return {str(name): _stored(stored, index) for index, name in enumerate(stored["names"])}


def _stored(stored: Any, index: int) -> Any:
    import json

    if f"a{index}" in stored.files:
        return stored[f"a{index}"]
    found = json.loads(str(stored[f"j{index}"]))
    return dict(map(tuple, found["pairs"])) if "pairs" in found else found["value"]


def _placement(found: Allocation, per_op: bool) -> dict[str, Any]:
    counts: dict[str, int] = {}
    shares: dict[str, float] = {}
    more = found.costs or ({},) * len(found.operations)
    listed = sorted(zip(found.operations, more, strict=True), key=lambda pair: -(pair[0][3] or 0.0))
    known = any(share is not None for _, _, _, share in found.operations)
    rows = []
    for (name, type_, unit, share), costs in listed:
        counts[unit] = counts.get(unit, 0) + 1
        if known:
            shares[unit] = shares.get(unit, 0.0) + (share or 0.0)
        rows.append({"name": name, "type": type_, "unit": unit, "share": share, **costs})
    told = {"source": found.source, "counts": counts, "shares": shares, "ops": rows if per_op else []}
    return told | ({"roofline": found.roofline} if found.roofline and per_op else {})
