"""What a measuring child measures: a model file under one setting. Runs in the child (``_worker.py``) alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.types import Unit


@dataclass(frozen=True, slots=True)
class Target:
    """A model file under one setting, as the parent tells the child (JSON): see :func:`make`."""

    path: str
    unit: str
    precision: str = "f16"
    engine: str = "eager"
    arrays: str = ""


def make(**arguments: Any) -> TorchSubject | CoreMLSubject:
    """Return what measures the :class:`Target` with these fields: Core ML on a Mac, the torch engine elsewhere.

    ``arrays`` is an .npz file with the inputs (see :func:`store_inputs`).
    """
    target = Target(**arguments)
    return CoreMLSubject(target) if sys.platform == "darwin" else TorchSubject(target)


class TorchSubject:
    """The torch engine, on the device that stands for the setting."""

    def __init__(self, target: Target) -> None:
        # What load() and bind() would import is imported here: they are timed.
        import tlkit.core.inputs
        import tlkit.core.load
        import tlkit.formats.coreml  # noqa: F401
        from tlkit.engines.torch import device_for

        self._target = target
        self._device = device_for(Unit(target.unit))
        self._inputs = _inputs(target)

    def load(self) -> Any:
        """Open the file, lower its program and bring the weights to the device."""
        from tlkit.core.load import load_model

        target = self._target
        model = load_model(target.path, precision=target.precision, engine=target.engine, unit=target.unit)
        _ = model.engine  # made when first asked for
        return model

    def bind(self, model: Any) -> Callable[[], object]:
        """Return the call to time."""
        call: Callable[[], object] = model.bind(self._inputs)
        return call

    def describe(self) -> dict[str, Any]:
        """Return what runs the model."""
        import torch

        kind = self._device.type
        return {
            "backend": f"PyTorch {torch.__version__}, {self._target.engine}, {self._target.precision}",
            "device": torch.cuda.get_device_name(self._device) if kind == "cuda" else kind,
            "threads": torch.get_num_threads() if kind == "cpu" else None,
        }


class CoreMLSubject:
    """Apple's Core ML under the setting; ``target.path`` is the package, compiled beside the inputs by the parent."""

    def __init__(self, target: Target) -> None:
        import coremltools  # noqa: F401  (its import is no part of the load)

        from tlkit.core.load import inspect

        self._target = target
        self._specs = inspect(target.path).inputs
        self._inputs = _inputs(target)

    def load(self) -> Any:
        """Load the compiled model: every setting from the same path."""
        from tlkit.engines.coreml import CoreMLEngine

        compiled = Path(self._target.arrays).parent / f"{Path(self._target.path).stem}.mlmodelc"
        return CoreMLEngine(compiled, self._specs, unit=Unit(self._target.unit))

    def bind(self, model: Any) -> Callable[[], object]:
        """Return the call to time."""
        call: Callable[[], object] = model.bind(self._inputs)
        return call

    def describe(self) -> dict[str, Any]:
        """Return what runs the model."""
        return {"backend": "Core ML", "device": self._target.unit, "threads": None}


def store_inputs(arrays: Mapping[str, Any], file: Path) -> None:
    """Write the inputs for the children. They go by number: a port's name may hold what a zip member's may not."""
    import numpy as np

    stored: dict[str, Any] = {f"a{index}": array for index, array in enumerate(arrays.values())}
    np.savez(file, names=np.array(list(arrays), dtype=str), **stored)


def _inputs(target: Target) -> dict[str, Any]:
    import numpy as np

    with np.load(target.arrays, allow_pickle=False) as stored:
        return {str(name): stored[f"a{index}"] for index, name in enumerate(stored["names"])}
