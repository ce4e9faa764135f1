"""Apply the changes of ``tlkit edit``: passes over the program, and the matching description, in an order in which no
change hides another's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlkit.core.edit.ane import Rewrite, for_ane
from tlkit.core.edit.shapes import fixed_elsewhere, parse_shapes, program_shape
from tlkit.errors import UsageError
from tlkit.formats.coreml.describe import describe_package
from tlkit.formats.coreml.features import (
    PORTS,
    Interface,
    array_port,
    check_names,
    describe_classifier,
    describe_dtype,
    describe_outputs,
    describe_shapes,
    interfaces,
    rename_ports,
)
from tlkit.formats.coreml.package import Package
from tlkit.formats.coreml.ports import read_ports
from tlkit.formats.coreml.write import oldest_version
from tlkit.mil.opsets import NEWEST
from tlkit.mil.passes.base import Pass, run_passes
from tlkit.mil.passes.cast_ports import CastInput, CastOutput
from tlkit.mil.passes.classify import SetLabels, classifier_outputs
from tlkit.mil.passes.rename import Rename
from tlkit.mil.passes.reshape import Reshape
from tlkit.mil.program import Function, Program
from tlkit.mil.types import DType
from tlkit.mil.write import write_program
from tlkit.ports.parse import check_name, element_type
from tlkit.ports.shapes import shapes_text
from tlkit.types import TensorSpec

if TYPE_CHECKING:
    from tlkit.core.edit.mend import Mending

Mender = Callable[[Program], tuple[Program, tuple["Mending", ...]]]


@dataclass(frozen=True, slots=True)
class Edits:
    """The edits asked for, as read from the call."""

    rename: Mapping[str, str]
    input_shapes: Mapping[str, str]
    input_dtypes: Mapping[str, str]
    output_dtypes: Mapping[str, str]
    metadata: Mapping[str, str]
    fields: Mapping[str, str | None]
    labels: Sequence[str]
    spec_version: int | None
    ane: bool = False
    chip: str | None = None
    mend: Mender | None = None

    @property
    def program(self) -> bool:
        """Whether the program changes, not only the description's texts."""
        ports = self.rename or self.input_shapes or self.input_dtypes or self.output_dtypes
        return bool(ports or self.labels or self.ane or self.mend)


@dataclass(frozen=True, slots=True)
class Applied:
    """``program`` where it has weights to be computed, so that weights are written as well; what was rewritten."""

    program: Program | None = None
    rewrites: tuple[Rewrite, ...] = ()
    mendings: tuple[Mending, ...] = ()


def apply(package: Package, model: Any, wanted: Edits) -> Applied:
    """Apply ``wanted`` to ``model`` (a copy of the package's message); UsageError where the model does not allow a
    change."""
    made = _change_program(package, model, wanted) if wanted.program else Applied()
    _describe(model, wanted)
    _check_version(model, wanted.spec_version)
    return made


def _change_program(package: Package, model: Any, wanted: Edits) -> Applied:
    if package.program is None:
        kind = model.WhichOneof("Type") or "unknown"
        raise UsageError(
            f"{package.root}: of a {kind} model only metadata can be edited", "--metadata, --author, --description, ..."
        )
    editing = _Editing(package, model, package.program)
    editing.set_shapes(wanted.input_shapes)
    editing.set_dtypes("input", wanted.input_dtypes)
    editing.set_dtypes("output", wanted.output_dtypes)
    editing.set_labels(wanted.labels)
    # After what goes by the old names.
    editing.rename({old: check_name(new) for old, new in wanted.rename.items()})
    rewrites: tuple[Rewrite, ...] = ()
    before = editing.program
    if wanted.ane:
        package.require_weights()
        editing.program, rewrites = for_ane(before, wanted.chip)
    mendings: tuple[Mending, ...] = ()
    if wanted.mend is not None:
        package.require_weights()
        editing.program, mendings = wanted.mend(editing.program)
    # Rewrites compute weights, which are then written with the program.
    if editing.program != before:
        return Applied(editing.program, rewrites, mendings)
    # What no pass changed keeps its message as it is.
    if editing.program != package.program:
        write_program(editing.program, model.mlProgram)
    return Applied(rewrites=rewrites, mendings=mendings)


