"""coremltools' own ``predict``, off a Mac: ``tlkit.anywhere.install()``, or ``pytest -p tlkit.anywhere``.

After it, ``MLModel(...).predict``, batch predict, ``make_state``, ``compile_model`` and ``CompiledMLModel`` run
mlprograms with tlkit's executor on Linux and Windows. On a Mac it does nothing: Core ML itself is there.

coremltools reaches Core ML through one extension module, ``coremltools.libcoremlpython``, and asks three probes whether
this is a Mac; both were found by reading coremltools 9.0. This module puts a Python module of that name in place and
answers the probes as a current Mac would. What cannot be honoured here (compute plans, devices) raises RuntimeError,
which is what coremltools' callers expect of Core ML, and says so.

It is as strict as Core ML (``core/model/features.py``): what a Mac refuses is refused here, so that a test that passes
here passes there.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tlkit.errors import ExecutionError, TlkitError, UsageError
from tlkit.host.machine import is_mac
from tlkit.host.scratch import scratch_folder
from tlkit.mil.opsets import NEWEST
from tlkit.types import Unit

MACOS_VERSION = (26, 0)
"""The macOS that the probes report: the newest whose opset (CoreML9) tlkit reads."""

SPEC_VERSION = NEWEST.version
"""The newest specification version, that of iOS 26 and macOS 26."""

_MODULE = "coremltools.libcoremlpython"
_UNITS = {"ALL": Unit.ALL, "CPU_ONLY": Unit.CPU, "CPU_AND_GPU": Unit.GPU, "CPU_AND_NE": Unit.ANE}


def install() -> None:
    """Make coremltools predict with tlkit's executor in this process; safe to call twice, and a no-op on a Mac."""
    if is_mac() or isinstance(sys.modules.get(_MODULE), _Stand):
        return
    stand = sys.modules[_MODULE] = _Stand(_MODULE, "Stands in for Core ML's extension module off a Mac.")
    # Only now: while it is imported, coremltools takes its proxies from the stand-in.
    import coremltools

    coremltools.libcoremlpython = stand
    # Modules import the probes by name, so each has its own to be replaced.
    for module in [m for name, m in sys.modules.items() if name.partition(".")[0] == "coremltools"]:
        for name, value in _REPLACED.items():
            if name in vars(module) and module is not stand:
                setattr(module, name, value)


def pytest_configure(config: Any) -> None:
    """Install when loaded as a pytest plugin, before any test imports coremltools."""
    install()


class _Stand(ModuleType):
    """The stand-in module: its names are those of the real one that coremltools imports."""

    stands_in = True

    def __init__(self, name: str, doc: str) -> None:
        super().__init__(name, doc)
        self.__dict__.update({key: value for key, value in _REPLACED.items() if key.endswith("Proxy")})


def _translated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Raise RuntimeError for tlkit's errors, as the real extension does for Core ML's (and in its words)."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TlkitError as error:
            # Who calls from Python has no command line: advice that names its flags is none.
            advised = error.hint and not re.search(r"(?<!\w)--\w", error.hint)
            told = f"{error.message.rstrip('.')}. {error.hint}" if advised else error.message
            # Callers look for Core ML's own words where an inference fails.
            failed = "Unable to compute the prediction using ML Program: " if isinstance(error, ExecutionError) else ""
            raise RuntimeError(failed + told) from error

    return call


