"""How many sources convert at once, how many with the printed advice followed to the letter, how many are refused.

    python benchmarks/advice.py [NAME ...] [--folder DIR]

The sources are those of fixtures/sources.py, or the ``*.py`` of a folder, each with ``Net``, ``ARGS`` and ``EX()``. A
package counts when it agrees with its module on the real input. Advice is what a line says was tried and agrees, or
``--example``. A refusal counts as true when it shows nothing of Python's inside; its words are printed to be read.
Exits with 1 where a package that verified is wrong, advice does not work, or words are opaque.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
OPAQUE = re.compile(
    r"np\.int32|Traceback|Cannot delete|NoneType|AssertionError|KeyError|has no attribute|internal error|<class"
)
ADVICE = re.compile(r"(--precision f32|--export) was tried: it agrees|(--example FILE)")


@dataclass(frozen=True, slots=True)
class Subject:
    """One source: how to make the module, convert's options, and a real input."""

    name: str
    module: Callable[[], Any]
    options: dict[str, Any]
    example: Callable[[], tuple[Any, ...]]


def main() -> None:
    """Convert each, follow what is said, and count."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    for subject in from_folder(given.folder) if given.folder else from_fixtures():
        if not given.names or subject.name in given.names:
            verdict, said = follow(subject)
            counts[verdict] += 1
            print(f"{subject.name}: {verdict}" + (f": {said}" if said else ""), flush=True)
    print("; ".join(f"{verdict} {count}" for verdict, count in counts.most_common()))
    sys.exit(bool(counts["WRONG"] + counts["ADVICE FAILS"] + counts["OPAQUE"]))


def from_fixtures() -> Iterator[Subject]:
    """Yield the sources of fixtures/sources.py."""
    from fixtures.sources import CASES, Body

    for name, case in CASES.items():
        options = {"inputs": case.inputs, "output_names": case.output_names}
        yield Subject(name, lambda case=case: Body(case.body).eval(), options, case.example)  # type: ignore[misc]


def from_folder(folder: Path) -> Iterator[Subject]:
    """Yield the sources of a folder, with the options that their ``ARGS`` give."""
    for file in sorted(folder.glob("*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = module
        spec.loader.exec_module(module)
        options: dict[str, Any] = {"inputs": [], "images": []}
        words = iter(module.ARGS)
        for word in words:
            key = {"--input": "inputs", "--image": "images"}.get(word)
            if key:
                options[key].append(next(words))
            else:
                options[word.removeprefix("--")] = True if word == "--export" else next(words)
        yield Subject(file.stem, lambda module=module: seeded(module), options, module.EX)  # type: ignore[misc]


def seeded(module: Any) -> Any:
    """Return the file's ``Net``, each time with the same weights."""
    import torch

    torch.manual_seed(0)
    return module.Net().eval()


def follow(subject: Subject) -> tuple[str, str]:
    """Convert; where that does not agree, do what the words say, once."""
    agrees, said = attempt(subject, {})
    if agrees is not None:
        return ("at once" if agrees else "WRONG"), said
    if OPAQUE.search(said):
        return "OPAQUE", said
    advice = ADVICE.search(said)
    if advice is None:
        return "refused", said
    with tempfile.TemporaryDirectory() as folder:
        more: dict[str, Any] = {"precision": "f32"} if "f32" in advice[0] else {"export": True}
        if advice[2]:
            more = {"example": _saved(subject, Path(folder) / "real.npz")}
        again, words = attempt(subject, more)
    if again:
        return "with advice", said
    return ("refused", f"{said} / on the real input: {words}") if advice[2] else ("ADVICE FAILS", f"{said} / {words}")


def attempt(subject: Subject, more: dict[str, Any]) -> tuple[bool | None, str]:
    """Return whether a package that verified agrees on the real input, None where none verified, and what was said."""
    import tlkit
    from tlkit.core.convert.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        goal = Path(folder) / "m.mlpackage"
        try:
            made = convert(subject.module(), goal, **(subject.options | more))
        except tlkit.TlkitError as error:
            return None, f"{error.message}; {error.hint}"
        found = made.verification
        if found is None or not found.passed:
            reasons = found.reasons[:1] if found else ()
            return None, "; ".join(filter(None, (*reasons, found.cause if found else "", *made.notes)))
        right = agrees(goal, subject)
        return right, "; ".join((*made.notes, *found.notes))


def agrees(package: Path, subject: Subject) -> bool:
    """Whether the package gives what the module gives on the real input, to a fiftieth of the largest value."""
    import numpy as np
    import torch

    import tlkit
    from tlkit.core.convert.capture.examples import to_source
    from tlkit.ports.images import to_picture
    from tlkit.ports.parse import parse_ports

    model, values, given = tlkit.load_model(package), list(subject.example()), dict[str, Any]()
    ports = parse_ports(subject.options.get("inputs", ()), subject.options.get("images", ()))
    for index, (port, value) in enumerate(zip(ports, values, strict=True)):
        given[port.name] = (value.float() if value.is_floating_point() else value.int()).numpy()
        if port.image is not None:  # pixels, of which the module then gets what the package makes of them
            pixels = _pixels(port, given[port.name])
            given[port.name], values[index] = to_picture(port.image.layout, pixels), to_source(port, pixels)
    found = list(model.predict(given).values())
    with torch.no_grad():
        wanted = subject.module()(*values)
    wanted = (
        list(wanted.values()) if isinstance(wanted, dict) else wanted if isinstance(wanted, tuple | list) else [wanted]
    )
    for want, got in zip(wanted, found, strict=True):
        expected, array = want.double().numpy(), np.asarray(got, np.float64)
        if array.ndim == 3 and array.size != expected.size:
            array = array[..., :3]
        if array.size != expected.size:
            return False
        if array.ndim == 3 and expected.ndim == 4:  # a picture
            array, expected = array.transpose(2, 0, 1), np.clip(np.rint(expected), 0, 255)
        worst = np.abs(array.reshape(expected.shape) - expected).max()
        if not worst <= 0.02 * max(np.abs(expected).max(), 1e-9):
            return False
    return True


def _pixels(port: Any, value: Any) -> Any:
    """Return the pixels (C, H, W) that come nearest to ``value`` (1, C, H, W) after scale and bias."""
    import numpy as np

    bias = np.asarray(port.intake.bias, np.float32)[:, None, None]
    ratios = np.asarray(port.intake.ratios or 1.0, np.float32).reshape(-1, 1, 1)
    return np.clip(np.rint((value[0] - bias) / (port.intake.scale * ratios)), 0, 255).astype(np.uint8)


def _saved(subject: Subject, file: Path) -> Path:
    import numpy as np

    from tlkit.ports.parse import parse_ports

    ports = parse_ports(subject.options.get("inputs", ()), subject.options.get("images", ()))
    np.savez(file, **{port.name: value.numpy() for port, value in zip(ports, subject.example(), strict=True)})
    return file


if __name__ == "__main__":
    main()
