"""``tlkit.convert``: the single entry point. The output's name decides what is made, and which options apply."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.errors import UsageError
from tlkit.ports.parse import Ports
from tlkit.types import Unit

if TYPE_CHECKING:
    from torch import nn

    from tlkit.core.convert.export import ExportResult
    from tlkit.core.convert.functions import Combined
    from tlkit.core.convert.result import ConversionResult
    from tlkit.core.inspect.plan import Plan
    from tlkit.core.language.packaging import LanguagePackage
    from tlkit.core.weights.weights import WeightsResult

    Made = ConversionResult | Combined | ExportResult | WeightsResult | Plan | LanguagePackage

WEIGHTS = (".safetensors", ".gguf", ".pth", ".pt", ".bin")
"""How the names of files of weights end."""
PROGRAMS = (".pt2", ".onnx")
"""How the names of exported programs end."""
# What is not passed on: the ends of a conversion, and what only a plan takes.
_APART = ("source", "output", "plan", "units", "chip")
# Parameters whose flag has another name.
_FLAGS = {"inputs": "input", "images": "image", "output_names": "output-name", "states": "state"}
_LANGUAGE = ("context", "nested", "weights", "requantize", "prefill", "returns")
_FLAGS |= {"all_tensors": "all", "functions": "function", "rules": "rule"}


def convert(
    source: str | Path | nn.Module,
    output: str | Path | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    strip_prefix: str | None = None,
    inputs: Ports = (),
    images: Ports = (),
    classes: str | Path | Sequence[str] | None = None,
    output_names: Sequence[str] = (),
    states: Sequence[str] = (),
    functions: Mapping[str, str | Path | nn.Module] | Sequence[str] = (),
    precision: str | None = None,
    target: str | None = None,
    export: bool = False,
    auto: bool = True,
    author: str = "",
    description: str = "",
    version: str = "",
    license: str = "",
    verify: bool = True,
    samples: str | Path | None = None,
    example: str | Path | None = None,
    seed: int = 0,
    strict_mil: bool = False,
    emulate: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    max_shard_size: str | int | None = None,
    palettize: str | None = None,
    prune: str | None = None,
    rules: Sequence[str] = (),
    skip: Sequence[str] = (),
    activations: str | None = None,
    calibrate: str | Path | None = None,
    weight_threshold: int | None = None,
    keep_f32: Sequence[str] = (),
    compress: str | None = None,
    max_size: str | int | None = None,
    min_cosine: float | None = None,
    min_snr: float | None = None,
    min_top1: float | None = None,
    labels: str | Path | None = None,
    resume: str | Path | None = None,
    jobs: int = 1,
    metadata: Mapping[str, str] | Sequence[str] = (),
    names: str = "auto",
    raw: bool = False,
    all_tensors: bool = False,
    allow_missing: bool = False,
    imatrix: str | Path | None = None,
    ane: bool = False,
    context: int | None = None,
    nested: bool = False,
    weights: str = "keep",
    requantize: bool = False,
    prefill: str | int | None = None,
    returns: str = "logits",
    stage: int | str | None = None,
    plan: bool = False,
    units: Sequence[str | Unit] = (Unit.ANE,),
    chip: str | None = None,
    force: bool = False,
    trust: bool = False,
    report: Callable[[str, float], None] | None = None,
) -> Made:
    """Convert ``source`` to ``output``, as ``tlkit convert`` does; return what was made.

    An output that ends in ``.mlpackage`` is a Core ML package, checked against its source (a ConversionResult; a
    Combined where ``functions`` names further sources); ``.pt2`` or ``.onnx`` a program for other runtimes (an
    ExportResult); ``.safetensors``, ``.gguf``, ``.pth``, ``.pt`` or ``.bin`` only the weights (a WeightsResult). The
    options and errors are documented where they are used: :func:`tlkit.core.convert.convert.convert`,
    :func:`~tlkit.core.convert.functions.combine`, :func:`~tlkit.core.convert.export.export`,
    :func:`~tlkit.core.weights.weights.convert_weights`. With ``plan`` nothing is written: a Plan says where the
    package's operations would run under ``units`` on ``chip``, for which ``ane`` rewrites the package's program.

    ``precision`` ``auto`` and ``keep_f32`` keep operations of a package in f32, ``quantize``, ``palettize``, ``prune``
    and ``rules`` make its weights smaller, ``activations`` what it computes, ``compress`` ``auto`` by a search: as
    :func:`tlkit.edit` does to a package, after it was verified as it is (``result.parts``).

    A GGUF file as the source of a package, or a Hugging Face folder with ``context``, becomes a stateful language model
    (a LanguagePackage, :func:`~tlkit.core.language.packaging.convert_language`).

    Raises UsageError for an option that does not apply to the kind of output.
    """
    # First of all: later locals() would have more than the caller gave.
    given = {name: value for name, value in locals().items() if name not in _APART}
    given["chip"] = chip if ane else None
    if plan:
        return _planned(source, output, given, units, chip)
    if chip is not None and not ane:
        raise UsageError("--chip goes with --plan or --ane", "else nothing that is written depends on the chip")
    if output is None:
        raise UsageError("nowhere to write to", "name the output: -o net.mlpackage (or --plan, to write nothing)")
    kind = Path(output).suffix.lower()
    if kind in WEIGHTS:
        return _weights(source, output, given)
    if kind in PROGRAMS:
        return _program(source, output, given)
    if _is_language(source, given):
        return _language(source, output, given)
    hint = "give a GGUF file, or a Hugging Face folder"
    _refuse({name: given[name] for name in _LANGUAGE}, (), "is for language models", hint)
    return _package(source, output, given)


def _is_language(source: Any, given: Mapping[str, Any]) -> bool:
    """Whether a source is a language model: a GGUF file, or a folder with an option that only these have."""
    if not isinstance(source, str | Path) or not Path(source).exists():
        return False
    from tlkit.formats.base.sniff import Format, detect

    defaults = inspect.signature(convert).parameters
    said = any(given[name] != defaults[name].default for name in _LANGUAGE)
    return detect(Path(source)) is Format.GGUF or (said and Path(source).is_dir())


def _language(source: Any, output: str | Path, given: dict[str, Any]) -> LanguagePackage:
    from tlkit.core.convert.tools.targets import choose_target, target_for_states
    from tlkit.core.language.packaging import convert_language

    options = _taken(given, convert_language) | {"precision": given["precision"] or "f32"}
    if given["target"] is not None:
        target_for_states(choose_target(given["target"]), True)
    harmless = {*options, "seed", "target", "trust", "auto"}
    _refuse(given, harmless, "does not apply to a language model's package", "leave it out")
    if options["precision"] not in ("f16", "f32"):
        raise UsageError(f"--precision {options['precision']}: not f16 or f32", "choose one of them")
    return convert_language(source, output, **options)


def _planned(
    source: Any, output: str | Path | None, given: dict[str, Any], units: Sequence[str | Unit], chip: str | None
) -> Plan:
    from tlkit.core.inspect.plan import plan

    if output is not None and Path(output).suffix.lower() in (*WEIGHTS, *PROGRAMS):
        raise UsageError(f"--plan is for packages, not for {output}", "leave -o out: --plan writes nothing")
    unchecked = given | {"verify": False}
    make = _language if _is_language(source, given) else _package
    return plan(lambda path: make(source, path, dict(unchecked)), source, units, chip)


def _weights(source: Any, output: str | Path, given: dict[str, Any]) -> WeightsResult:
    from tlkit.core.weights.weights import convert_weights

    options = _taken(given, convert_weights)
    if isinstance(source, str | Path):
        harmless = {*options, "verify", "seed"}
        _refuse(given, harmless, f"is for packages, not for {output}", "a file of weights has neither inputs nor code")
        return convert_weights(source, output, **options)
    raise UsageError(f"{output}: weights come from a file, not from a module", "save its state_dict, and convert that")


def _program(source: Any, output: str | Path, given: dict[str, Any]) -> ExportResult:
    from tlkit.core.convert.export import export

    named = [name if isinstance(name, str) else str(name) for name in given.pop("functions")]
    if len(named) > 1 or any("=" in name for name in named):
        raise UsageError(f"--function {named[-1]}: {output} holds one function", "name one: --function NAME")
    options = _taken(given, export) | {"precision": given["precision"] or "f16", "function": next(iter(named), None)}
    _refuse_weights(given, output)
    _refuse(given, options, f"is for packages, not for {output}", "make a package with it first, then export that")
    return export(source, output, **options)


def _package(source: Any, output: str | Path, given: dict[str, Any]) -> ConversionResult | Combined:
    from tlkit.core.convert.convert import convert as convert_package
    from tlkit.core.convert.finish import FINISHING, finish, wanted

    functions = given.pop("functions")
    _refuse_weights(given, output)
    options = _taken(given, convert_package)
    if wanted(given) and not functions:
        return finish(
            source, output, given, lambda path, all_: convert_package(source, path, **_taken(all_, convert_package))
        )
    hint = "choose the precision or the weights of each by itself" if functions else "say how: --quantize, --compress"
    own = {name: given[name] for name in FINISHING if name != "samples"}
    _refuse(own, (), "has nothing to do here", hint)
    if not functions:
        return convert_package(source, output, **options)
    from tlkit.core.convert.functions import combine

    edges = ("output_names", "states", "classes", "samples", "example")
    main = {name: options.pop(name) for name in edges}
    if options["auto"]:
        del options["auto"]  # convert's default, which a package as a source need not be told
    return combine(source, functions, output, main=main, **options)


def _refuse_weights(given: Mapping[str, Any], output: str | Path) -> None:
    """Raise UsageError if an option is given that applies only to files of weights."""
    from tlkit.core.convert.convert import convert as convert_package

    ours = _taken(given, convert_package)
    # The one option of both: without a checkpoint it can only be meant for a file of weights.
    if not given["checkpoint"]:
        ours.pop("strip_prefix", None)
    from tlkit.core.weights.weights import convert_weights

    if Path(output).suffix == ".mlpackage":
        ours["quantize"] = None  # of a package's weights, too
    others = {name: value for name, value in _taken(given, convert_weights).items() if name not in ours}
    _refuse(others, (), f"is for files of weights, not for {output}", f"name it {', '.join(WEIGHTS)}")


def _taken(given: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """Return those of the options that ``function`` has."""
    return {name: value for name, value in given.items() if name in inspect.signature(function).parameters}


def _refuse(given: Mapping[str, Any], taken: Any, why: str, hint: str) -> None:
    """Raise UsageError for the first option that is not its default and not among those ``taken``."""
    defaults = inspect.signature(convert).parameters
    for name, value in given.items():
        if name not in taken and name != "report" and value != defaults[name].default:
            raise UsageError(f"--{_FLAGS.get(name, name.replace('_', '-'))} {why}", hint)
