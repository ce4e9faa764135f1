"""Convert a traced module to a Core ML package: the one place that calls coremltools to convert.

Importing this module does not import coremltools; :func:`write_package` does.
"""

from __future__ import annotations

import errno
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.failure import conversion_error
from tlkit.core.convert.tools.kit.reading import plain_name
from tlkit.core.convert.tools.load import load_tools
from tlkit.core.convert.tools.passes import pipeline
from tlkit.core.convert.tools.targets import Target
from tlkit.core.convert.tools.teach import install
from tlkit.core.inspect.places import KEY, record
from tlkit.errors import ConversionError, UnavailableError, UsageError
from tlkit.formats.coreml.features import interfaces, rename_ports
from tlkit.formats.coreml.package import root_model
from tlkit.host.quiet import quiet, read_bar
from tlkit.host.scratch import temporary_files
from tlkit.mil.passes.base import run_passes
from tlkit.mil.passes.rename import Rename
from tlkit.mil.proto import read_program
from tlkit.mil.write import write_program
from tlkit.ports.port import span_keys
from tlkit.types import TensorSpec

if TYPE_CHECKING:
    from tlkit.core.convert.capture.states import BufferState
    from tlkit.core.convert.capture.trace import Output, Traced

TESTED_TORCH = (2, 13)
Report = Callable[[str, float], None]
"""Called with what is being done and how much of that is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class About:
    """A package's metadata; empty fields are left unchanged."""

    author: str = ""
    description: str = ""
    version: str = ""
    license: str = ""

    def write(self, metadata: Any) -> None:
        """Put it into ``metadata``, Core ML's message."""
        metadata.author = self.author or metadata.author
        metadata.shortDescription = self.description or metadata.shortDescription
        metadata.versionString = self.version or metadata.versionString
        metadata.license = self.license or metadata.license


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make the package: precision ``f16 | f32``, oldest system, class labels, what it says of itself.

    ``wide`` are values (by :func:`plain_name`) that f16 does not hold: what gives or takes them stays in f32.
    """

    precision: str
    target: Target
    labels: tuple[str, ...] = ()
    about: About = About()
    wide: frozenset[str] = frozenset()


def check_versions() -> None:
    """Raise :class:`UnavailableError` if coremltools is not here, or not whole, or cannot convert with this numpy."""
    try:
        tools = version("coremltools")
    except PackageNotFoundError:
        raise UnavailableError("coremltools is not installed", "pip install 'coremltools>=9,<10'") from None
    numpy = version("numpy")
    if _numbers(numpy) >= (2, 4):
        # Its pad, split and other ops fail there: 111 of 763 sampled conversions stop, with 2.3 one does.
        raise UnavailableError(f"coremltools {tools} cannot convert with numpy {numpy}", "pip install 'numpy<2.4'")
    _check_native(tools)


def _check_native(tools: str) -> None:
    """Raise where pip built coremltools from source, for lack of a wheel: it fails when it writes weights."""
    folders = getattr(find_spec("coremltools"), "submodule_search_locations", None) or ()
    if any(next(Path(folder).glob("libmilstoragepython*"), None) for folder in folders):
        return
    here = f"Python {sys.version_info[0]}.{sys.version_info[1]} on {sys.platform}"
    raise UnavailableError(
        f"this coremltools {tools} lacks its native libraries, which write the weights: it is not a wheel for {here}",
        "pip install --force-reinstall --only-binary coremltools coremltools, with a Python that has a wheel",
    )


def version_notes() -> tuple[str, ...]:
    """Return what is worth knowing about the versions in use."""
    torch = version("torch")
    if _numbers(torch) <= TESTED_TORCH:
        return ()
    return (f"torch {torch} is newer than the last one tested with tlkit, {TESTED_TORCH[0]}.{TESTED_TORCH[1]}",)


def _numbers(text: str) -> tuple[int, int]:
    major, minor = re.findall(r"\d+", text)[:2]
    return int(major), int(minor)


def write_package(traced: Traced, recipe: Recipe, path: Path, report: Report) -> None:
    """Convert ``traced`` and write the package at ``path`` (a new ``.mlpackage``).

    Raises :class:`ConversionError` with coremltools' reason in one line; OSError where the disk refuses.
    """
    with temporary_files("tlkit-tools-"), quiet(progress(report)) as heard:
        ct = load_tools()
        install()
        try:
            model = ct.convert(
                traced.program,
                inputs=_inputs(ct, traced.ports),
                outputs=_outputs(ct, traced, recipe),
                states=[_state(ct, state) for state in traced.states] or None,
                convert_to="mlprogram",
                classifier_config=ct.ClassifierConfig(list(recipe.labels)) if recipe.labels else None,
                minimum_deployment_target=ct.target[recipe.target.name],
                compute_precision=_precision(ct, recipe),
                pass_pipeline=pipeline(recipe.precision),
                skip_model_load=True,  # it would compile the model, which only macOS can
                package_dir=str(path),
            )
        except OSError:
            raise
        except Exception as error:
            refused_by_disk(error, path)
            raise conversion_error(error, heard, ct.__version__, traced) from error
        spec = model.get_spec()
        _name_states(spec, traced.states)
        _check_outputs([feature.name for feature in spec.description.output])
        recipe.about.write(spec.description.metadata)
        spec.description.metadata.userDefined[KEY] = record(traced.origins(model._mil_program))
        # The package on disk lacks what coremltools adds to the model afterwards; saving anew would copy the weights.
        ct.utils.save_spec(spec, str(root_model(path)))


def _precision(ct: Any, recipe: Recipe) -> Any:
    if recipe.precision != "f16":
        return ct.precision.FLOAT32
    if not recipe.wide:
        return ct.precision.FLOAT16

    def fits(operation: Any) -> bool:
        """Whether no value of ``operation`` is one of the wide ones."""
        given = [
            item
            for value in operation.inputs.values()
            for item in (value if isinstance(value, list | tuple) else [value])
        ]
        # An output of the program has the user's name; its cast is called by the operation's.
        names = {
            plain_name(str(value.name)) for value in (operation, *given, *operation.outputs) if hasattr(value, "name")
        }
        return not names & recipe.wide

    return ct.transform.FP16ComputePrecision(op_selector=fits)


def progress(report: Report) -> Callable[[str], None]:
    """Return what turns coremltools' progress bars, line by line, into calls of ``report``."""

    def listen(line: str) -> None:
        bar = read_bar(line)
        if bar:
            what, done, total = bar
            report(_STAGES.get(what, what), done / max(total, 1))

    return listen


