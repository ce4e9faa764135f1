"""tlkit: convert, inspect, run and measure models for Apple devices, on a Mac or on Linux.

Importing tlkit is cheap: each public name is imported from its module on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import tlkit.host.forked  # noqa: F401 -- a fork of this process has to know that it is one

if TYPE_CHECKING:
    from tlkit.core.accuracy.accuracy import Accuracy, accuracy
    from tlkit.core.bench.bench import BenchResult, bench
    from tlkit.core.compress.compress import Compressed, compress
    from tlkit.core.compress.door import edit
    from tlkit.core.compress.wish import AutoCompressed
    from tlkit.core.convert.door import convert
    from tlkit.core.convert.export import ExportResult, export
    from tlkit.core.convert.functions import Combined, combine
    from tlkit.core.convert.result import ConversionResult
    from tlkit.core.doctor import Diagnosis, doctor
    from tlkit.core.edit.edit import EditResult
    from tlkit.core.inspect.inspect import inspect
    from tlkit.core.inspect.inspection import Inspection
    from tlkit.core.judge.compare import Judgement, compare
    from tlkit.core.judge.nan import FirstNan, find_nan
    from tlkit.core.model.load import Model, load_model
    from tlkit.core.precision.mixed import MixedPrecision
    from tlkit.core.run.run import RunResult, run
    from tlkit.core.weights.weights import WeightsResult, convert_weights
    from tlkit.errors import (
        ConversionError,
        ExecutionError,
        LoadError,
        TlkitError,
        UnavailableError,
        UsageError,
    )
    from tlkit.types import ImageSpec, Metadata, ModelInfo, TensorSpec, Unit

__version__ = "0.1.0"

_HOMES = {
    "tlkit.core.accuracy.accuracy": ("Accuracy", "accuracy"),
    "tlkit.core.compress.compress": ("Compressed", "compress"),
    "tlkit.core.compress.wish": ("AutoCompressed",),
    "tlkit.core.convert.door": ("convert",),
    "tlkit.core.convert.result": ("ConversionResult",),
    "tlkit.core.doctor": ("Diagnosis", "doctor"),
    "tlkit.core.compress.door": ("edit",),
    "tlkit.core.edit.edit": ("EditResult",),
    "tlkit.core.convert.export": ("ExportResult", "export"),
    "tlkit.core.inspect.inspect": ("inspect",),
    "tlkit.core.inspect.inspection": ("Inspection",),
    "tlkit.core.judge.compare": ("Judgement", "compare"),
    "tlkit.core.judge.nan": ("FirstNan", "find_nan"),
    "tlkit.core.model.load": ("Model", "load_model"),
    "tlkit.core.precision.mixed": ("MixedPrecision",),
    "tlkit.core.run.run": ("RunResult", "run"),
    "tlkit.core.bench.bench": ("BenchResult", "bench"),
    "tlkit.core.convert.functions": ("Combined", "combine"),
    "tlkit.core.weights.weights": ("WeightsResult", "convert_weights"),
    "tlkit.errors": (
        "ConversionError",
        "ExecutionError",
        "LoadError",
        "TlkitError",
        "UnavailableError",
        "UsageError",
    ),
    "tlkit.types": ("ImageSpec", "Metadata", "ModelInfo", "TensorSpec", "Unit"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Accuracy",
    "AutoCompressed",
    "BenchResult",
    "Combined",
    "Compressed",
    "ConversionError",
    "ConversionResult",
    "Diagnosis",
    "EditResult",
    "ExecutionError",
    "ExportResult",
    "FirstNan",
    "ImageSpec",
    "Inspection",
    "Judgement",
    "LoadError",
    "Metadata",
    "MixedPrecision",
    "Model",
    "ModelInfo",
    "RunResult",
    "TensorSpec",
    "TlkitError",
    "UnavailableError",
    "Unit",
    "UsageError",
    "WeightsResult",
    "accuracy",
    "bench",
    "combine",
    "compare",
    "compress",
    "convert",
    "convert_weights",
    "doctor",
    "edit",
    "export",
    "find_nan",
    "inspect",
    "load_model",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tlkit' has no attribute '{name}'")
    # Kept, so that only the first access comes here.
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
