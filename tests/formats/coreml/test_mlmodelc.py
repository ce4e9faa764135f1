"""Compiled models: what the folder's own metadata.json says is what is read; damage is a note or one line.

Covers tlkit/formats/coreml/coremldata.py.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.real_models import MODELS, needs_models
from tlkit.errors import LoadError
from tlkit.formats.coreml.describe import describe
from tlkit.formats.coreml.mlmodelc import open_compiled
from tlkit.formats.coreml.tensors import CoreMLTensors
from tlkit.mil import coreml_proto

TEXT = """program(1.3)
{
    func main<ios18>(tensor<fp32, [1, ?]> x) {
            fp32 two = const()[name = string("two"), val = fp32(0x1p+1)];
            tensor<fp32, [2]> w = const()[name = string("w"), val = tensor<fp32, [2]>(BLOBFILE(path = string("@model_path/weights/weight.bin"), offset = uint64(64)))];
            tensor<fp32, [1, ?]> y = mul(x = x, y = two)[name = string("y")];
            tensor<fp32, [1, 2]> z = add(x = y, y = w)[name = string("z")];
        } -> (z);
}
"""  # noqa: E501


def coremldata(description: Any, kind: int, spec_version: int) -> bytes:
    """A ``coremldata.bin`` laid out as real ones are."""
    body = description.SerializeToString()
    head = struct.pack("<IQQQQ", kind, 1, 0, 0, 7) + b"generic" + struct.pack("<QQQQ", spec_version, 0, 0, 0)
    return head + struct.pack("<Q", len(body)) + body + struct.pack("<QQ", kind, 0)


def description(name: str = "x") -> Any:
    message = coreml_proto.module("Model_pb2").ModelDescription()
    for ports, port in ((message.input, name), (message.output, "z")):
        array = ports.add(name=port).type.multiArrayType
        array.shape.extend([1, 2])
        array.dataType = 65568
    message.metadata.author = "Ada"
    return message


def weight_file(values: tuple[float, ...]) -> bytes:
    data = struct.pack(f"<{len(values)}f", *values)
    return struct.pack("<II56x", 1, 2) + struct.pack("<IIQQQ32x", 0xDEADBEEF, 2, len(data), 128, 0) + data


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    folder = tmp_path / "net.mlmodelc"
    (folder / "weights").mkdir(parents=True)
    (folder / "model.mil").write_text(TEXT)
    (folder / "weights/weight.bin").write_bytes(weight_file((10.0, 20.0)))
    (folder / "coremldata.bin").write_bytes(coremldata(description(), 502, 9))
    return folder


def test_a_compiled_program_is_described_from_all_its_files(compiled: Path) -> None:
    info = describe(compiled)
    assert (info.kind, info.spec_version, info.opset, info.metadata.author) == ("mlProgram", 9, "iOS18", "Ada")
    assert [(spec.name, spec.dtype, spec.shape) for spec in (*info.inputs, *info.outputs)] == [
        ("x", "float32", (1, 2)),
        ("z", "float32", (1, 2)),
    ]
    assert (info.operations, info.parameters, info.notes) == ({"mul": 1, "add": 1}, 2, ())
    assert info.sizes["weights"] == 136 and info.sizes["program"] == len(TEXT)


@pytest.mark.parametrize("which", ["folder", "text alone", "no description"])
def test_it_runs(compiled: Path, which: str) -> None:
    np = pytest.importorskip("numpy")
    from tlkit.core.model.load import load_model

    if which == "no description":
        (compiled / "coremldata.bin").unlink()
    model = load_model(compiled / "model.mil" if which == "text alone" else compiled)
    result = model.predict({"x": np.array([[1.0, 2.0]], np.float32)})
    np.testing.assert_array_equal(result["z"], [[12.0, 24.0]])


def test_a_text_without_a_description_shows_its_programs_ports(compiled: Path) -> None:
    info = describe(compiled / "model.mil")
    assert info.inputs[0].ranges == ((1, 1), (1, None))
    assert [spec.name for spec in info.outputs] == ["z"]
    assert info.spec_version is None


def test_a_damaged_description_is_a_note_wherever_it_is_cut(compiled: Path) -> None:
    file = compiled / "coremldata.bin"
    whole = file.read_bytes()
    end = whole.index(b"Ada") + 3
    for length in range(0, end, 5):
        file.write_bytes(whole[:length])
        info = describe(compiled)
        assert info.notes == (f"{file}: it holds no model description",)
        assert [spec.name for spec in info.inputs] == ["x"]  # from the program


def test_pointers_are_told_apart(compiled: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n"
    (compiled / "coremldata.bin").write_text(pointer)
    assert "git-lfs pointer in place of the 1,234 bytes" in describe(compiled).notes[0]
    (compiled / "model.mil").write_text(pointer)
    with pytest.raises(LoadError, match=r"model\.mil: a git-lfs pointer"):
        describe(compiled)


def test_missing_weights_are_a_note_and_refused_when_it_runs(compiled: Path) -> None:
    from tlkit.core.model.load import load_model

    (compiled / "weights/weight.bin").unlink()
    assert "the weight file is missing" in describe(compiled).notes[0]
    with pytest.raises(LoadError, match=r"weight\.bin: the weight file is missing"):
        load_model(compiled).prepare()


def test_a_weight_path_out_of_the_folder_is_not_followed(compiled: Path) -> None:
    (compiled.parent / "secret.bin").write_bytes(weight_file((1.0, 2.0)))
    (compiled / "model.mil").write_text(TEXT.replace("weights/weight.bin", "../secret.bin"))
    assert "outside the package" in describe(compiled).notes[0]
    with pytest.raises(LoadError, match="outside the package"):
        open_compiled(compiled).require_weights()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.mil", b"program(1.0) { func main", r"model\.mil:1:25: expected '<', found the end of the text"),
        ("model.mil", b"program(1.0) \xff", r"model\.mil: not text in UTF-8"),
        ("metadata.json", b"[{", r"metadata\.json: not readable as JSON"),
        ("metadata.json", b"[" * 100_000, r"metadata\.json: not readable as JSON"),
        ("metadata.json", b"9" * 100_000, r"metadata\.json: not readable as JSON"),
    ],
)
def test_damage_is_one_line(compiled: Path, name: str, content: bytes, message: str) -> None:
    (compiled / name).write_bytes(content)
    with pytest.raises(LoadError, match=message) as caught:
        describe(compiled)
    assert "\n" not in caught.value.message


def test_an_espresso_network_shows_its_layers(tmp_path: Path) -> None:
    layers = [
        {"type": "convolution", "name": "c", "bottom": "a,b", "top": "t"},
        {"type": "convolution"},
        "?",
        {"type": 7, "bottom": 8},
    ]
    (tmp_path / "model.espresso.net").write_text(json.dumps({"layers": layers}))
    (tmp_path / "coremldata.bin").write_bytes(coremldata(description(), 500, 1))
    package = open_compiled(tmp_path)
    assert next(iter(package.layers())) == ("c", "convolution", ["a", "b"], ["t"])
    info = describe(tmp_path)
    assert (info.kind, info.operations) == ("neuralNetwork", {"convolution": 2, "7": 1})
    assert "model.espresso.weights: the weight file is missing" in info.notes[0]


def test_a_pipeline_shows_its_stages_and_does_not_nest_for_ever(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "coremldata.bin").write_bytes(coremldata(description(), 202, 1))
    for number, kind in enumerate((500, 403)):
        inner = folder / f"model{number}"
        inner.mkdir()
        (inner / "coremldata.bin").write_bytes(coremldata(description(), kind, 4))
    info = describe(folder)
    assert (info.kind, info.spec_version) == ("pipeline", 4)
    assert [stage["kind"] for stage in info.details["stages"]] == ["neuralNetwork", "neuralNetworkClassifier"]
    for _ in range(12):
        folder = folder / "model0"
        folder.mkdir(exist_ok=True)
        (folder / "coremldata.bin").write_bytes(coremldata(description(), 202, 1))
    with pytest.raises(LoadError, match="nested deeper than"):
        describe(tmp_path)


RECORD = struct.Struct("<4Q")


def small(layout: str, version: int = 4) -> bytes:
    """A normalizer's ``coremldata.bin``: the specification version comes first in old ones, last in new ones."""
    model = coreml_proto.module("Model_pb2").Model(specificationVersion=version)
    model.description.CopyFrom(description())
    model.normalizer.normType = 1
    records = [RECORD.pack(1, 0, 0, 4) + b"spec", RECORD.pack(version, 0, 0, 0)]
    head = b"".join(records if layout == "new" else reversed(records))
    return struct.pack("<I", 603) + head + bytes(model.SerializeToString())


