"""Several packages as the functions of one, which share the weights that they have in common.

Importing this module imports neither torch nor coremltools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.core._quiet import quiet
from tlkit.core.build import check_versions
from tlkit.core.ports import check_name
from tlkit.core.staging import check_goal, staged
from tlkit.errors import ConversionError, LoadError, UsageError
from tlkit.types import ModelInfo


@dataclass(frozen=True, slots=True)
class Combined:
    """What was made: its functions and the packages they come from; ``separate`` is the size of all of those, bytes.

    ``passed`` says whether each function computes bit for bit what its package does, None where that was not tried.
    """

    path: Path
    functions: Mapping[str, str]
    default: str
    size: int
    separate: int
    info: ModelInfo
    passed: bool | None


def combine(
    source: str | Path,
    functions: Mapping[str, str | Path] | Sequence[str],
    output: str | Path,
    *,
    verify: bool = True,
    seed: int = 0,
    force: bool = False,
) -> Combined:
    """Write the package ``output`` with ``source`` as its function ``main``, the default, and ``functions`` beside it.

    ``functions`` maps names to packages, or holds texts ``NAME=PACKAGE``. Needs iOS18. Raises :class:`TlkitError`, and
    leaves nothing behind then.
    """
    sources = {"main": Path(source), **_parsed(functions)}
    goal = Path(output)
    if goal.suffix != ".mlpackage":
        raise UsageError(f"{goal}: a Core ML package's name ends in .mlpackage", f"write -o {goal.stem}.mlpackage")
    for path in sources.values():
        if path.suffix != ".mlpackage" or not path.is_dir():
            raise LoadError(f"{path}: no .mlpackage to take a function from", "convert it first: tlkit convert")
    check_goal(goal, force=force)
    check_versions()
    with staged(goal, force=force) as path:
        _write(sources, path)
        passed = all(_same(package, path, name, seed) for name, package in sources.items()) if verify else None
    return _result(goal, sources, passed)


def _parsed(functions: Mapping[str, str | Path] | Sequence[str]) -> dict[str, Path]:
    if isinstance(functions, Mapping):
        pairs = [(name, str(path)) for name, path in functions.items()]
    else:
        pairs = [(name, path) for name, _, path in (text.partition("=") for text in functions)]
    found: dict[str, Path] = {}
    for name, path in pairs:
        if not path:
            raise UsageError(f"--function {name}: not NAME=PACKAGE", "write it as --function decode=decode.mlpackage")
        if name == "main" or name in found:
            raise UsageError(f"--function {name}: that name is taken", "SOURCE is the function 'main'")
        found[check_name(name)] = Path(path)
    return found


def _write(sources: Mapping[str, Path], path: Path) -> None:
    with quiet():
        import coremltools as ct

        try:
            descriptor = ct.utils.MultiFunctionDescriptor()
            for name, package in sources.items():
                descriptor.add_function(str(package), src_function_name="main", target_function_name=name)
            descriptor.default_function_name = "main"
            ct.utils.save_multifunction(descriptor, str(path))
        except OSError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConversionError(
                f"coremltools {ct.__version__} cannot combine these packages: {reason}",
                "each must be an mlprogram with one function and weights of its own",
            ) from error


def _same(package: Path, combined: Path, name: str, seed: int) -> bool:
    """Whether the function computes exactly what its package does, on seeded inputs."""
    import numpy as np

    from tlkit.core.inputs import draw
    from tlkit.core.load import load_model

    with quiet():
        old, new = load_model(package), load_model(combined, function=name)
        rng = np.random.default_rng(seed)
        inputs = {spec.name: draw(spec, "random", rng) for spec in old.inputs}
        results: list[Mapping[str, Any]] = []
        for model in (old, new):
            state = model.make_state() if model.info.states else None
            results.append(model.predict(inputs, state=state))
    expected, found = results
    return expected.keys() == found.keys() and all(_equal(expected[key], found[key]) for key in expected)


def _equal(expected: Any, found: Any) -> bool:
    import numpy as np

    if isinstance(expected, Mapping | str | int):
        return bool(expected == found)
    return np.array_equal(np.asarray(expected), np.asarray(found), equal_nan=False)


def _result(goal: Path, sources: Mapping[str, Path], passed: bool | None) -> Combined:
    from tlkit.core.load import inspect

    return Combined(
        path=goal,
        functions={name: str(path) for name, path in sources.items()},
        default="main",
        size=_size(goal),
        separate=sum(map(_size, dict.fromkeys(sources.values()))),
        info=inspect(goal),
        passed=passed,
    )


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
