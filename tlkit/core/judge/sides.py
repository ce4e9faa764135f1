"""The two sides of a comparison: anything that gives outputs for a case's inputs, opened when it is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.core.convert.capture.cases import Case
from tlkit.core.judge.side import HowToOpen, Side, paired_inputs
from tlkit.core.model.arrays import read_arrays
from tlkit.core.model.load import Model, inspect, load_model
from tlkit.errors import LoadError, UnavailableError, UsageError, reason
from tlkit.formats.base import sniff
from tlkit.host.quiet import quiet
from tlkit.ports.images import scaled, to_picture
from tlkit.types import TensorSpec

Array = NDArray[Any]
FILES = "files"
"""In a folder's saved outputs: the names of the files, one a row."""


def open_side(text: str | Path | Any, how: HowToOpen) -> Side:
    """Return the side that ``text`` names: a Core ML model, an ONNX file, saved outputs, or a source of ``convert``.

    Raises UsageError or LoadError where it is none of them.
    """
    path = Path(text) if isinstance(text, str | Path) else None
    if path is not None and path.suffix == ".npz":
        return Saved(path)
    found: sniff.Format | None = None
    if path is not None and path.suffix in _FILES and not path.exists():
        raise LoadError(f"{path}: no such file or folder", "check the path")
    if path is not None and path.exists():
        try:
            found = sniff.detect(path)
        except LoadError:
            found = None  # a folder of Hugging Face's, perhaps, or a file that `load_source` knows
    if found in sniff.COREML:
        return PackageSide(load_model(str(path), **_package_settings(how)), how)
    if found is sniff.Format.ONNX:
        assert path is not None
        return OnnxSide(path)
    from tlkit.core.judge.source import SourceSide  # late: it imports torch

    return SourceSide(text, trust=how.trust)


_FILES = {".mlpackage", ".mlmodel", ".mlmodelc", ".onnx", ".pt", ".pt2", ".pth", ".zip"}
"""What is no module's name: a source may be ``package.module:callable``."""


def _package_settings(how: HowToOpen) -> dict[str, Any]:
    names = ("precision", "engine", "unit", "function", "emulate", "strict_mil", "stage", "cache", "custom")
    return {name: getattr(how, name) for name in names} | {"chip": how.chip if how.emulate else None}


class PackageSide(Side):
    """A Core ML model of any kind, run by one of tlkit's engines."""

    def __init__(self, model: Model, how: HowToOpen) -> None:
        self.model, self.text = model, str(model.path)
        self.inputs = model.inputs
        self.half = how.precision != "f32" and bool(model.info.compute.get("F16"))
        computed = "f16 as declared" if self.half else "f32"
        computed = "bf16, not faithful to f16" if how.precision == "bf16" else computed
        self.told = f"{model.info.kind}, {computed}, {how.engine}"
        self.told += f", emulated: {how.emulate}" if how.emulate else ""
        self.how = how

    @property
    def rests_on(self) -> str:
        """See :class:`Side`."""
        found = self.model.emulated
        return "" if found is None else f"{self.how.emulate}: {found.text}"

    def run(self, case: Case) -> Mapping[str, Any]:
        """See :class:`Side`; a model's states begin at zero for each case."""
        given = package_values(self.model, case)
        with quiet():
            state = self.model.make_state() if self.model.info.states else None
            return self.model.predict(given, state)


def package_values(model: Model, case: Case) -> dict[str, Any]:
    """Return a case's values by the model's names, as ``Model.predict`` takes them."""
    given = paired_inputs(case, model.inputs, str(model.path))
    return {name: _picture(port, value) for name, (port, value) in given.items()}


def _picture(port: TensorSpec, value: Array) -> Any:
    """Return a case's value as ``Model.predict`` takes it: a picture is (C, H, W) in a case."""
    if port.image is None:
        return value
    return to_picture(port.image.layout, value) if value.ndim == 3 else value