_STAGES = {
    "Converting PyTorch Frontend ==> MIL Ops": "converting to MIL",
    "Running MIL frontend_pytorch pipeline": "cleaning up the torch program",
    "Running MIL default pipeline": "optimizing the program",
    "Running MIL backend_mlprogram pipeline": "lowering to an mlprogram",
}


def _inputs(ct: Any, ports: Sequence[TensorSpec]) -> list[Any]:
    """Return coremltools' types; axes of several ports that share a length share its one RangeDim."""
    shared: dict[tuple[int, int, int], Any] = {}
    return [_input(ct, port, _shape(ct, port, shared)) for port in ports]


def _input(ct: Any, port: TensorSpec, shape: Any) -> Any:
    import numpy as np

    if port.image is None:
        return ct.TensorType(name=port.name, shape=shape, dtype=np.dtype(port.dtype).type)
    scale, given = port.intake.scale, port.intake.bias
    ratios = port.intake.ratios or (1.0,) * len(given)  # the model multiplies by them: what bias is then
    biases = [bias / ratio for bias, ratio in zip(given, ratios, strict=True)]
    bias = biases if len(biases) > 1 else biases[0]
    layout = ct.colorlayout[port.image.layout]
    return ct.ImageType(name=port.name, shape=shape, scale=scale, bias=bias, color_layout=layout)


