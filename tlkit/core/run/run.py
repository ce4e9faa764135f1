"""Run one inference and summarize its outputs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.core.model import inputs as core_inputs
from tlkit.core.model.custom import customs
from tlkit.core.model.engines import NOT_FAITHFUL
from tlkit.core.model.inputs import Note
from tlkit.core.model.load import Model, load_model
from tlkit.core.model.values import collect
from tlkit.core.run.observe import DUMP, Dumped, observing, read_dump, stop_at
from tlkit.engines import told
from tlkit.errors import TlkitError, UsageError
from tlkit.host import budget
from tlkit.host.goals import check_distinct, files_named
from tlkit.host.staging import Goal, prepare, staged_set
from tlkit.mil.risks.devices import not_on_devices
from tlkit.types import TensorSpec, Unit
from tlkit.words import Told

if TYPE_CHECKING:
    from tlkit.core.emulate.choose import Emulated
    from tlkit.engines.torch.finite import Stray

FIRST = 6  # values of an output that the text shows
WHOLE = 65536  # elements up to which the JSON holds an output's values; beyond, --save-outputs does


@dataclass(frozen=True, slots=True)
class PortValue:
    """An input as given to the model."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OutputSummary:
    """A summary of one output.

    ``minimum``, ``maximum`` and ``mean`` are over the finite elements (None where there are none); ``nan`` and ``inf``
    count the others. ``classes`` holds (label, probability), likeliest first. ``values`` is None beyond
    :data:`WHOLE` elements. ``label`` is a classifier's answer.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    nan: int = 0
    inf: int = 0
    first: tuple[float, ...] = ()
    values: Any = None
    label: str | int | None = None
    classes: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class RunResult(Told):
    """One inference: what went in, what came out (``outputs``: as ``Model.predict`` gives it) and its summary.

    Of a run that stopped at the operation ``until``, the outputs are that operation's values. ``dumped`` lists the
    values that were kept, in the order in which they were computed. ``stray`` is the first operation that made
    something infinite or NaN of finite values, where it was looked for. ``emulated`` says what the outputs rest on
    where a unit's arithmetic was emulated. ``ran`` says in words what ran the model.
    """

    model: str
    unit: str
    engine: str
    precision: str
    seed: int
    inputs: tuple[PortValue, ...]
    outputs: Mapping[str, Any]
    summaries: tuple[OutputSummary, ...]
    function: str | None = None
    until: str | None = None
    dumped: tuple[Dumped, ...] = ()
    stray: Stray | None = None
    emulated: Emulated | None = None
    ran: str = ""

    def facts(self) -> list[tuple[str, object]]:
        """See :class:`~tlkit.words.Told`: the model, what ran it, and each output in short."""
        outputs = [(item.name, _in_short(item)) for item in self.summaries]
        return [("model", self.model), ("runs on", f"{self.unit}, {self.engine}, {self.precision}"), *outputs]

    @property
    def not_finite(self) -> tuple[str, ...]:
        """The names of outputs that hold a NaN or an infinity."""
        return tuple(summary.name for summary in self.summaries if summary.nan or summary.inf)


def run(
    model: str | os.PathLike[str],
    inputs: Iterable[str] = (),
    shapes: Iterable[str] = (),
    *,
    seed: int = 0,
    precision: str = "f16",
    engine: str = "auto",
    unit: str | Unit = Unit.CPU,
    function: str | None = None,
    strict_mil: bool = False,
    cache: bool = True,
    emulate: str | None = None,
    chip: str | None = None,
    stage: int | str | None = None,
    from_: int | str | None = None,
    custom: Iterable[str] = (),
    until: str | None = None,
    dump: str | None = None,
    ops: Iterable[str] = (),
    save_outputs: str | None = None,
    check_nan: bool = False,
    force: bool = False,
    note: Note = lambda _: None,
) -> RunResult:
    """Run ``model`` once on ``inputs`` (texts ``NAME=VALUE``); what is not given is drawn from ``seed``.

    ``save_outputs`` is a .npz or .safetensors file to write, complete or not at all. ``note`` hears what was drawn,
    which images had to be resized, and what of the model does not run on a device, or not on its Neural Engine.
    ``function`` is one of a multifunction package's, ``strict_mil`` takes MIL's specification where Core ML was
    measured to depart from it. ``stage`` is one stage of a pipeline, by its number (from 0) or name, to be run by
    itself; ``from_`` runs a pipeline from such a stage on.

    ``cache=False`` neither keeps a compiled model nor uses one that was kept. ``emulate`` runs it by what was published
    of a unit's arithmetic (:func:`load_model`).

    ``custom`` are texts ``CLASS=module:function``: what runs a neural network's custom layers (:func:`load_model`).

    ``until`` is an operation of the program, by its name, a value, a type (``softmax``, ``conv_2``) or its PyTorch
    module: the run stops there and has its values as outputs. ``dump`` is
    a folder to write, a .npy file for each value and an index, for all operations or those whose name or type matches
    one of ``ops`` (``*`` and ``?``). Both run on PyTorch, on a Mac too. So does ``check_nan``, which looks for the
    first operation that leaves the finite numbers; that is looked for always where PyTorch runs the model anyway, and
    where what comes out is not finite or all 0.

    Raises UsageError, LoadError, UnavailableError or ExecutionError.
    """
    ops, inputs = tuple(ops), tuple(inputs)
    wanted = _wanted(dump, save_outputs, ops)
    files = tuple(files_named(model, inputs))
    for item in wanted:
        # Before the model is loaded, which may take long.
        prepare(item.path, force=force, kind=item.kind, inputs=files)
    check_distinct([item.path for item in wanted])
    how: dict[str, Any] = {"precision": precision, "engine": engine, "unit": unit, "strict_mil": strict_mil}
    how |= {"cache": cache, "emulate": emulate, "chip": chip}
    stage = part_of(stage, from_)
    loaded = load_model(model, function=function, stage=stage, custom=customs(custom), **how)
    if precision == "bf16":
        note(NOT_FAITHFUL)
    if loaded.program is None:
        loaded.prepare()  # which says why it cannot, before the inputs are asked for
    shapes = tuple(shapes)
    named = {text.partition("=")[0] for text in inputs}
    asked = tuple(spec for spec in loaded.inputs if spec.name in named or not loaded.may_lack(spec))
    values = collect(asked, inputs, shapes, seed, note, loaded.stored, loaded.known)
    ports = {spec.name: spec for spec in loaded.inputs}
    arrays = {name: core_inputs.to_port(ports[name], value, note) for name, value in values.items()}
    _tell_of_devices(loaded, arrays, note)
    if loaded.info.states:
        note(f"states begin at zero: {', '.join(spec.name for spec in loaded.info.states)}")
    state = loaded.make_state() if loaded.info.states else None
    dumped: list[Dumped] = []
    stray: Stray | None = None
    ran = "PyTorch, operation by operation, to show its values"
    with staged_set(wanted, force=force, inputs=files) as paths, budget.drawn(not inputs and not shapes):
        if until is None and dump is None:
            ran = "PyTorch, eager: one inference, checked for what is not finite"
            if loaded.checkable:
                outputs, stray = loaded.check(arrays, state)
            else:
                outputs, ran = loaded.predict(arrays, state), ran_by(loaded)
                if check_nan or _suspect(outputs):
                    beside = partial(load_model, model, function=function, stage=stage, custom=customs(custom))
                    stray = _inside(partial(beside, **how | {"engine": "eager"}), arrays, needed=check_nan)
        else:
            shaped = loaded.function({name: np.shape(array) for name, array in arrays.items()})
            if until is not None and (others := stop_at(shaped, until)[1]):
                note(_meant(until, stop_at(shaped, until)[0], others))
            with observing(until, paths[0] if dump else None, ops, shaped) as observer:
                outputs, dumped = loaded.watch(arrays, observer) or observer.found, observer.dumped
        if save_outputs is not None:
            # `_wanted` names these outputs last.
            save(outputs, paths[-1])
    given = tuple(_as_given(ports[name], value) for name, value in arrays.items())
    specs = {spec.name: spec for spec in loaded.outputs}
    summaries = tuple(summarize(specs.get(name) or TensorSpec(name, ""), value) for name, value in outputs.items())
    where = (os.fspath(model), str(unit), engine, precision, seed)
    for remark in told.remarks():
        note(remark)
    return RunResult(*where, given, outputs, summaries, function, until, tuple(dumped), stray, loaded.emulated, ran)


def _tell_of_devices(model: Model, arrays: Mapping[str, Any], note: Note) -> None:
    """Say what of a program does not run on Apple's units, by its shapes and those that it is given."""
    if model.program is not None:
        shapes = {name: np.shape(array) for name, array in arrays.items()}
        for line in not_on_devices(model.function(), model.inputs, shapes):
            note(line)


