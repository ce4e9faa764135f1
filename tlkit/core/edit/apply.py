"""The changes of ``tlkit edit``, made in a model's message in an order in which none hides another's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlkit.core.edit.shapes import parse_shapes
from tlkit.errors import UsageError
from tlkit.formats.coreml.describe import describe_package
from tlkit.formats.coreml.edit import dtypes as edit_dtypes
from tlkit.formats.coreml.edit import labels as edit_labels
from tlkit.formats.coreml.edit import names as edit_names
from tlkit.formats.coreml.edit import shapes as edit_shapes
from tlkit.formats.coreml.edit.message import PORTS, Interface, interfaces, oldest_version
from tlkit.formats.coreml.package import Package
from tlkit.formats.coreml.ports import read_ports
from tlkit.mil.opsets import NEWEST
from tlkit.ports.parse import check_name, element_type
from tlkit.ports.shapes import shapes_text
from tlkit.types import TensorSpec


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

    @property
    def program(self) -> bool:
        """Whether the program is to change, and not the description's texts alone."""
        return bool(self.rename or self.input_shapes or self.input_dtypes or self.output_dtypes or self.labels)


def apply(package: Package, model: Any, wanted: Edits) -> None:
    """Make ``wanted`` of ``model`` (a copy of the package's message); UsageError where the model rules one out."""
    targets = interfaces(model)
    if wanted.program and model.WhichOneof("Type") != "mlProgram":
        kind = model.WhichOneof("Type") or "unknown"
        raise UsageError(
            f"{package.root}: of a {kind} model only metadata can be edited", "--metadata, --author, --description, ..."
        )
    _set_shapes(package, targets, wanted.input_shapes)
    _set_dtypes(targets, "input", wanted.input_dtypes, edit_dtypes.set_input_dtype)
    _set_dtypes(targets, "output", wanted.output_dtypes, edit_dtypes.set_output_dtype)
    if wanted.labels:
        for target in targets:
            edit_labels.set_labels(target, wanted.labels)
    if wanted.rename:
        edit_names.rename_ports(targets, {old: check_name(new) for old, new in wanted.rename.items()})
    _describe(model, wanted)
    _check_version(model, wanted.spec_version)


def _set_dtypes(
    targets: Sequence[Interface],
    kind: str,
    wanted: Mapping[str, str],
    change: Callable[[Interface, str, str], None],
) -> None:
    for name, text in wanted.items():
        dtype = element_type(text, f"--{kind}-dtype {name}={text}")
        for target in _having(targets, kind, name):
            change(target, name, dtype)


def _set_shapes(package: Package, targets: Sequence[Interface], wanted: Mapping[str, str]) -> None:
    for name in wanted:
        _having(targets, "input", name)
    for target in targets:
        ports = {spec.name: spec for spec in describe_package(package, target.name or None).inputs}
        asked = {name: parse_shapes(name, text, ports[name]) for name, text in wanted.items() if name in ports}
        stuck = {
            name: axis
            for name, shapes in asked.items()
            if (axis := edit_shapes.fixed_elsewhere(target, name, shapes)) is not None
        }
        if stuck:
            _refit(package, target, asked, stuck)
        for name, shapes in asked.items():
            edit_shapes.describe_shapes(target.port("input", name), shapes)


def _refit(
    package: Package, target: Interface, asked: Mapping[str, edit_shapes.Shapes], stuck: Mapping[str, int]
) -> None:
    """Give a program with fixed shapes other fixed ones; UsageError where more is asked, or it does not follow."""
    from tlkit.core.edit.reinfer import AGAIN, infer

    for name, axis in stuck.items():
        if asked[name].ranges or asked[name].enumerated:
            declared = edit_shapes.program_shape(target, name)
            fixed = f"the program fixes axis {axis} of '{name}' at {declared[axis]}"
            raise UsageError(f"{package.root}: {fixed}: it cannot be made flexible", AGAIN)
    assert package.program is not None
    package.require_weights()
    found = infer(package.program.function(target.name or None), {name: s.default for name, s in asked.items()})
    edit_shapes.declare_shapes(target, found.shapes)
    edit_shapes.reshape_to(target, found.reshapes)


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
    lines += [f"metadata {key}: {value or 'taken away'}" for key, value in wanted.metadata.items()]
    lines += [f"{_WORDS[field]}: {text or 'taken away'}" for field, text in wanted.fields.items() if text is not None]
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