def _shape(ct: Any, port: TensorSpec, shared: dict[tuple[int, int, int], Any]) -> Any:
    if port.listed:
        return ct.EnumeratedShapes(shapes=list(port.listed), default=port.shape)
    keys = span_keys(port)
    for key in keys:
        # Each RangeDim is a length by itself: one that is shared tells coremltools that lengths are equal.
        if key is not None and key not in shared:
            shared[key] = ct.RangeDim(lower_bound=key[0], upper_bound=key[1], default=key[0])
    return tuple(size if key is None else shared[key] for key, size in zip(keys, port.shape, strict=True))


def _outputs(ct: Any, traced: Traced, recipe: Recipe) -> list[Any] | None:
    """Name the outputs and keep them f32 if nothing else is asked: from iOS16 on coremltools' default is f16."""
    if recipe.labels:
        return None  # becomes the classifier's dictionary, which coremltools names and types
    return [_output(ct, output) for output in traced.outputs]


def _output(ct: Any, output: Output) -> Any:
    import numpy as np

    if output.port.layout:
        return ct.ImageType(name=output.name, color_layout=ct.colorlayout[output.port.layout])
    dtype = output.port.dtype or ("float32" if output.dtype.is_floating_point else "int32")
    return ct.TensorType(name=output.name, dtype=np.dtype(dtype).type)


def _state(ct: Any, state: BufferState) -> Any:
    import numpy as np

    return ct.StateType(wrapped_type=ct.TensorType(shape=state.shape, dtype=np.float16), name=state.source)


def _name_states(spec: Any, states: Sequence[BufferState]) -> None:
    """Give the states the user's names of the buffers: coremltools uses the traced module's names."""
    # coremltools writes _ for what no name may have, such as the dots of a buffer's path.
    made = {re.sub(r"\W", "_", state.source): state.name for state in states}
    names = {old: new for old, new in made.items() if old != new}
    if names:
        (target,) = interfaces(spec)
        program = read_program(spec.mlProgram, lambda name: None)  # the weights stay where they are
        write_program(run_passes(program, [Rename(target.function, names)]).program, spec.mlProgram)
        rename_ports(target, names)


def check_classifier(outputs: Sequence[Output], labels: int) -> None:
    """Raise :class:`UsageError` unless there is one output and it has one score for each of ``labels`` classes."""
    found = ", ".join(f"{output.name} {'x'.join(map(str, output.shape))}" for output in outputs)
    if len(outputs) > 1:
        # coremltools 9 stops with an IndexError where a classifier has outputs beside its scores.
        raise UsageError(f"a classifier has one output, this model {len(outputs)}: {found}", "return only the scores")
    if math.prod(outputs[0].shape) != labels:
        raise UsageError(f"{labels} class labels for the output {found}", "give one label for each score, at batch 1")


def _check_outputs(names: Sequence[str]) -> None:
    """Refuse outputs that coremltools found equal and merged: it writes a package with one name twice."""
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConversionError(f"several outputs are the same value, '{twice.pop()}'", "return it once")


def refused_by_disk(error: Exception, path: Path) -> None:
    """Raise OSError where coremltools' C++ code, which writes the files, met a full disk: it raises RuntimeError."""
    # C++ says `filesystem error: cannot ...: No space left on device [path]`, or that it cannot open or write a file.
    reason = re.search(r"filesystem error: ([^\[]*)|(.*(?:open|writ\w*) .*(?:file|stream).*)", str(error))
    if not isinstance(error, RuntimeError) or reason is None:
        return
    free = min(shutil.disk_usage(folder).free for folder in (path.parent, tempfile.gettempdir()))
    # Which error it was, C++ does not tell.
    raise OSError(errno.EIO, f"{(reason[1] or reason[2]).strip()} ({free / 1e6:.0f} MB free)") from error