class _ModelProxy:
    """Stands in for ``_MLModelProxy``: one loaded model (or compiled model, or asset)."""

    @_translated
    def __init__(
        self, path: str, compute_units: str, function_name: str, hints: Mapping[str, str], asset: _AssetProxy | None
    ) -> None:
        from tlkit.core.model.load import load_model

        start = time.perf_counter_ns()
        source = asset.path if asset is not None else Path(path)
        unit = Unit.GPU if _UNITS[compute_units] is Unit.GPU and _has_gpu() else Unit.CPU
        engine = os.environ.get("TLKIT_ENGINE", "auto")
        self._model = load_model(source, engine=engine, unit=unit, function=function_name or None)
        self._model.prepare()
        self._asset = asset  # its files live as long as somebody uses it
        self._path = source
        self._compiled = source if source.is_dir() and source.suffix == ".mlmodelc" else None
        if source.is_file():
            self._compile()  # coremltools deletes a .mlmodel as soon as it is loaded
        self._load_ns = time.perf_counter_ns() - start
        self._predict_ns: int | None = None

    @_translated
    def predict(self, data: Mapping[str, Any], state: _StateProxy | None = None) -> dict[str, Any]:
        from tlkit.core.model.features import check_features

        start = time.perf_counter_ns()
        states = () if state is not None else tuple(spec.name for spec in self._model.info.states)
        check_features(self._model.inputs, data, states)
        result = self._model.predict(data, None if state is None else state.state)
        self._predict_ns = time.perf_counter_ns() - start
        return {name: _with_alpha(value) for name, value in result.items()}

    def batchPredict(self, batch: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [self.predict(data) for data in batch]

    @_translated
    def newState(self) -> _StateProxy:
        return _StateProxy(self._model.make_state())

    @_translated
    def get_compiled_model_path(self) -> str:
        """Return the compiled model, which lives as long as this object does."""
        return str(self._compiled or self._compile())

    def _compile(self) -> Path:
        folder = scratch_folder("tlkit-compiled-", self) / f"{self._path.stem}.mlmodelc"
        folder.mkdir()
        self._compiled = _compile(self._path, folder, linked=True)
        return self._compiled

    def get_load_duration_in_nano_seconds(self) -> int:
        return self._load_ns

    def get_last_predict_duration_in_nano_seconds(self) -> int | None:
        return self._predict_ns

    @staticmethod
    def maximum_supported_specification_version() -> int:
        return SPEC_VERSION

    @staticmethod
    def auto_set_specification_version(spec: Any) -> Any:
        return spec

    @staticmethod
    @_translated
    def compileModel(path: str) -> str:
        from tlkit.formats.coreml.open import open_package

        _ = open_package(Path(path)).program  # what cannot be read is refused now
        folder = Path(tempfile.mkdtemp(prefix=f"{Path(path).stem}_", suffix=".mlmodelc"))  # the caller's from now on
        return str(_compile(Path(path), folder))

    @staticmethod
    @_translated
    def create_model_asset_from_path(path: str) -> Any:
        from coremltools.models.model import MLModelAsset

        _check_compiled(path, "an asset is made of")
        return MLModelAsset(_AssetProxy(Path(path)))

    @staticmethod
    @_translated
    def create_model_asset_from_memory(spec_data: bytes, blob_mapping: Mapping[str, bytes]) -> Any:
        from coremltools.models.model import MLModelAsset

        asset = _AssetProxy(Path())
        folder = scratch_folder("tlkit-asset-", asset) / "model"
        folder.mkdir()
        asset.path = folder / "source.mlmodel"
        asset.path.write_bytes(spec_data)
        for name, data in blob_mapping.items():
            target = folder / name.removeprefix("@model_path/").lstrip("/")
            if not target.resolve().is_relative_to(folder.resolve()):
                raise UsageError(f"the blob '{name}' lies outside the model", "name it weights/weight.bin")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return MLModelAsset(asset)

    @staticmethod
    @_translated
    def get_model_structure(path: str) -> Any:
        from tlkit.engines.coreml.structure import model_structure
        from tlkit.formats.coreml.open import open_package

        _check_compiled(path, "a structure is read from")
        return model_structure(open_package(Path(path)))

    @staticmethod
    def _absent(*_: Any) -> Any:
        raise RuntimeError("compute plans and devices are Apple's: tlkit.anywhere runs models off a Mac, it has none")

    get_available_compute_devices = get_all_compute_devices = get_compute_plan = _absent


class _StateProxy:
    """Stands in for Core ML's state object."""

    def __init__(self, state: Any) -> None:
        self.state = state

    @_translated
    def read_state(self, name: str) -> Any:
        return self.state.read(name)

    @_translated
    def write_state(self, name: str, value: Any) -> None:
        self.state.write(name, value)


class _AssetProxy:
    """Stands in for ``_MLModelAssetProxy``: a model that is named but not loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path


class _DeviceProxy:
    """Stands in for the device classes, of which there is none here."""


def _check_compiled(path: str, purpose: str) -> None:
    if not Path(path).is_dir() or Path(path).suffix != ".mlmodelc":
        raise UsageError(f"{path}: {purpose} a compiled model", "compile it first: compile_model")


def _compile(path: Path, folder: Path, *, linked: bool = False) -> Path:
    """Copy the model into ``folder``, a new ``.mlmodelc``: here compiling changes nothing that the executor needs.

    ``linked`` takes the files as hard links where the file system has them, for a copy that goes with its user.
    """
    copy = _link if linked else shutil.copy
    if path.is_dir():
        shutil.copytree(path, folder / f"source{path.suffix}", copy_function=copy)
    else:
        copy(str(path), str(folder / f"source{path.suffix}"))
    return folder


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def _with_alpha(value: Any) -> Any:
    """A colour image as coremltools' binding has it: RGBA, opaque."""
    return value.convert("RGBA") if getattr(value, "mode", None) == "RGB" else value


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


_REPLACED: dict[str, Any] = {
    "_MLModelProxy": _ModelProxy,
    "_MLModelAssetProxy": _AssetProxy,
    "_MLComputePlanProxy": _DeviceProxy,
    "_MLCPUComputeDeviceProxy": _DeviceProxy,
    "_MLGPUComputeDeviceProxy": _DeviceProxy,
    "_MLNeuralEngineComputeDeviceProxy": _DeviceProxy,
    "_IS_MACOS": True,
    "_is_macos": lambda: True,
    "_macos_version": lambda: MACOS_VERSION,
}
