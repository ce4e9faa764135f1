"""The table of engines: the one place that chooses which engine runs or measures a model."""

from __future__ import annotations

from tlkit.engines.auto.kind import AutoKind
from tlkit.engines.classic.kind import ClassicKind
from tlkit.engines.coreml.kind import CoreMLKind
from tlkit.engines.engine import Can, EngineKind, HowToRun
from tlkit.engines.onnxruntime.kind import OnnxRuntimeKind
from tlkit.engines.openvino.kind import OpenVINOKind
from tlkit.engines.torch.kind import TorchKind
from tlkit.errors import UsageError

ENGINES: tuple[EngineKind, ...] = (
    CoreMLKind(),
    AutoKind((OpenVINOKind(), OnnxRuntimeKind()), TorchKind()),
    TorchKind(),
    OpenVINOKind(),
    OnnxRuntimeKind(),
    ClassicKind(),
)
"""The kinds of engine, the one to prefer first."""
PRECISIONS = ("f16", "f32", "bf16")
NOT_FAITHFUL = "bf16 is fast, and not faithful to what the package declares"
"""What is said wherever a result of bf16 is shown."""


def modes() -> tuple[str, ...]:
    """Return all that ``--engine`` may name."""
    return tuple(mode for kind in ENGINES for mode in kind.modes)


def check_settings(settings: HowToRun) -> None:
    """Raise UsageError for a precision or an engine that no kind has."""
    if settings.precision not in PRECISIONS:
        raise UsageError(f"unknown precision '{settings.precision}'", f"it is {' or '.join(PRECISIONS)}")
    if settings.mode not in modes():
        raise UsageError(f"unknown engine '{settings.mode}'", f"it is {' or '.join(modes())}")


def choose(settings: HowToRun, kind: str, needs: frozenset[Can] = frozenset()) -> EngineKind | None:
    """Return the first available engine that runs models of ``kind`` with ``settings`` and can do ``needs``."""
    able = (item for item in ENGINES if item.available() and item.runs(kind) and needs <= item.can)
    return next((item for item in able if item.refuses(settings) is None), None)


def check_refusals(settings: HowToRun, kind: str, needs: frozenset[Can] = frozenset()) -> None:
    """Raise UsageError where the engine named cannot do ``needs``, or one can, but not with ``settings``."""
    named = [item for item in ENGINES if settings.mode in item.modes]
    if named and not any(needs <= item.can for item in named) and any(item.runs(kind) for item in named):
        hint = "leave --engine out: PyTorch shows them, rounded alike"
        raise UsageError(f"--engine {settings.mode} shows no values inside a model", hint)
    for item in (*named, *reversed(ENGINES)):
        able = item.available() and item.runs(kind) and needs <= item.can
        refusal = item.refuses(settings) if able else None
        if refusal is not None:
            raise UsageError(refusal.message, refusal.hint)


def measured(mode: str = "") -> EngineKind:
    """Return the kind to measure on this machine: the one that ``mode`` names, else the first that has the mode or
    has none (Core ML)."""
    here = [kind for kind in ENGINES if kind.available(stand_in=True)]
    named = next((kind for kind in here if kind.name == mode != "auto"), None)
    return named or next((kind for kind in here if mode in kind.modes or not kind.modes), here[0])
