"""Export a Core ML model to a PyTorch program (``.pt2``) or ONNX: the lowered graph, given to torch's exporters.

The result does not need tlkit: every operation is decomposed into torch's. The rounding to f16 that the program
declares is kept (as casts to f16 and back), so that it computes what the package computes; ``precision="f32"`` leaves
it out. Either is checked: the file is loaded again and compared with tlkit's executor on one seeded input.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from tlkit import __version__
from tlkit.core.convert.classic.boxes import KIND as SUPPRESSION
from tlkit.core.convert.classic.check import check_made
from tlkit.core.convert.classic.program import as_program
from tlkit.core.model.load import Model, load_model
from tlkit.errors import ConversionError, LoadError, UnavailableError, UsageError
from tlkit.formats.coreml.open import open_package
from tlkit.host.goals import files_named
from tlkit.host.quiet import quiet
from tlkit.host.staging import prepare, staged
from tlkit.mil.program import walk
from tlkit.types import ModelInfo

if TYPE_CHECKING:
    from torch import Tensor, fx
    from torch.export import ExportedProgram

    from tlkit.core.compare.models import Verification
    from tlkit.mil.program import Function

FORMATS = {".pt2": "torch.export", ".onnx": "ONNX"}
"""What is made for each ending of the output's name."""
LARGEST_ONNX = 2_000_000_000
"""Bytes: one ONNX file is one protobuf message, which ends at 2 GiB."""
_INSIDE = "tlkit.json"


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was made: size in bytes, the model's description, how many of each torch operation.

    ``verification`` is None where it was not asked for.
    """

    path: Path
    source: str
    format: str
    precision: str
    size: int
    info: ModelInfo
    operations: Mapping[str, int]
    verification: Verification | None
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the file computes what the model computes, or was not checked (see :class:`Verification`)."""
        return self.verification is None or self.verification.ok


def export(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    precision: str = "f16",
    function: str | None = None,
    verify: bool = True,
    seed: int = 0,
    strict_mil: bool = False,
    force: bool = False,
    stage: int | str | None = None,
) -> ExportResult:
    """Write the mlprogram ``model`` as ``output``, a ``.pt2`` (``torch.export.load``) or a ``.onnx``.

    It takes the model's inputs in order, images as (1, channels, height, width) of 0 to 255, f16 ports as float32; it
    gives the outputs by name. A classifier's label is the index of its class; the labels are in the file's metadata.
    ``stage`` takes one stage of a pipeline (``"1.."``: those from it on). ``strict_mil`` writes what MIL specifies
    where Core ML was measured to depart from it. ``.onnx`` needs the extra ``onnx``. A file that fails verification is
    still written: check ``result.ok``.

    Raises UsageError, LoadError, UnavailableError or ConversionError, and writes nothing then.
    """
    goal = Path(output)
    inputs = tuple(files_named(model))
    _check(goal, precision, force, inputs)

    if not Path(model).exists():
        hint = f"{goal.suffix} is made of a Core ML model; convert PyTorch to a .mlpackage first"
        raise LoadError(f"{model}: no such model file", hint)
    with as_program(Path(model), stage) as source:
        loaded = load_model(source, engine="eager", function=function)
        open_package(source).require_weights()
        info, program = _about(loaded, model), loaded.function()
        if info.states and goal.suffix == ".onnx":
            raise ConversionError(f"{model}: ONNX has no states", "write a .pt2, whose states are buffers")
        _refuse_choosing(model, program)
        found: Verification | None = None
        with quiet(), staged(goal, _read_again, force=force, inputs=inputs) as path:
            exported = _export(program, info, precision, narrow=goal.suffix == ".pt2", strict_mil=strict_mil)
            (_save_pt2 if goal.suffix == ".pt2" else _save_onnx)(exported, info, program, path)
            if verify:
                found = _checked(path, program, info, precision, seed, strict_mil, source, stage)
            size = path.stat().st_size
    calls = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    counts = {name: calls.count(name) for name in sorted(set(calls), key=lambda name: (-calls.count(name), name))}
    return ExportResult(
        goal, os.fspath(model), FORMATS[goal.suffix], precision, size, info, counts, found, _notes(info, goal)
    )


def _refuse_choosing(model: str | os.PathLike[str], function: Function) -> None:
    """Raise ConversionError where values decide how many boxes are kept: torch.export follows shapes only."""
    if not any(operation.type == "non_maximum_suppression" for operation in walk(function.block.operations)):
        return
    kinds = [stage.model.WhichOneof("Type") for stage in open_package(Path(model)).stages()]
    number = kinds.index(SUPPRESSION) if SUPPRESSION in kinds else 0
    hint = f"export the stage before it: --stage {number - 1}" if number else "it runs with `tlkit run`"
    raise ConversionError(f"{model}: torch.export cannot take a non_maximum_suppression", hint)


def _about(loaded: Model, model: str | os.PathLike[str]) -> ModelInfo:
    """Return the description with the shapes that a network's layers need, where its ports say less."""
    shapes = loaded.known.shapes
    ports = tuple(replace(port, shape=shapes.get(port.name, port.shape)) for port in loaded.inputs)
    return replace(loaded.info, path=os.fspath(model), inputs=ports)


