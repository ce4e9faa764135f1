"""Combine several sources as the functions of one package, which share the weights that they have in common.

Importing this module imports neither torch nor coremltools.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.core.compare.difference import EXACT
from tlkit.core.compare.models import Verification
from tlkit.core.compare.packages import compare_packages
from tlkit.core.convert.convert import convert
from tlkit.core.convert.provenance import inherit
from tlkit.core.convert.tools.build import Report, check_versions
from tlkit.core.convert.tools.rebuild import rebuild
from tlkit.core.convert.tools.targets import choose_target, target_of_version
from tlkit.core.model.load import inspect
from tlkit.errors import LoadError, UsageError
from tlkit.formats.coreml.features import describe_function
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.package import Package
from tlkit.formats.coreml.write import write_package
from tlkit.formats.coreml.written import PACKAGE, read_package
from tlkit.host.goals import files_named
from tlkit.host.quiet import quiet
from tlkit.host.staging import prepare, staged
from tlkit.mil.opsets import version_of
from tlkit.mil.program import Function, Program
from tlkit.mil.unkept import refuse_loss
from tlkit.ports.parse import Ports, check_name, function_ports
from tlkit.types import ModelInfo

if TYPE_CHECKING:
    from torch import nn

    from tlkit.core.compare.models import Verification


@dataclass(frozen=True, slots=True)
class Combined:
    """What was made: its functions and what they come from; ``separate`` is the size of a package for each, bytes.

    ``passed`` says whether each function computes bit for bit what a package of its own does and, where that was
    converted for it, whether the package agrees with its source (``verifications``); None where neither was tried,
    or one could not be judged. ``reasons`` says what differs, or why nothing could be judged.
    """

    path: Path
    functions: Mapping[str, str]
    default: str
    size: int
    separate: int
    info: ModelInfo
    passed: bool | None
    verifications: Mapping[str, Verification]
    reasons: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether each function computes what its source does, or nobody asked (see :class:`Verification`)."""
        return self.passed is True or (self.passed is None and not self.reasons)


def combine(
    source: str | Path | nn.Module,
    functions: Mapping[str, str | Path | nn.Module] | Sequence[str],
    output: str | Path,
    *,
    inputs: Ports = (),
    images: Ports = (),
    target: str | None = None,
    verify: bool = True,
    seed: int = 0,
    strict_mil: bool = False,
    force: bool = False,
    report: Report | None = None,
    main: Mapping[str, Any] | None = None,
    **options: Any,
) -> Combined:
    """Write the package ``output`` with ``source`` as its function ``main``, the default, and ``functions`` beside it.

    ``functions`` maps names to sources, or holds texts ``NAME=SOURCE``. A source is a .mlpackage, or anything that
    ``tlkit.convert`` takes: it is converted first, for iOS18 or the later ``target``. A port in
    ``inputs`` or ``images`` belongs to the function it names (``decode:x``); one that names none to each function
    without ports of its own. ``options`` are convert's for every source, those in ``main`` only for ``source``.

    Raises :class:`TlkitError`, and leaves nothing behind then.
    """
    sources = {"main": source, **_parsed(functions)}
    goal = Path(output)
    if goal.suffix != ".mlpackage":
        raise UsageError(f"{goal}: a Core ML package's name ends in .mlpackage", f"write -o {goal.stem}.mlpackage")
    ports: dict[str, dict[str, Any]] = {
        name: {kind: function_ports(given, name, sources) for kind, given in (("inputs", inputs), ("images", images))}
        for name in sources
    }
    _check(sources, target, any((*inputs, *images, *(main or {}).values(), *options.values())))
    said = {**options, **(main or {})}
    named = tuple(
        files_named(sources, *(said.get(key) for key in ("checkpoint", "classes", "samples", "example", "kwargs")))
    )
    prepare(goal, force=force, kind=PACKAGE, inputs=named)
    check_versions()
    found: dict[str, Verification] = {}
    with staged(goal, read_package, force=force, kind=PACKAGE, inputs=named) as path:
        packages: dict[str, Path] = {}
        for name, item in sources.items():
            if _is_package(item):
                packages[name] = Path(str(item))
                continue
            packages[name] = path.with_name(f"{name}-{path.name}")
            made = convert(
                item,
                packages[name],
                **ports[name],
                **options,
                **((main or {}) if name == "main" else {}),
                target=target or "iOS18",
                verify=verify,
                seed=seed,
                strict_mil=strict_mil,
                report=report,
            )
            if made.verification is not None:
                found[name] = made.verification
        _write(packages, path, report)
        inherit(path, packages)
        checked = [*found.items(), *_compared(packages, path, seed)] if verify else []
        separate = sum(map(_size, dict.fromkeys(packages.values())))
        # Read from the staged copy, it names the place where the package will be.
        size, info = _size(path), replace(inspect(path), path=str(goal))
    texts = {name: item if isinstance(item, str) else _text(item) for name, item in sources.items()}
    passed = _passed([item for _, item in checked])
    reasons = tuple(dict.fromkeys(f"{name}: {reason}" for name, item in checked for reason in item.reasons))
    return Combined(goal, texts, "main", size, separate, info, passed, found, reasons)


