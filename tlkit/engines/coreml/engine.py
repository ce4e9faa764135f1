"""The Core ML engine: Apple's own runtime, on macOS, through coremltools' documented API.

A model is compiled once (``.mlmodelc``) and loaded from there, because the Neural Engine's cache of compiled models is
keyed by path: loading it again from the same path hits a warm cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from sys import modules
from typing import TYPE_CHECKING, Any

from tlkit.errors import ExecutionError, LoadError, UnavailableError, reason
from tlkit.host.machine import is_mac
from tlkit.host.scratch import scratch_folder
from tlkit.types import TensorSpec, Unit

if TYPE_CHECKING:
    Arrays = Mapping[str, Any]

_COMPUTE_UNITS = {Unit.ALL: "ALL", Unit.CPU: "CPU_ONLY", Unit.GPU: "CPU_AND_GPU", Unit.ANE: "CPU_AND_NE"}


def compile_model(path: Path, folder: Path) -> Path:
    """Compile the package or ``.mlmodel`` at ``path`` into ``folder`` (which exists); return the ``.mlmodelc``."""
    _require_macos()
    from coremltools.models.utils import compile_model as compile_with_apple

    goal = folder / f"{path.stem}.mlmodelc"
    try:
        compile_with_apple(str(path), destination_path=str(goal))
    except Exception as error:
        raise LoadError(f"{path}: Core ML cannot compile it: {reason(error, whole=True)}") from error
    return goal


class CoreMLEngine:
    """Runs a model with Core ML under one compute-unit setting.

    ``inputs`` are the model's input ports: image ports take arrays (N, C, H, W) of 0..255 and Core ML gets a PIL image.
    Results are Core ML's own: arrays, PIL images, a label and a dictionary of probabilities.
    """

    name = "coreml"

    def __init__(
        self, path: Path, inputs: Sequence[TensorSpec], *, unit: Unit = Unit.ALL, function: str | None = None
    ) -> None:
        """Load ``path``: a ``.mlmodelc`` as it is, anything else after compiling it to a temporary folder.

        Raises UnavailableError off macOS, LoadError where Core ML refuses the model.
        """
        _require_macos()
        import coremltools as ct

        if path.suffix != ".mlmodelc":
            path = compile_model(path, scratch_folder("tlkit-compiled-", self))
        self.input_names = tuple(spec.name for spec in inputs)
        self._images = {spec.name: spec for spec in inputs if spec.kind == "image"}
        try:
            self._model = ct.models.CompiledMLModel(
                str(path), compute_units=ct.ComputeUnit[_COMPUTE_UNITS[unit]], function_name=function
            )
        except Exception as error:
            raise LoadError(f"{path}: Core ML cannot load it: {reason(error, whole=True)}") from error

    def make_state(self) -> Any:
        """Return a fresh state (coremltools' MLState), for a stateful model on macOS 15 or newer."""
        return self._model.make_state()

    def bind(self, arrays: Arrays, state: Any = None) -> Callable[[], dict[str, Any]]:
        """Convert the inputs once and return a call that runs exactly one inference on them."""
        features = {name: self._feature(name, value) for name, value in arrays.items()}
        model = self._model

        def call() -> dict[str, Any]:
            outputs: dict[str, Any] = model.predict(features, state)
            return outputs

        return call

    def run(self, arrays: Arrays, state: Any = None) -> dict[str, Any]:
        """Run once; return the outputs by name. Raises ExecutionError with Core ML's reason."""
        call = self.bind(arrays, state)
        try:
            return call()
        except Exception as error:
            raise ExecutionError(f"Core ML: {reason(error, whole=True)}") from error

    def _feature(self, name: str, value: Any) -> Any:
        spec = self._images.get(name)
        if spec is not None and spec.image is not None and hasattr(value, "ndim"):
            from tlkit.ports.images import to_picture  # late: it imports numpy

            return to_picture(spec.image.layout, value)
        if getattr(value, "dtype", None) == "float16":
            return value.astype("float32")  # coremltools does so at every call; doing it here keeps it out of the time
        return value


def available() -> bool:
    """Whether Core ML is here: on a Mac, or where something stands in for its runtime (``tlkit.anywhere``)."""
    return is_mac() or hasattr(modules.get("coremltools.libcoremlpython"), "stands_in")


def _require_macos() -> None:
    if not available():
        raise UnavailableError("Core ML is not here: it is part of macOS", "off a Mac, tlkit runs models with PyTorch")
