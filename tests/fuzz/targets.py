"""Everything that is fuzzed: each reader and writer, running, editing, both ways of weights, and the command line."""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.fuzz import seeds, seeds_old
from tests.fuzz.language_models import (
    damage_language,
    families,
    folders,
    language_models,
    language_packages,
    read_language,
)
from tests.fuzz.mutate import damage_bytes, damage_text
from tests.fuzz.mutate_gguf import damage_gguf
from tests.fuzz.mutate_structure import (
    damage_archive,
    damage_json,
    damage_member,
    damage_message,
    damage_safetensors,
    damage_words,
)
from tests.fuzz.seeds_files import (
    compiled_models,
    exported_programs,
    images,
    npy_inputs,
    packages,
    saved_runs,
    scripts,
    sharded,
    tensor_kinds,
    zipped_packages,
)
from tests.fuzz.seeds_programs import random_program
from tests.fuzz.target import Target, as_file, as_files, in_files
from tests.processes import as_a_process
from tlkit.errors import TlkitError
from tlkit.mil import coreml_proto

for _name in (
    *("torch._dynamo", "torch._inductor.config", "torch.export", "torch._export.serde.serialize", "torch._decomp"),
    *(
        "torch.fx.experimental.symbolic_shapes",
        "torch._meta_registrations",
        "sympy",
        "torch.export.pt2_archive._package",
    ),
    *(
        "tlkit.cli.app",
        "tlkit.core.convert.source.source",
        "tlkit.core.compare.packages",
        "rich.table",
        "PIL.Image",
        "openvino",
    ),
):
    with suppress(ImportError):  # once, before the workers are forked: seconds that are not an input's fault
        import_module(_name)

LARGEST_INPUT = 1 << 16
"""Elements of an input that is made to run a program with."""


def _model() -> Any:
    return coreml_proto.module("Model_pb2").Model()


_DAMAGES = {
    "mlmodel": damage_message(_model),
    "json": damage_words,
    "mil": damage_words,
    "net": damage_words,
    "shape": damage_words,
    "txt": damage_words,
}
damage_files = in_files(_DAMAGES, damage_bytes)
_damage_documents = in_files(_DAMAGES | {"json": damage_json, "safetensors": damage_safetensors}, damage_bytes)


