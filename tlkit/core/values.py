"""``--input NAME=VALUE`` and ``--shape NAME=DIMS``: the words of the command line to values by input name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.core.inputs import Note, check_shape, draw, port_named
from tlkit.errors import LoadError, UsageError
from tlkit.formats import sniff
from tlkit.types import TensorSpec

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, MemoryError)


def collect(
    ports: Sequence[TensorSpec], texts: Iterable[str], shapes: Iterable[str], seed: int, note: Note
) -> dict[str, Any]:
    """Return a value for each input that the user gave; inputs that may not be left out and were are drawn at random.

    A text is ``NAME=VALUE``, a ``VALUE`` alone where the model has one input, or an archive (.npz, .safetensors) that
    holds inputs by name. Values are ``random``, ``zeros``, literals and files (see :func:`read_value`). ``note`` hears
    of what was drawn. Raises UsageError or LoadError.
    """
    wanted = _shapes(ports, shapes)
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {}
    for text in texts:
        for name, value in _assignments(ports, text).items():
            if name in values:
                raise UsageError(f"the input '{name}' is given twice", "give each input once")
            spec = port_named(ports, name)
            values[name] = _value(spec, value, rng, wanted.get(name)) if isinstance(value, str) else value
    drawn = [spec for spec in ports if spec.name not in values and not spec.optional]
    for spec in drawn:
        values[spec.name] = draw(spec, "random", rng, wanted.get(spec.name))
    if drawn:
        names = ", ".join(spec.name for spec in drawn)
        note(f"random values (seed {seed}) for what was not given: {names}")
    return values


def read_value(text: str, name: str) -> Any:
    """Return what ``text`` stands for: a number, a JSON list, an array file, or the path of an image.

    Array files are .npy, .npz and .safetensors, told by content. An archive gives its array ``name``, or the only one
    it has, or the one that ``FILE:KEY`` asks for.
    """
    if _NUMBER.fullmatch(text):
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    if text.startswith("["):
        return _literal(text, name)
    path, key = _file(text, name)
    if _kind(path) in (sniff.Format.NUMPY, sniff.Format.SAFETENSORS):
        arrays = read_arrays(path)
        if isinstance(arrays, np.ndarray):
            return arrays
        return _pick(arrays, path, key, name)
    return path


def read_arrays(path: Path) -> np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]:
    """Return the array of a .npy file, or those of a .npz or .safetensors file by name. Pickles are refused."""
    import zipfile

    from safetensors import SafetensorError

    try:
        if _kind(path) is sniff.Format.SAFETENSORS:
            from safetensors.numpy import load_file

            return dict(load_file(path))
        with path.open("rb") as file:
            packed = file.read(2) == b"PK"
        found = np.load(path, mmap_mode=None if packed else "r", allow_pickle=False)
        return dict(found) if packed else found
    except (*_UNREADABLE, SafetensorError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise LoadError(f"{path}: its arrays cannot be read: {reason}", "write the file again") from None


def parse_dims(text: str, flag: str) -> tuple[int, ...]:
    """Return the dimensions in ``1,3,224,224`` or ``1x3x224x224``; UsageError names ``flag``."""
    if not re.fullmatch(r"\d{1,12}([x,×]\d{1,12})*", text):
        raise UsageError(f"{flag}: '{text}' is not a shape", "write it as NAME=1,3,224,224 or NAME=1x3x224x224")
    return tuple(int(part) for part in re.split("[x,×]", text))


def _shapes(ports: Sequence[TensorSpec], texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for text in texts:
        name, equals, dims = text.rpartition("=")
        if not equals:
            raise UsageError(f"--shape {text}: not NAME=DIMS", "write it as --shape NAME=1,3,224,224")
        shapes[name] = check_shape(port_named(ports, name), parse_dims(dims, f"--shape {text}"))
    return shapes


def _assignments(ports: Sequence[TensorSpec], text: str) -> Mapping[str, Any]:
    name, equals, value = text.partition("=")
    if equals and (any(spec.name == name for spec in ports) or not Path(text).exists()):
        return {port_named(ports, name).name: value}
    path = Path(text)
    if path.is_file() and _kind(path) in (sniff.Format.NUMPY, sniff.Format.SAFETENSORS):
        arrays = read_arrays(path)
        if isinstance(arrays, dict) and (len(ports) > 1 or any(spec.name in arrays for spec in ports)):
            return _by_name(ports, path, arrays)
    if len(ports) == 1:
        return {ports[0].name: text}
    raise UsageError(
        f"--input {text}: which input is it for?",
        f"write --input NAME=VALUE; names: {', '.join(s.name for s in ports)}",
    )


def _by_name(ports: Sequence[TensorSpec], path: Path, arrays: dict[str, Any]) -> dict[str, Any]:
    """Pick a model's inputs out of an archive; what else is in it (outputs, say) is left alone."""
    found = {spec.name: arrays[spec.name] for spec in ports if spec.name in arrays}
    if not found:
        names = ", ".join(spec.name for spec in ports)
        raise UsageError(f"{path}: none of its arrays ({', '.join(arrays)}) is an input", f"inputs: {names}")
    return found


def _value(spec: TensorSpec, text: str, rng: np.random.Generator, shape: tuple[int, ...] | None) -> Any:
    if text == "random":
        return draw(spec, "random", rng, shape)
    if text == "zeros":
        return draw(spec, "zeros", rng, shape)
    return read_value(text, spec.name)


def _literal(text: str, name: str) -> Any:
    try:
        return json.loads(re.sub(r"\b(nan|inf)\b", lambda word: {"nan": "NaN", "inf": "Infinity"}[word[0]], text))
    except (ValueError, RecursionError):
        raise UsageError(f"input '{name}': '{text}' is not a list of numbers", "write it as [1,2,3]") from None


def _file(text: str, name: str) -> tuple[Path, str | None]:
    head, colon, key = text.rpartition(":")
    if Path(text).is_file() or not (colon and Path(head).is_file()):
        path, wanted = Path(text), None
    else:
        path, wanted = Path(head), key
    if not path.is_file():
        raise LoadError(f"{path}: no such file", f"the input '{name}' takes a file, a literal, random or zeros")
    return path, wanted


def _kind(path: Path) -> sniff.Format | None:
    try:
        return sniff.detect(path)
    except LoadError:
        return None


def _pick(arrays: dict[str, Any], path: Path, key: str | None, name: str) -> Any:
    wanted = key or (name if name in arrays or len(arrays) != 1 else next(iter(arrays)))
    if wanted not in arrays:
        raise UsageError(
            f"{path}: no array '{wanted}' in it", f"ask for one of its arrays with FILE:KEY: {', '.join(arrays)}"
        )
    return arrays[wanted]