class _Editing:
    """A model being edited: ``program`` is the passes' result so far, and the description is changed in step."""

    def __init__(self, package: Package, model: Any, program: Program) -> None:
        self._package = package
        self._targets = interfaces(model)
        self.program = program

    def _run(self, change: Pass) -> None:
        self.program = run_passes(self.program, [change]).program

    def _function(self, target: Interface) -> Function:
        return self.program.function(target.function)

    def set_shapes(self, wanted: Mapping[str, str]) -> None:
        for name in wanted:
            _having(self._targets, "input", name)
        for target in self._targets if wanted else ():
            ports = {spec.name: spec for spec in describe_package(self._package, target.name or None).inputs}
            asked = {name: parse_shapes(name, text, ports[name]) for name, text in wanted.items() if name in ports}
            if self._stuck(target, asked):
                # The program is run at the new shape, which reads them.
                self._package.require_weights()
                self._run(Reshape(target.function, {name: spec.shape for name, spec in asked.items()}))
                describe_outputs(target, self._function(target))
            for name, spec in asked.items():
                describe_shapes(target.port("input", name), spec)

    def _stuck(self, target: Interface, asked: Mapping[str, TensorSpec]) -> bool:
        """Whether the program fixes other lengths than requested; UsageError where flexible ones were requested."""
        stuck = False
        for name, spec in asked.items():
            axis = fixed_elsewhere(self._function(target), name, spec)
            if axis is not None and spec.flexible:
                from tlkit.mil.passes.infer import AGAIN  # late: it imports torch

                declared = program_shape(self._function(target), name)
                fixed = f"the program fixes axis {axis} of '{name}' at {declared[axis]}"
                raise UsageError(f"{self._package.root}: {fixed}: it cannot be made flexible", AGAIN)
            stuck = stuck or axis is not None
        return stuck

    def set_dtypes(self, kind: str, wanted: Mapping[str, str]) -> None:
        change = CastInput if kind == "input" else CastOutput
        for name, text in wanted.items():
            dtype = DType.named(element_type(text, f"--{kind}-dtype {name}={text}"))
            for target in _having(self._targets, kind, name):
                array_port(target, kind, name)
                self._run(change(target.function, name, dtype))
                describe_dtype(target, kind, name, dtype)

    def set_labels(self, labels: Sequence[str]) -> None:
        for target in self._targets if labels else ():
            self._run(SetLabels(target.function, tuple(labels)))
            describe_classifier(target, classifier_outputs(self._function(target)))

    def rename(self, names: Mapping[str, str]) -> None:
        check_names(self._targets, names)
        for target in self._targets if names else ():
            here = {old: new for old, new in names.items() if old in target.names()}
            self._run(Rename(target.function, here))
            rename_ports(target, here)


def _having(targets: Sequence[Interface], kind: str, name: str) -> list[Interface]:
    having = [target for target in targets if target.port(kind, name) is not None]
    if not having:
        known = ", ".join(dict.fromkeys(port for target in targets for port in target.names(kind)))
        raise UsageError(f"no {kind} is named '{name}'", f"{kind}s: {known}")
    return having


def _describe(model: Any, wanted: Edits) -> None:
    metadata = model.description.metadata
    for field, text in wanted.fields.items():
        if text is not None:
            setattr(metadata, field, text)
    for key, value in wanted.metadata.items():
        if value:
            metadata.userDefined[key] = value
        else:
            metadata.userDefined.pop(key, None)


def _check_version(model: Any, wanted: int | None) -> None:
    lowest, reason = oldest_version(model)
    version = model.specificationVersion if wanted is None else wanted
    if wanted is not None and wanted > NEWEST.version:
        raise UsageError(
            f"--spec-version {wanted}: the newest is {NEWEST.version}", f"choose {lowest} to {NEWEST.version}"
        )
    if version < lowest:
        raise UsageError(
            f"specification version {version} is too old for {reason}", f"--spec-version {lowest} or later is needed"
        )
    model.specificationVersion = version


def changes(before: Any, after: Any, wanted: Edits) -> tuple[str, ...]:
    """Return one line for each change between two messages: ports, labels, texts, version."""
    lines = list(_port_changes(interfaces(before), interfaces(after)))
    if wanted.labels:
        lines.append(f"class labels: {len(wanted.labels)}, {wanted.labels[0]} to {wanted.labels[-1]}")
    lines += [f"metadata {key}: {value or 'removed'}" for key, value in wanted.metadata.items()]
    lines += [f"{_WORDS[field]}: {text or 'removed'}" for field, text in wanted.fields.items() if text is not None]
    if before.specificationVersion != after.specificationVersion:
        lines.append(f"specification version {before.specificationVersion} → {after.specificationVersion}")
    return tuple(lines)


_WORDS = {"author": "author", "shortDescription": "description", "license": "license", "versionString": "version"}


def _port_changes(before: Sequence[Interface], after: Sequence[Interface]) -> Iterator[str]:
    for old, new in zip(before, after, strict=True):
        where = f"{old.name}: " if old.name else ""
        for kind in PORTS:
            pair = (read_ports(getattr(side.description, kind)) for side in (old, new))
            for was, now in zip(*pair, strict=False):
                if was.name != now.name:
                    yield f"{where}{kind} {was.name} → {now.name}"
                if _text(was) != _text(now):
                    yield f"{where}{kind} {now.name}: {_text(was)} → {_text(now)}"


def _text(spec: TensorSpec) -> str:
    return f"{spec.dtype} {shapes_text(spec)}".strip()