def _damage_program(case: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return random_program(rng).encode()
    return damage_words(case, others, rng)


def _damage_text(case: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    texts = [item.decode("utf-8", "surrogatepass") for item in others]
    return damage_text(case.decode("utf-8", "surrogatepass"), texts, rng).encode("utf-8", "surrogatepass")


def _damage_tensors(case: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    if case.startswith(b"PK"):
        return damage_archive(case, others, rng)
    if case[8:9] == b"{":
        return damage_safetensors(case, others, rng)
    return damage_member(".pkl" if case[:1] == b"\x80" else "", case, others, rng)


def read_text(case: Path, out: Path, rng: random.Random) -> None:
    """Read MIL text; what can be read must survive printing."""
    from tlkit.mil.text.api import format_program, parse_program

    text = (case / "model.mil").read_bytes().decode("utf-8", "surrogatepass")
    program = parse_program(text, lambda name: None)
    if parse_program(format_program(program), lambda name: None) != program:
        raise AssertionError("printing and reading again gives another program")


def run_program(case: Path, out: Path, rng: random.Random) -> None:
    """Lower a program and run it once on small inputs."""
    from tlkit.engines.torch.engine import TorchEngine
    from tlkit.mil.text.api import parse_program

    function = parse_program((case / "model.mil").read_bytes().decode("utf-8", "replace"), lambda name: None).function()
    engine = TorchEngine(function, precision=rng.choice(("f16", "f32")))
    engine.run(_inputs(function, rng))


def _inputs(function: Any, rng: random.Random) -> dict[str, Any]:
    import numpy as np

    from tlkit.mil.program import TensorType
    from tlkit.mil.types import DType

    made = {}
    for item in function.inputs:
        if isinstance(item.type, TensorType) and item.type.dtype is not DType.STRING:
            shape = tuple(2 if size is None else size for size in item.type.shape or ())
            if any(size > LARGEST_INPUT for size in shape) or np.prod(shape) > LARGEST_INPUT:
                raise TlkitError("an input larger than the fuzzer makes")
            made[item.name] = np.random.default_rng(rng.randrange(99)).integers(-3, 9, shape).astype(np.float32)
    return made


def read_model(case: Path, out: Path, rng: random.Random) -> None:
    """Open a Core ML model of any kind, describe it, print its program, read its weights."""
    from tlkit import load_model
    from tlkit.mil.text.api import format_program

    model = load_model(_only(case))
    _ = model.metadata, model.inputs, model.outputs
    if model.program is not None:
        format_program(model.program)
    for name, tensor in model.tensors().items():
        if isinstance(name, str) and tensor.entry.elements < 1 << 16:
            tensor.numpy()


def read_blob(case: Path, out: Path, rng: random.Random) -> None:
    """Read every record that a weight file could have, as every type."""
    from tlkit.mil.blob import BlobFile
    from tlkit.mil.program import BlobRef, TensorType, Value
    from tlkit.mil.types import DType

    file = BlobFile(case / "weight.bin")
    for offset in range(0, min(len(file), 1024) + 64, 64):
        for dtype in DType:
            try:
                Value(TensorType(dtype, (2,)), BlobRef("w", offset, file)).numpy()
            except TlkitError:
                continue


def read_description(case: Path, out: Path, rng: random.Random) -> None:
    """Describe a compiled model by its ``coremldata.bin``."""
    from tlkit.formats.coreml.describe import describe

    describe(case)


def run_model(case: Path, out: Path, rng: random.Random) -> None:
    """Open a model and predict on random values."""
    from tlkit import load_model
    from tlkit.core.model.inputs import Drawn

    model = load_model(_only(case), precision=rng.choice(("f16", "f32")))
    inputs = {spec.name: Drawn(rng.choice(("random", "zeros"))) for spec in model.inputs}
    model.predict(inputs, state=model.make_state())


def run_old(case: Path, out: Path, rng: random.Random) -> None:
    """Run a model of before mlprograms on values of its ports' kinds, or make an mlprogram of it."""
    from tlkit import load_model
    from tlkit.core.convert.classic.program import open_program

    path = _only(case)
    stage = rng.choice(("0", "1", "1..", "2..")) if rng.random() < 0.2 else None
    if rng.random() < 0.3:
        open_program(path, stage)
        return
    model = load_model(path, stage=stage)
    model.predict({spec.name: _value(spec, rng) for spec in model.inputs})


def _value(spec: Any, rng: random.Random) -> Any:
    from tlkit.core.model.inputs import Drawn

    if spec.kind == "string":
        return rng.choice(("a", "z", ""))
    if spec.kind == "dictionary":
        return {0: 1.0, 5: 2.0} if spec.dtype.startswith("int64") else {"a": 1.0, "zz": float("nan")}
    if spec.kind == "sequence":
        return [1, 2] if spec.dtype == "int64" else ["a", "b"]
    return Drawn(rng.choice(("random", "zeros")))


def edit_model(case: Path, out: Path, rng: random.Random) -> None:
    """Edit a package in one way or several."""
    from tlkit import edit, inspect

    source = _only(case)
    info = inspect(source)
    ports = [spec.name for spec in (*info.inputs, *info.outputs)] or ["x"]
    options: dict[str, Any] = {
        "rename": {rng.choice(ports): rng.choice(["renamed", "in", ports[0], "é", "a b", ""])},
        "input_shapes": {rng.choice(ports): rng.choice(("1x4", "2x4", "1x1..8", "1x2,1x4", "1x1073741824", "0", "3"))},
        "input_dtypes": {rng.choice(ports): rng.choice(("f16", "f32", "i32"))},
        "output_dtypes": {rng.choice(ports): rng.choice(("f16", "f32", "i32"))},
        "metadata": {"key": rng.choice(("", "value", "é"))},
        "author": "somebody",
        "classes": [f"label {index}" for index in range(rng.choice((1, 2, 3, 7)))],
        "spec_version": rng.choice((4, 7, 8, 9, 99)),
    }
    chosen = {key: options[key] for key in rng.sample(list(options), rng.choice((1, 1, 2)))}
    edit(source, out / f"made{source.suffix}", verify=rng.random() < 0.5, **chosen)


def read_tensors(case: Path, out: Path, rng: random.Random) -> None:
    """Inspect a file of weights all the ways there are, values included, if they are few."""
    from tlkit.core.compare.tensors import diff_infos, diff_tensors
    from tlkit.core.inspect.inspection import examine, file_metadata
    from tlkit.core.inspect.stats import tensor_stats
    from tlkit.core.inspect.which import which_format

    found = examine(_only(case))
    assert found.groups is not None and which_format(found) and file_metadata(found.opened) is not None
    entries = found.source.entries()
    assert len({entry.name for entry in entries}) == len(entries), "a name twice"
    for entry in entries:
        try:
            tensor_stats(found.source, entry)
        except TlkitError:
            continue  # a type without values
    diff_infos(found, found)
    list(diff_tensors(found.source, found.source))


def convert_tensors(case: Path, out: Path, rng: random.Random) -> None:
    """Write a file's weights in another format, and read what was written."""
    from tlkit import convert_weights

    goal = out / f"made.{rng.choice(('safetensors', 'gguf', 'pth'))}"
    options: dict[str, Any] = {"dtype": rng.choice((None, None, "f16", "bf16", "f32")), "raw": rng.random() < 0.3}
    options["quantize"] = rng.choice((None, None, "q8_0", "q4_0")) if goal.suffix == ".gguf" else None
    if rng.random() < 0.2 and goal.suffix != ".pth":
        options["max_shard_size"] = 200
    result = convert_weights(_only(case), goal, names=rng.choice(("auto", "keep")), **options)
    for file in result.files:
        assert file.is_file(), "a file that was said to be written is missing"


def read_exported(case: Path, out: Path, rng: random.Random) -> None:
    """Open a .pt2 as a source of conversions."""
    from tlkit.core.convert.source.source import load_source

    load_source(_only(case))


def read_run(case: Path, out: Path, rng: random.Random) -> None:
    """Read a saved measurement and print it in every form, each of which must be sound."""
    from xml.etree import ElementTree

    from tlkit.cli.views.bench import formats as bench_formats
    from tlkit.cli.views.bench import report as bench_report
    from tlkit.core.bench.saved import load_run

    run = load_run(case / "run.json")
    ElementTree.fromstring(bench_formats.junit(run, [], []))
    bench_formats.csv(run, [run], [])
    bench_formats.md(run, [run], [])
    bench_report.page(run)


def read_arrays(case: Path, out: Path, rng: random.Random) -> None:
    """Read a file of arrays, or a picture, as the input of a model."""
    from tlkit.core.model.inputs import to_port
    from tlkit.types import ImageSpec, TensorSpec

    path = _only(case)
    specs = [TensorSpec("x", "float32", (2, 48))]
    for layout in ("RGB", "GRAYSCALE"):
        shape = (1, 3 if layout == "RGB" else 1, 4, 4)
        specs.append(TensorSpec("x", "float32", shape, kind="image", image=ImageSpec(layout, 4, 4)))
    to_port(rng.choice(specs), path)


def read_labels(case: Path, out: Path, rng: random.Random) -> None:
    """Read a file of class labels."""
    from tlkit.ports.labels import class_labels

    class_labels(case / "labels.txt")


def command(case: Path, out: Path, rng: random.Random) -> None:
    """Run the command line on a file; what it prints must be sound, and its exit code one that is documented."""
    path = str(_only(case))
    wanted = rng.choice(
        (
            ["inspect", path],
            ["inspect", path, "--json"],
            ["inspect", path, "--stats", "--json"],
            ["inspect", path, "--weights"],
            ["inspect", path, "--tree"],
            ["inspect", path, "--ops"],
            ["inspect", path, "--hash", "--json"],
            ["inspect", path, "--diff", path],
            ["inspect", str(case)],
            ["run", path, "--json"],
            ["run", path],
            ["edit", path, "--author", "me", "-o", str(out / "made.mlpackage"), "--json"],
            ["convert", path, "-o", str(out / "made.safetensors"), "--json"],
        )
    )
    code, told, said = _main(wanted)
    if code not in (0, 1, 2, 3, 4) or "internal error" in said or "Traceback" in said:
        raise AssertionError(f"exit {code}: {said.strip().splitlines()[0][:300] if said.strip() else 'nothing said'}")
    if "not enough memory" in said:
        raise MemoryError(said[:300])
    if "--json" in wanted and code in (0, 1) and told:
        json.loads(told)
    for text in (told, said):
        bad = [mark for mark in text if mark not in "\n\t" and unsafe(mark)]
        if bad:
            raise AssertionError(f"prints {bad[0]!a}")


def unsafe(mark: str) -> bool:
    """Whether a terminal may do something at ``mark``, or show what follows in another order."""
    code = ord(mark)
    return code < 32 or 127 <= code < 160 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069 or code in _MARKS


_MARKS = {0x200E, 0x200F, 0x061C}


def _main(arguments: list[str]) -> tuple[int, str, str]:
    from tlkit.cli import app

    before = sys.argv, sys.stdout, sys.stderr
    sys.argv, sys.stdout, sys.stderr = ["tlkit", *arguments], io.StringIO(), io.StringIO()
    try:
        with as_a_process():
            app.main()
        code: Any = 0
    except SystemExit as error:
        code = error.code or 0
    finally:
        told, said = sys.stdout.getvalue(), sys.stderr.getvalue()
        sys.argv, sys.stdout, sys.stderr = before
    return code, told, said


def _only(case: Path) -> Path:
    (path,) = [path for path in case.iterdir() if not path.name.startswith(".")] or [case / "gone"]
    return path


def _texts() -> list[bytes]:
    return [text.encode() for text in seeds.texts()]


def _programs() -> list[bytes]:
    rng = random.Random(0)
    return [*_texts()[:2], *(random_program(rng).encode() for _ in range(300))]


def _wrapped() -> list[bytes]:
    from tests.fuzz.target import pack

    found = [pack({f"model.{kind}": case}) for kind, make in tensor_kinds().items() for case in make()]
    return [*found, *(pack({"model.mlmodel": case}) for case in seeds.protobufs()[:6])]


def _labels() -> list[bytes]:
    return [b"cat\ndog\n", "\u00e9\r\n\n\ufeffb".encode()]


def _all_tensors() -> list[bytes]:
    return [case for make in tensor_kinds().values() for case in make()]


_model_file, _text_file, _tensor_file = as_file("model.mlmodel"), as_file("model.mil"), as_file("model.bin")

TARGETS = (
    Target("text", _texts, _damage_text, _text_file, read_text),
    Target("program", _programs, _damage_program, _text_file, run_program, 3),
    Target("mlmodel", seeds.protobufs, damage_message(_model), _model_file, read_model, 2),
    Target("package", packages, damage_files, as_files, read_model, 2),
    Target("blob", seeds.weights, damage_bytes, as_file("weight.bin"), read_blob, 0.5),
    Target("description", seeds.descriptions, damage_bytes, as_file("coremldata.bin"), read_description, 0.5),
    Target("mlmodelc", compiled_models, damage_files, as_files, read_model),
    Target("zipped", zipped_packages, damage_archive, as_file("model.zip"), read_model),
    Target("predict", packages, damage_files, as_files, run_model, 2),
    Target("network", seeds_old.networks, damage_message(_model), _model_file, run_old, 2),
    Target("classic", seeds_old.classics, damage_message(_model), _model_file, run_old, 2),
    Target("espresso", seeds_old.bundles, damage_files, as_files, run_old, 2),
    Target("edit", packages, damage_files, as_files, edit_model, 2),
    *(Target(kind, make, _damage_tensors, _tensor_file, read_tensors) for kind, make in tensor_kinds().items()),
    Target("sharded", sharded, damage_files, as_files, read_tensors),
    Target("weights", _all_tensors, _damage_tensors, _tensor_file, convert_tensors, 2),
    Target("language", language_models, damage_language, as_file("model.gguf"), read_language, 2),
    Target("language-parts", families, damage_gguf, as_file("model.gguf"), read_language, 2),
    Target("language-folder", folders, _damage_documents, as_files, read_language, 2),
    Target("language-package", language_packages, _damage_documents, as_files, read_language, 2),
    Target("weights-out", packages, damage_files, as_files, convert_tensors),
    Target("pt2", exported_programs, damage_archive, as_file("model.pt2"), read_exported),
    Target("torchscript", scripts, damage_archive, as_file("model.pt"), read_exported),
    Target("arrays", npy_inputs, _damage_tensors, as_file("x.npz"), read_arrays),
    Target("image", images, damage_bytes, as_file("x.png"), read_arrays),
    Target("labels", _labels, damage_bytes, as_file("labels.txt"), read_labels, 0.2),
    Target("run", saved_runs, damage_words, as_file("run.json"), read_run),
    Target("command", lambda: [*packages(), *_wrapped()], damage_files, as_files, command, 3),
)
"""The table of everything."""
