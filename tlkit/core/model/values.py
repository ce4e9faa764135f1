"""Parse ``--input NAME=VALUE`` and ``--shape NAME=DIMS`` into values by input name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.core.model.arrays import holds_arrays, read_array, read_arrays
from tlkit.core.model.inputs import Drawn, Note, check_shape, draw, port_named
from tlkit.core.model.known import NOTHING, Known
from tlkit.core.model.plain import KINDS, read_plain
from tlkit.core.model.texts import PREFIX, Text, with_texts
from tlkit.errors import LoadError, UsageError
from tlkit.formats.fetch import is_address, local
from tlkit.ports.shapes import shape_text
from tlkit.ports.sounds import is_sound, read_sound
from tlkit.types import TensorSpec

# Such as `1.`, `.5`, `1e-3`, `nan` and `-inf`.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)
# How Python's json spells them.
_JSON_WORDS = {"nan": "NaN", "inf": "Infinity"}


def collect(
    ports: Sequence[TensorSpec],
    texts: Iterable[str],
    shapes: Iterable[str],
    seed: int,
    note: Note,
    stored: int = 0,
    known: Known = NOTHING,
) -> dict[str, Any]:
    """Return a value for each input: what the user gave, and random values for required inputs that were not given.

    A text is ``NAME=VALUE``, a ``VALUE`` alone where the model has one input, or an archive (.npz, .safetensors) that
    holds inputs by name. Values are ``random``, ``zeros``, literals and files (see :func:`read_value`). ``note`` is
    told what was drawn; a shape that the file asks for, which stores ``stored`` bytes, may not be larger than they
    warrant. ``known`` is what the model says of its inputs beyond their ports. Raises UsageError or LoadError.
    """
    wanted = _shapes(ports, shapes)
    values: dict[str, Any] = {}
    for text in texts:
        for name, value in _assignments(ports, text).items():
            if name in values:
                raise UsageError(f"the input '{name}' is given twice", "give each input once")
            values[name] = value
    values = with_texts(ports, values, known.tokenizer)
    missing = [spec.name for spec in ports if spec.name not in values and not spec.optional]
    if missing:
        usual = {name: shape for name, shape in known.shapes.items() if name not in wanted}
        told = (f"{name} ({shape_text(usual[name])})" if name in usual else name for name in missing)
        note(f"random values (seed {seed}) for what was not given: {', '.join(told)}")
    rng = np.random.default_rng(seed)
    for name, value in (values | dict.fromkeys(missing, Drawn("random"))).items():
        if isinstance(value, Drawn):
            size = None if name in wanted else stored
            shape, listed = wanted.get(name) or known.shapes.get(name), known.values.get(name, ())
            value = draw(port_named(ports, name), value.kind, rng, shape, stored=size, known=listed)
        values[name] = value
    return values


def parse_inputs(texts: Iterable[str]) -> dict[str, Any]:
    """Return values by name from texts ``NAME=VALUE`` only, for ``Model.predict`` or ``bench``.

    The ports are not known yet, so what reads as nothing else stays a text, and ``{...}`` is a dictionary.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name in values:
            raise UsageError(f"--input {text}: not NAME=VALUE, or given twice", "give each input once, as NAME=VALUE")
        values[name] = _unplaced(value, name)
    return values


def _unplaced(text: str, name: str) -> Any:
    if text.startswith("{"):
        return _literal(text, name, "a dictionary of numbers", '{"key": 1.0}')
    try:
        return read_value(text, name)
    except LoadError:  # no such file: if the port wants an array, it says so
        return text


def read_value(text: str, name: str) -> Any:
    """Return what ``text`` stands for: a number, a JSON list, a :class:`Drawn`, an array or the path of a file.

    ``FILE:KEY`` takes one array of a .npz or .safetensors file, ``FILE:RATE`` a sound at RATE samples a second, and
    ``text:WORDS`` are words for the model's tokenizer; what an address (https://, hf://, - for stdin) names is fetched;
    a path is read when the port is known.
    """
    if text.startswith(PREFIX):
        return Text(text.removeprefix(PREFIX))
    if text in ("random", "zeros"):
        return Drawn(text)  # type: ignore[arg-type]
    if _NUMBER.fullmatch(text):
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    if text.startswith("["):
        return _literal(text, name)
    if is_address(text):
        return local(text)
    path, key = _file(text, name)
    if key is not None and key.isdecimal() and is_sound(path):
        return read_sound(path, int(key))
    return path if key is None else read_array(path, name, key)


def parse_dims(text: str, flag: str) -> tuple[int, ...]:
    """Return the dimensions in ``1,3,224,224`` or ``1x3x224x224``; UsageError names ``flag``."""
    if not re.fullmatch(r"\d{1,12}([x,×]\d{1,12})*", text):
        raise UsageError(f"{flag}: '{text}' is not a shape", "write it as NAME=1,3,224,224 or NAME=1x3x224x224")
    return tuple(int(part) for part in re.split("[x,×]", text))


def _shapes(ports: Sequence[TensorSpec], texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for text in texts:
        # From the right: a name may hold an =, dimensions cannot.
        name, equals, dims = text.rpartition("=")
        if not equals:
            raise UsageError(f"--shape {text}: not NAME=DIMS", "write it as --shape NAME=1,3,224,224")
        shapes[name] = check_shape(port_named(ports, name), parse_dims(dims, f"--shape {text}"))
    return shapes


def _assignments(ports: Sequence[TensorSpec], text: str) -> Mapping[str, Any]:
    name, equals, value = text.partition("=")
    # A file's name may hold an = too, and so may a text.
    named = any(spec.name == name for spec in ports)
    if equals and not text.startswith(PREFIX) and (named or not (Path(text).is_file() or is_address(text))):
        return {name: _read(port_named(ports, name), value)}
    if holds_arrays(text):
        arrays = read_arrays(text)
        if isinstance(arrays, dict) and (len(ports) > 1 or ports[0].name in arrays):
            return _by_name(ports, text, arrays)
    if len(ports) == 1:
        return {ports[0].name: _read(ports[0], text)}
    names = ", ".join(spec.name for spec in ports)
    raise UsageError(f"--input {text}: which input is it for?", f"write --input NAME=VALUE; names: {names}")


def _read(spec: TensorSpec, text: str) -> Any:
    return read_plain(spec, text) if spec.kind in KINDS else read_value(text, spec.name)


def _by_name(ports: Sequence[TensorSpec], path: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """Pick a model's inputs from an archive; other arrays in it (such as outputs) are ignored."""
    found = {spec.name: arrays[spec.name] for spec in ports if spec.name in arrays}
    if not found:
        names = ", ".join(spec.name for spec in ports)
        raise UsageError(f"{path}: none of its arrays ({', '.join(arrays)}) is an input", f"inputs: {names}")
    return found


def _literal(text: str, name: str, what: str = "a list of numbers", example: str = "[1,2,3]") -> Any:
    try:
        return json.loads(re.sub(r"\b(nan|inf)\b", lambda word: _JSON_WORDS[word[0]], text))
    except (ValueError, RecursionError):
        raise UsageError(f"input '{name}': '{text}' is not {what}", f"write it as {example}") from None


def _file(text: str, name: str) -> tuple[Path, str | None]:
    head, colon, key = text.rpartition(":")
    # A file's name may hold a colon too.
    path, wanted = (
        (Path(head), key) if colon and not Path(text).is_file() and Path(head).is_file() else (Path(text), None)
    )
    if not path.is_file():
        raise LoadError(f"{path}: no such file", f"the input '{name}' takes a file, a literal, random or zeros")
    return path, wanted