class OnnxSide(Side):
    """An ONNX file, run by onnxruntime on the CPU."""

    def __init__(self, path: Path) -> None:
        self.path, self.text, self.told = path, str(path), "ONNX, onnxruntime"
        # ONNX's int64 is the int32 of cases, and a length with a name is the other side's, or --shape's.
        self.inputs = tuple(
            TensorSpec(port.name, _type(port.dtype), _fixed(port.shape), ranges=port.ranges)
            for port in inspect(path).inputs
        )

    @cached_property
    def session(self) -> Any:
        """The file, loaded when it is first run."""
        return session_of(self.path)

    def run(self, case: Case) -> Mapping[str, Any]:
        """See :class:`Side`."""
        names = [item.name for item in self.session.get_outputs()]
        return dict(zip(names, onnx_run(self.session, None, self.feed(case), self.text), strict=True))

    def feed(self, case: Case) -> dict[str, Array]:
        """Return the case's inputs as the session takes them."""
        assert self.inputs is not None
        wanted = {item.name: _TYPES.get(item.type, "float32") for item in self.session.get_inputs()}
        found = {}
        ports = {id(value): port for port, value in zip(case.ports, case.values, strict=True)}
        for name, (_, value) in paired_inputs(case, self.inputs, self.text).items():
            pixels = value.dtype == np.uint8 and value.ndim == 3
            found[name] = (scaled(ports[id(value)], value) if pixels else value).astype(wanted[name])
        return found


def onnx_run(session: Any, names: Sequence[str] | None, feed: Mapping[str, Array], text: str) -> list[Array]:
    """Run a session; LoadError with onnxruntime's reason where it refuses the inputs."""
    try:
        found: list[Array] = session.run(names, dict(feed))
    except Exception as error:
        raise LoadError(f"{text}: onnxruntime: {reason(error)}", "check the shapes of its inputs") from error
    return found


_TYPES = {
    **{f"tensor({name})": name for name in ("float16", "int64", "int32", "int16", "int8", "uint8", "bool")},
    **{"tensor(float)": "float32", "tensor(double)": "float64"},
}


def session_of(path: Path, model: bytes | None = None) -> Any:
    """Return onnxruntime's session for the file at ``path``, or for ``model``; UnavailableError where it is missing."""
    try:
        import onnxruntime
    except ImportError:
        raise UnavailableError("onnxruntime is not installed", "pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(model or str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise LoadError(f"{path}: onnxruntime does not load it: {reason(error)}", "check the file") from error


def _type(dtype: str) -> str:
    return "int32" if dtype.startswith(("int", "bool")) else "float32"


def _fixed(shape: Sequence[Any]) -> tuple[int, ...]:
    """Return a shape with 1 where ONNX has a name: cases come from the other side, or from --shape."""
    return tuple(size if isinstance(size, int) and size > 0 else 1 for size in shape)


class Saved(Side):
    """Outputs that were saved by ``run --save-outputs``: of one run, or of a folder (then an array ``files``)."""

    def __init__(self, path: Path) -> None:
        self.text, self.told = str(path), "saved outputs"
        found = read_arrays(path)
        self._arrays = found if isinstance(found, dict) else {path.stem: found}
        self._files = [str(name) for name in self._arrays.pop(FILES, np.array([]))]
        self._arrays = {name: value for name, value in self._arrays.items() if not name.endswith(".labels")}
        if not self._arrays:
            raise LoadError(f"{path}: no arrays in it", "save outputs with tlkit run --save-outputs")

    def run(self, case: Case) -> Mapping[str, Any]:
        """See :class:`Side`; UsageError where the file has no row for the case."""
        numbers = {name: value for name, value in self._arrays.items() if value.dtype.kind in "biuf"}
        if not self._files:
            return numbers
        if case.name not in self._files:
            raise UsageError(f"{self.text}: no outputs for {case.name}", f"it has {', '.join(self._files[:4])} ...")
        row = self._files.index(case.name)
        return {name: value[row] for name, value in numbers.items()}
