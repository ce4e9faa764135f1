"""What a measuring child measures: a model under one setting. Runs in the child (``worker.py``) alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.engines.coreml import engine as coreml
from tlkit.errors import TlkitError, UnavailableError
from tlkit.host.allocator import keep_freed
from tlkit.types import Unit


@dataclass(frozen=True, slots=True)
class Target:
    """A model under one setting, as the parent tells the child (JSON): see :func:`make`."""

    path: str
    unit: str
    precision: str = "f16"
    engine: str = "eager"
    arrays: str = ""
    compiled: str = ""
    function: str | None = None
    strict_mil: bool = False
    trust: bool = False


def make(**arguments: Any) -> TorchSubject | CoreMLSubject:
    """Return what measures the :class:`Target` with these fields: Core ML on a Mac, the torch engine elsewhere.

    ``arrays`` is an .npz file with the inputs (see :func:`store_inputs`), ``compiled`` the ``.mlmodelc`` to load.
    """
    target = Target(**arguments)
    return CoreMLSubject(target) if coreml.available() else TorchSubject(target)


def make_source(**arguments: Any) -> SourceSubject:
    """Return what measures the PyTorch source (``path`` is its text) under the :class:`Target` with these fields."""
    return SourceSubject(Target(**arguments))


class TorchSubject:
    """The torch engine, on the device that stands for the setting."""

    def __init__(self, target: Target) -> None:
        # What load() and bind() would import is imported here: they are timed.
        import tlkit.core.model.inputs
        import tlkit.core.model.load
        import tlkit.formats.coreml.describe  # noqa: F401
        from tlkit.engines.torch.engine import device_for

        self._target = target
        self._device = device_for(Unit(target.unit))
        self._inputs = _inputs(target)
        self.rebind = target.engine == "eager"  # compiling is part of binding, and runs the model

    def load(self) -> Any:
        """Open the file, lower its program and bring the weights to the device."""
        from tlkit.core.model.load import load_model

        target = self._target
        options = {"precision": target.precision, "engine": target.engine, "unit": target.unit}
        model = load_model(target.path, **options, function=target.function, strict_mil=target.strict_mil)
        model.prepare()
        return model

    def bind(self, model: Any) -> Callable[[], object]:
        """Return the call to time."""
        call: Callable[[], object] = model.bind(self._inputs)
        return call

    def describe(self) -> dict[str, Any]:
        """Return what runs the model."""
        return _on_torch(self._device, f"{self._target.engine}, {self._target.precision}")

    def placement(self, model: Any, per_op: bool) -> dict[str, Any]:
        """Return what each operation costs here, if that is asked for."""
        if not per_op:
            return {}
        from tlkit.engines.torch.profile import profile

        kind = _kind(self._device)
        costs = profile(model.engine, model._arrays(self._inputs))
        return _placement("measured", [(name, type_, kind, share) for name, type_, share in costs], per_op)


class SourceSubject:
    """A PyTorch module as its author wrote it, in eager f32, on the device that stands for the setting."""

    rebind = True

    def __init__(self, target: Target) -> None:
        import tlkit.core.convert.source.source  # noqa: F401
        from tlkit.engines.torch.engine import device_for

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

        from tlkit.engines.torch.engine import waiting_call

        def tensor(array: Any) -> torch.Tensor:
            return torch.from_numpy(np.array(array, np.float32 if array.dtype == np.float16 else None)).to(self._device)

        forward = torch.compile(model, dynamic=False) if self._target.engine == "compile" else model
        return waiting_call(forward, [tensor(array) for array in self._inputs.values()], self._device)

    def describe(self) -> dict[str, Any]:
        """Return what runs the model."""
        return _on_torch(self._device, f"{self._target.engine}, as written")


class CoreMLSubject:
    """Apple's Core ML under the setting, which loads ``target.compiled``: every setting from the same path."""

    rebind = True

    def __init__(self, target: Target) -> None:
        import coremltools  # noqa: F401  (its import is no part of the load)

        from tlkit.core.model.load import load_model

        self._target = target
        self._specs = load_model(target.path, function=target.function).inputs
        self._inputs = _inputs(target)

    def load(self) -> Any:
        """Load the compiled model."""
        path, unit = Path(self._target.compiled), Unit(self._target.unit)
        return coreml.CoreMLEngine(path, self._specs, unit=unit, function=self._target.function)

    def bind(self, model: Any) -> Callable[[], object]:
        """Return the call to time."""
        call: Callable[[], object] = model.bind(self._inputs)
        return call

    def describe(self) -> dict[str, Any]:
        """Return what runs the model."""
        return {"backend": "Core ML", "device": self._target.unit, "threads": None, "kind": f"coreml {sys.platform}"}

    def placement(self, model: Any, per_op: bool) -> dict[str, Any]:
        """Return Core ML's own plan for this setting, or why there is none."""
        from tlkit.engines.coreml.plan import compute_plan

        try:
            plan = compute_plan(Path(self._target.compiled), Unit(self._target.unit), self._target.function)
        except TlkitError as error:
            return {"note": error.message}
        return _placement("MLComputePlan", [(op.name, op.type, op.unit, op.cost) for op in plan], per_op)


def store_inputs(arrays: Mapping[str, Any], file: Path) -> None:
    """Write the inputs for the children. They go by number: a port's name may hold what a zip member's may not."""
    import numpy as np

    stored: dict[str, Any] = {f"a{index}": array for index, array in enumerate(arrays.values())}
    np.savez(file, names=np.array(list(arrays), dtype=str), **stored)


def _inputs(target: Target) -> dict[str, Any]:
    import numpy as np

    with np.load(target.arrays, allow_pickle=False) as stored:
        return {str(name): stored[f"a{index}"] for index, name in enumerate(stored["names"])}


def _kind(device: Any) -> str:
    return "cpu" if device.type == "cpu" else "gpu"


def _on_torch(device: Any, how: str) -> dict[str, Any]:
    import torch

    return {
        "backend": f"PyTorch {torch.__version__}, {how}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "kind": _kind(device),
    }


def _placement(source: str, ops: Iterable[tuple[str, str, str, float | None]], per_op: bool) -> dict[str, Any]:
    counts: dict[str, int] = {}
    shares: dict[str, float] = {}
    listed = sorted(ops, key=lambda op: -(op[3] or 0.0))
    for _, _, unit, share in listed:
        counts[unit] = counts.get(unit, 0) + 1
        if any(op[3] is not None for op in listed):
            shares[unit] = shares.get(unit, 0.0) + (share or 0.0)
    rows = [{"name": name, "type": type_, "unit": unit, "share": share} for name, type_, unit, share in listed]
    return {"source": source, "counts": counts, "shares": shares, "ops": rows if per_op else []}