def _compared(packages: Mapping[str, Path], combined: Path, seed: int) -> Iterator[tuple[str, Verification]]:
    """Compare each function with the package that it comes from: they are one program, so the numbers are the same."""
    with quiet():
        for name, package in packages.items():
            yield name, compare_packages(package, combined, seed, EXACT, {name: "main"})


def _passed(found: Sequence[Verification]) -> bool | None:
    """Whether all agree; None where one could not be judged and none differs."""
    if any(item.passed is False for item in found):
        return False
    return True if found and all(item.ok for item in found) else None


def _is_package(source: object) -> bool:
    return isinstance(source, str | Path) and Path(source).suffix == ".mlpackage"


def _text(source: object) -> str:
    return str(source) if isinstance(source, Path) else type(source).__name__


def _check(sources: Mapping[str, Any], target: str | None, conversion: bool) -> None:
    """Refuse missing packages, a target without functions, and options that would have no effect."""
    for item in filter(_is_package, sources.values()):
        if not Path(item).is_dir():
            raise LoadError(f"{item}: not a .mlpackage", "convert it first: tlkit convert")
    if target is not None and choose_target(target).version < choose_target("iOS18").version:
        raise UsageError(f"several functions need iOS18, not {target}", "use --target iOS18 or later")
    if (conversion or target) and all(map(_is_package, sources.values())):
        raise UsageError("packages are combined unchanged", "give conversion options when you make each package")


def _parsed(functions: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    if isinstance(functions, Mapping):
        pairs = list(functions.items())
    else:
        pairs = [(name, source) for name, _, source in (text.partition("=") for text in functions)]
    found: dict[str, Any] = {}
    for name, source in pairs:
        if source == "":
            raise UsageError(f"--function {name}: not NAME=SOURCE", "write it as --function decode=decode.mlpackage")
        if name == "main" or name in found:
            raise UsageError(f"--function {name}: that name is taken", "SOURCE is the function 'main'")
        found[check_name(name)] = source
    return found


def _write(sources: Mapping[str, Path], path: Path, report: Report | None) -> None:
    """Write a package at ``path`` with the function ``main`` of each of ``sources``, under the names given there.

    All get the newest opset among them, iOS18's at least. A package of that opset is taken as it is; one of an older
    opset is built with the newer operations first.
    """
    opened = {package: _opened(package) for package in dict.fromkeys(sources.values())}
    target = target_of_version(max(choose_target("iOS18").version, *map(_opset_version, opened.values())))
    for place, package in opened.items():
        if _opset_version(package) < target.version:
            # The number of files there makes the name a new one.
            newer = path.with_name(f"{target.name}-{len(list(path.parent.iterdir()))}-{path.name}")
            rebuild(package, target, newer, (), report or (lambda what, share: None))
            opened[place] = open_package(newer)
    model = type(opened[sources["main"]].model)()
    versions = [package.model.specificationVersion for package in opened.values()]
    model.specificationVersion = max(target.version, *versions)
    model.description.defaultFunctionName = "main"
    functions: dict[str, Function] = {}
    for name, place in sources.items():
        functions[name] = _program(opened[place]).function("main")
        describe_function(model, name, opened[place].model)
    write_package(path, model, replace(_program(opened[sources["main"]]), functions=functions))


def _opened(path: Path) -> Package:
    package = open_package(path)
    if "main" not in _program(package).functions:
        raise LoadError(f"{path}: it has no function 'main'", f"functions: {', '.join(_program(package).functions)}")
    package.require_weights()
    refuse_loss(package.model.mlProgram, str(path))
    return package


def _program(package: Package) -> Program:
    if package.program is None:
        kind = package.model.WhichOneof("Type") or "unknown"
        raise LoadError(f"{package.root}: its kind, {kind}, has no functions", "each has to be an mlprogram")
    return package.program


def _opset_version(package: Package) -> int:
    """Return the specification version of the opset of the package's function."""
    return version_of(_program(package).function("main").opset)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