@pytest.mark.parametrize("layout", ["old", "new"])
def test_a_small_stage_is_read_whole_whichever_compiler_wrote_it(tmp_path: Path, layout: str) -> None:
    (tmp_path / "coremldata.bin").write_bytes(small(layout))
    model = open_compiled(tmp_path).model
    assert (model.WhichOneof("Type"), model.normalizer.normType, model.specificationVersion) == ("normalizer", 1, 4)
    assert [port.name for port in (*model.description.input, *model.description.output)] == ["x", "z"]


def test_the_version_of_an_old_compilers_network_is_its_own(tmp_path: Path) -> None:
    body = description().SerializeToString()
    head = struct.pack("<I", 500) + RECORD.pack(3, 0, 0, 0) + RECORD.pack(1, 2, 1, 7) + b"generic"
    (tmp_path / "coremldata.bin").write_bytes(head + struct.pack("<Q", len(body)) + body + struct.pack("<QQ", 500, 0))
    info = describe(tmp_path)
    assert (info.kind, info.spec_version) == ("neuralNetwork", 3)
    assert info.notes == (f"{tmp_path / 'model.espresso.net'}: the network is missing",)


@pytest.mark.parametrize(
    ("beside", "content", "kind"),
    [
        (None, "", "unknown"),
        ("model.espresso.net", "{}", "neuralNetwork"),
        ("metadata.json", '[{"modelType": {"name": "MLModelType_normalizer"}}]', "normalizer"),
        ("metadata.json", '[{"modelType": {"name": "MLModelType_invented"}}]', "unknown"),
    ],
)
def test_a_kind_is_told_by_what_is_there_or_unknown(
    tmp_path: Path, beside: str | None, content: str, kind: str
) -> None:
    (tmp_path / "coremldata.bin").write_bytes(coremldata(description(), 199, 1))
    if beside:
        (tmp_path / beside).write_text(content)
    assert describe(tmp_path).kind == kind
    (tmp_path / "coremldata.bin").write_bytes(b"?")
    assert describe(tmp_path).kind == kind