def _checked(
    path: Path,
    program: Function,
    info: ModelInfo,
    precision: str,
    seed: int,
    strict_mil: bool,
    source: Path,
    stage: int | str | None,
) -> Verification:
    """Compare the file with its program, and before that the program with a classic model that it was made of."""
    from tlkit.core.convert.exported.check import check_export

    if Path(info.path) != source:
        made = check_made(Path(info.path), source, "f32", seed, stage)
        if not made.ok:
            return made
    return check_export(path, program, info, precision, seed, strict_mil)


def _read_again(path: Path) -> None:
    if path.suffix == ".pt2":
        import torch

        torch.export.load(path)
    else:
        import onnx

        onnx.checker.check_model(str(path))


def _check(goal: Path, precision: str, force: bool, inputs: Sequence[Path]) -> None:
    if goal.suffix not in FORMATS:
        raise UsageError(f"{goal}: unknown kind of file", f"name it {' or '.join(FORMATS)}")
    if precision not in ("f16", "f32"):
        raise UsageError(f"unknown precision '{precision}'", "it is f16 or f32")
    prepare(goal, force=force, inputs=inputs)
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if goal.suffix == ".onnx" and missing:
        raise UnavailableError(
            f"{' and '.join(missing)} not installed: {goal} cannot be written", "pip install 'tlkit[onnx]'"
        )


def _export(function: Function, info: ModelInfo, precision: str, *, narrow: bool, strict_mil: bool) -> ExportedProgram:
    """Run torch.export; ``narrow=False`` widens small integers, which few runtimes of ONNX know as indices."""
    import torch
    from torch.export import Dim

    from tlkit.core.convert.exported.exportable import examples, exportable, open_lengths

    module: fx.GraphModule = exportable(function, precision, narrow=narrow, strict_mil=strict_mil)
    given: dict[str, Tensor] = examples(function, info.inputs)
    lengths = {port.name: open_lengths(port) for port in info.inputs}
    # DYNAMIC fails where an operation fixes a length; AUTO would fix it in silence.
    dims = tuple(
        {axis: Dim.DYNAMIC(min=low, max=high) for axis, (low, high) in lengths[name].items()} for name in given
    )
    try:
        program = torch.export.export(module, tuple(given.values()), dynamic_shapes=dims, strict=False)
        # With an empty table torch makes the graph functional and decomposes nothing.
        return _without_assertions(program.run_decompositions({}))
    except Exception as error:
        flexible = next((name for name, axes in lengths.items() if axes), None)
        fix = (
            f"fix its shape first: tlkit edit {info.path} --input-shape {flexible}=..." if flexible else "-vv says more"
        )
        raise ConversionError(f"torch.export cannot take {info.path}: {_reason(error)}", fix) from error


def _without_assertions(program: ExportedProgram) -> ExportedProgram:
    """Remove the type assertions that torch.export puts before each cast; they cannot fail."""
    for node in list(program.graph.nodes):
        if str(node.target) == "aten._assert_tensor_metadata.default":
            program.graph.erase_node(node)
    program.graph_module.recompile()
    return program


def _save_pt2(program: ExportedProgram, info: ModelInfo, function: Function, path: Path) -> None:
    import torch

    with path.open("wb") as file:
        kept = _FirstError(file)
        torch.export.save(
            program, cast("IO[bytes]", kept), extra_files={_INSIDE: json.dumps(_metadata(info, function))}
        )
    if kept.error is not None:
        raise kept.error


class _FirstError(io.BufferedIOBase):
    """A file for writing that never raises but keeps the first error: an exception ends the process in torch's
    writer."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write ``data`` unless an earlier write failed; report success in any case."""
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def writable(self) -> bool:
        """Return True: it is a file for writing."""
        return True

    def seekable(self) -> bool:
        """Return True: torch seeks to the start, and only that, after everything is written."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Do nothing."""
        return offset


def _save_onnx(program: ExportedProgram, info: ModelInfo, function: Function, path: Path) -> None:
    import torch

    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > LARGEST_ONNX:
        raise ConversionError(f"{size / 1e9:.1f} GB of weights do not fit into one ONNX file", "write a .pt2")
    names = [port.name for port in info.inputs]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        made = torch.onnx.export(
            program, (), dynamo=True, input_names=names, output_names=list(function.block.outputs), verbose=False
        )
        assert made is not None
        made.model.metadata_props.update({key: json.dumps(value) for key, value in _metadata(info, function).items()})
        made.save(str(path), external_data=False)
    except OSError:
        raise
    except Exception as error:
        raise ConversionError(f"torch.onnx cannot take {info.path}: {_reason(error)}", "write a .pt2") from error


def _metadata(info: ModelInfo, function: Function) -> dict[str, Any]:
    said = {"description": info.metadata.description, "author": info.metadata.author, "license": info.metadata.license}
    ports = {"inputs": [port.name for port in info.inputs], "outputs": list(function.block.outputs)}
    return {"tlkit": __version__, **ports, "labels": list(info.labels), **{k: v for k, v in said.items() if v}}


def _notes(info: ModelInfo, goal: Path) -> tuple[str, ...]:
    notes = []
    if info.labels:
        notes.append("the label is the index of its class here; the labels are in the file's metadata")
    if any(port.image for port in info.inputs):
        notes.append("images are arrays here: (1, channels, height, width), 0 to 255, in the model's channel order")
    if any(port.enumerated or (port.image and port.image.sizes) for port in info.inputs):
        notes.append("it takes every length between the shapes that the model lists")
    if info.states:
        notes.append("its states are buffers: one program, one set of states")
    return tuple(notes)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