def _suspect(outputs: Mapping[str, Any]) -> bool:
    """Whether a number in ``outputs`` is not finite, or each is 0: what an overflow inside ends as."""
    arrays = [value for value in outputs.values() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
    return bool(arrays) and not (all(np.isfinite(item).all() for item in arrays) and any(item.any() for item in arrays))


def _inside(load: Callable[[], Model], arrays: Mapping[str, Any], *, needed: bool) -> Stray | None:
    """Return what strays first where PyTorch runs the model that ``load`` gives, since its own engine shows no values
    inside; None where PyTorch does not run it, unless that is ``needed``."""
    try:
        beside = load()
        return beside.check(arrays, beside.make_state() if beside.info.states else None)[1]
    except TlkitError:
        if needed:
            raise
        return None


def part_of(stage: int | str | None, from_: int | str | None) -> int | str | None:
    """Return what :func:`load_model` takes as ``stage``: one stage, or those ``from_`` one on."""
    if stage is not None and from_ is not None:
        raise UsageError("--stage takes one stage, --from those from one on", "give one of the two")
    return stage if from_ is None else f"{from_}.."


def ran_by(model: Model) -> str:
    """Return what ran the model, and why that, where an engine says so."""
    return str(getattr(model.engine, "why", model.engine.name))


def _meant(until: str, stop: str, others: tuple[str, ...]) -> str:
    """Say which of several operations ``--until`` stopped at."""
    more = f" and {len(others) - FIRST} more" if len(others) > FIRST else ""
    return f"--until {until}: stopped at '{stop}'; it means {', '.join(others[:FIRST])}{more} as well"


def _in_short(found: OutputSummary) -> str:
    if found.label is not None:
        return str(found.label)
    if found.classes:
        return ", ".join(f"{label} {share:.4f}" for label, share in found.classes[:3])
    dims = "x".join(map(str, found.shape))
    return f"{found.dtype} {dims}, {found.minimum} to {found.maximum}" if found.minimum is not None else dims


def _as_given(spec: TensorSpec, value: Any) -> PortValue:
    if isinstance(value, np.ndarray):
        return PortValue(spec.name, str(value.dtype), value.shape)
    return PortValue(spec.name, spec.dtype, () if isinstance(value, str) else (len(value),))


def summarize(spec: TensorSpec, value: Any) -> OutputSummary:
    """Return the summary of one output of ``Model.predict``."""
    if isinstance(value, Mapping):
        ranked = sorted(value.items(), key=lambda item: (-item[1], str(item[0])))
        nan, inf = _strays(np.fromiter(value.values(), np.float64, len(value)))
        classes = tuple((str(label), float(share)) for label, share in ranked)
        return OutputSummary(spec.name, "classes", spec.dtype, (len(value),), nan=nan, inf=inf, classes=classes)
    if isinstance(value, str | int):
        return OutputSummary(spec.name, "label", spec.dtype, label=value)
    if isinstance(value, list):
        return OutputSummary(spec.name, "sequence", spec.dtype, (len(value),), values=value)
    array = np.asarray(value)
    flat = array.astype(np.float64).ravel()
    sound = np.isfinite(flat)
    finite, (nan, inf) = (flat, (0, 0)) if sound.all() else (flat[sound], _strays(flat))
    low, high, mean = (float(finite.min()), float(finite.max()), float(finite.mean())) if finite.size else (None,) * 3
    return OutputSummary(
        spec.name,
        "image" if spec.image else "tensor",
        spec.dtype or str(array.dtype),
        array.shape,
        low,
        high,
        mean,
        nan,
        inf,
        first=tuple(array.ravel()[:FIRST].tolist()),
        values=array if array.size <= WHOLE else None,
    )


def save(outputs: Mapping[str, Any], path: Path) -> None:
    """Write outputs to ``path`` (.npz or .safetensors).

    A classifier's probabilities become one array, their labels the array ``NAME.labels`` (in a SafeTensors file, which
    holds no text, a JSON list in its metadata); so does its answer.
    """
    arrays: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    for name, value in outputs.items():
        if isinstance(value, Mapping):
            arrays[name] = np.array(list(value.values()), np.float64)
            texts[f"{name}.labels"] = list(value)
        elif isinstance(value, str | int | list):
            texts[name] = value
        else:
            arrays[name] = np.ascontiguousarray(value)
    if path.suffix == ".npz":
        # Texts become arrays of characters: as objects they would need a pickle.
        np.savez(path, **(arrays | {name: np.array(text) for name, text in texts.items()}))
    else:
        from safetensors.numpy import save

        # save_file would say of a full disk what Python's own errors say better
        path.write_bytes(save(arrays, {name: json.dumps(text) for name, text in texts.items()} or None))


def _strays(flat: np.ndarray[Any, Any]) -> tuple[int, int]:
    return int(np.isnan(flat).sum()), int(np.isinf(flat).sum())


def _wanted(dump: str | None, save_outputs: str | None, ops: tuple[str, ...]) -> list[Goal]:
    """Return the files that the run will write; UsageError for names and patterns that match nothing."""
    if dump is None and ops:
        raise UsageError("--ops chooses what --dump keeps, and there is no --dump", "add --dump FOLDER")
    wanted = [] if dump is None else [Goal(Path(dump), read_dump, DUMP)]
    if save_outputs is not None:
        if Path(save_outputs).suffix not in (".npz", ".safetensors"):
            raise UsageError(f"--save-outputs {save_outputs}: unknown kind of file", "name it .npz or .safetensors")
        wanted.append(Goal(Path(save_outputs), read_saved))
    return wanted


def read_saved(path: Path) -> None:
    """Read what :func:`save` wrote, to see that it is whole."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                archive[name]  # reads it
    else:
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            file.keys()