def test_a_pipeline_without_a_description_is_one_still(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"model{number}").mkdir()
        (tmp_path / f"model{number}/coremldata.bin").write_bytes(small("new"))
    info = describe(tmp_path)
    assert (info.kind, [stage["kind"] for stage in info.details["stages"]]) == ("pipeline", ["normalizer"] * 2)


def test_an_mlprogram_without_its_program_says_so(compiled: Path) -> None:
    (compiled / "model.mil").unlink()
    with pytest.raises(LoadError, match=r"model\.mil: the program of this mlprogram is missing"):
        describe(compiled)


def test_a_compressed_network_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "model.espresso.net").write_bytes(b"pbze" + bytes(range(100, 200)))
    (tmp_path / "model.espresso.weights").write_bytes(bytes(16))
    info = describe(tmp_path)
    assert any("compressed by LZFSE, which tlkit does not read" in note for note in info.notes)
    assert (info.kind, info.operations) == ("neuralNetwork", {})
    assert [(item.bytes, item.lost) for item in info.left_out] == [(16, True)]


def test_weights_of_networks_are_counted_in_stages_too(tmp_path: Path) -> None:
    (tmp_path / "coremldata.bin").write_bytes(coremldata(description(), 202, 1))
    dense = {"type": "inner_product", "name": "d", "nB": 2, "nC": 3, "blob_weights": 1}
    for number in range(2):
        inner = tmp_path / f"model{number}"
        inner.mkdir()
        (inner / "coremldata.bin").write_bytes(coremldata(description(), 500, 1))
        (inner / "model.espresso.net").write_text(json.dumps({"layers": [dense]}))
        blobs = struct.pack("<QQQQQ", 2, 1, 24, 2, 64 + number) + struct.pack("<6f", *range(number, number + 6))
        (inner / "model.espresso.weights").write_bytes(blobs + bytes(64 + number))
    info = describe(tmp_path)
    assert (info.parameters, info.operations) == (12, {"inner_product": 2})
    assert [(item.name, item.bytes, item.kind) for item in info.left_out] == [
        ("model0/model.espresso.weights: blob 2", 64, "unnamed"),
        ("model1/model.espresso.weights: blob 2", 65, "unnamed"),
    ]
    tensors = CoreMLTensors(open_compiled(tmp_path))
    assert [entry.name for entry in tensors.entries()] == ["d.weights", "d.weights#2"]
    assert tensors.array(tensors.entries()[1]).tolist() == [[1, 2], [3, 4], [5, 6]]
    (inner / "model.espresso.weights").write_text("version https://git-lfs.github.com/spec/v1\nsize 7\n")
    info = describe(inner)
    assert "git-lfs pointer in place of the 7 bytes" in info.notes[0] and not info.left_out
    assert info.parameters == 6


