"""Have coremltools read a package's program back and build it again, with the operations of another system.

Importing this module does not import coremltools; :func:`rebuild` does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlkit.core.convert.tools.build import About, Report, progress, refused_by_disk
from tlkit.core.convert.tools.failure import conversion_error
from tlkit.core.convert.tools.load import load_tools
from tlkit.core.convert.tools.passes import plain_pipeline
from tlkit.core.convert.tools.targets import Target
from tlkit.errors import TlkitError
from tlkit.formats.coreml.package import Package
from tlkit.host.quiet import quiet
from tlkit.host.scratch import temporary_files
from tlkit.mil.program import Program, walk

Steps = tuple[str, ...] | None
NARROW: Steps = None
"""All of coremltools' passes, to f16."""
TIDY: Steps = ("common::cast_optimization", "common::noop_elimination", "common::dead_code_elimination")
"""Passes that take away the casts between f32 and f32 that widening leaves."""
SUPPRESSION = "non_maximum_suppression"
_MIXED: Steps = (
    "common::add_fp16_cast",
    "common::cast_optimization",
    "common::const_elimination",
    "common::noop_elimination",
    "common::dead_code_elimination",
    "common::const_deduplication",
)
"""Passes to f16 that leave every operation its name, so that some of them can be excepted."""


def rebuild(
    package: Package,
    target: Target,
    path: Path,
    steps: Steps,
    report: Report,
    about: About | None = None,
    kept: frozenset[str] | None = None,
) -> None:
    """Have coremltools read ``package``, apply ``steps``, and write it at ``path`` with the operations of ``target``.

    ``kept`` names values whose operations stay in f32; all others become f16 then, whatever ``steps`` are. Raises
    :class:`ConversionError` with coremltools' reason.
    """
    if kept is not None:
        steps = _MIXED
    with temporary_files("tlkit-tools-"), quiet(progress(report)) as heard:
        ct = load_tools()
        from coremltools.converters.mil.converter import mil_convert
        from coremltools.converters.mil.frontend.milproto.load import load

        spec = ct.proto.Model_pb2.Model.FromString(package.model.SerializeToString())
        (about or About()).write(spec.description.metadata)
        pipeline = plain_pipeline() if steps is NARROW else ct.PassPipeline(list(steps or ()), "tidy")
        if kept is not None:
            pipeline.set_options("common::add_fp16_cast", {"op_selector": _others(kept)})
        if steps is NARROW:
            pipeline.set_options("common::add_fp16_cast", {"skip_ops_by_type": _in_f32(package.program)})
        try:
            program = load(
                model_spec=spec,
                specification_version=target.version,
                file_weights_dir=str(package.base / "weights"),
            )
            program.default_function_name = spec.description.defaultFunctionName or "main"
            mil_convert(
                program,
                convert_from="milinternal",
                convert_to="mlprogram",
                specification_version=target.version,
                model_description=spec.description,
                main_pipeline=pipeline,
                compute_units=ct.ComputeUnit.ALL,
                skip_model_load=True,  # it would compile the model, which only macOS can
                package_dir=str(path),
            )
        except (OSError, TlkitError):
            raise
        except Exception as error:
            refused_by_disk(error, path)
            raise conversion_error(error, heard, ct.__version__) from error


def _in_f32(program: Program | None) -> str:
    """Return the kinds of operations that do not become f16: a classifier's, whose labels are a list, and those that
    choose among boxes, whose thresholds f16 would move."""
    kinds = {operation.type for operation in walk(program.function().block.operations)} if program else set()
    return "classify" + (f",{SUPPRESSION},reduce_max,greater_equal" if SUPPRESSION in kinds else "")


def _others(kept: frozenset[str]) -> Callable[[Any], bool]:
    """Return whether an operation of coremltools' may become f16: it gives none of ``kept``, nor a list of labels."""

    def fits(operation: Any) -> bool:
        return operation.op_type != "classify" and not {str(item.name) for item in operation.outputs} & kept

    return fits