def test_bytes_that_no_constant_names_are_counted(compiled: Path) -> None:
    file = compiled / "weights/weight.bin"
    assert describe(compiled).left_out == ()
    whole = file.read_bytes()
    second = struct.pack("<IIQQQ32x", 0xDEADBEEF, 2, 12, 256, 0) + struct.pack("<3f", 1, 2, 3)
    file.write_bytes(whole.ljust(192, b"\0") + second)
    found = describe(compiled).left_out
    assert [(item.name, item.bytes, item.kind) for item in found] == [("weight.bin", 76, "unnamed")]
    assert CoreMLTensors(open_compiled(compiled)).left_out == found


@needs_models
def test_a_real_compiled_program_agrees_with_its_metadata() -> None:
    folder = MODELS / "mlmodelc/add_model.mlmodelc"
    said = json.loads((folder / "metadata.json").read_text())[0]
    info = describe(folder)
    for specs, ports in ((info.inputs, said["inputSchema"]), (info.outputs, said["outputSchema"])):
        assert [(spec.name, spec.dtype, list(spec.shape)) for spec in specs] == [
            (port["name"], port["dataType"].lower(), json.loads(port["shape"])) for port in ports
        ]
    assert info.spec_version == said["specificationVersion"]
    assert info.metadata.user == said["userDefinedMetadata"]
    assert {f"Ios16.{name}": count for name, count in info.operations.items()} == said[
        "mlProgramOperationTypeHistogram"
    ]


@needs_models
@pytest.mark.parametrize("net", sorted(MODELS.glob("*/*.mlmodelc/model.espresso.net")), ids=lambda p: p.parent.name)
def test_a_real_espresso_network_shows_all_its_layers(net: Path) -> None:
    counted = Counter(layer["type"] for layer in json.loads(net.read_text())["layers"])
    info = describe(net.parent)
    assert (info.kind, dict(info.operations)) == ("neuralNetwork", counted)
    assert info.inputs  # those of its network where its description is a git-lfs pointer
    assert info.left_out == () and info.parameters > 0


@needs_models
def test_a_real_pipeline_shows_its_stages_and_texts() -> None:
    info = describe(MODELS / "mlmodelc/MarsHabitatPricer_adib.mlmodelc")
    assert [stage["kind"] for stage in info.details["stages"]] == ["featureVectorizer", "glmRegressor"]
    assert [spec.name for spec in (*info.inputs, *info.outputs)] == ["solarPanels", "greenhouses", "size", "price"]
    assert info.inputs[1].description == "Number of greenhouses" and info.metadata.author == "Apple"
