"""ONNX models: the onnx package writes them and says what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.real_models import MODELS, needs_models
from tlkit.errors import LoadError
from tlkit.formats.onnx import TYPES, OnnxFile

KINDS = ["float32", "float64", "float16", "int8", "int64", "uint8", "bool"]
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
weights = st.dictionaries(
    st.text("abc/.", min_size=1, max_size=6), st.tuples(st.sampled_from(KINDS), shapes), max_size=5
)


def model(initializers: list[Any], nodes: list[Any] | None = None) -> Any:
    nodes = nodes or [helper.make_node("Relu", ["x"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], initializers)
    made = helper.make_model(graph, producer_name="me", opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(made, {"key": "value"})
    return made


@settings(max_examples=40, derandomize=True, deadline=None)
@given(wanted=weights)
def test_initializers_are_read_as_the_package_reads_them(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("o") / "x.onnx"
    arrays = {name: np.ones(shape).astype(kind) * 3 for name, (kind, shape) in wanted.items()}
    arrays = {name: array.astype(wanted[name][0]) for name, array in arrays.items()}
    onnx.save(model([numpy_helper.from_array(array, name) for name, array in arrays.items()]), path)
    found = OnnxFile(path)
    assert {entry.name: entry.shape for entry in found.entries()} == {n: a.shape for n, a in arrays.items()}
    for entry in found.entries():
        if entry.nbytes:
            np.testing.assert_array_equal(found.array(entry), arrays[entry.name])
    assert (found.producer, found.opsets, found.metadata["key"]) == ("me", {"ai.onnx": 17}, "value")
    assert found.inputs == [("x", "F32", ("n", 3))] and found.operations == {"Relu": 1}


def test_element_types_are_onnxs() -> None:
    for number, name in TYPES.items():
        theirs = TensorProto.DataType.Name(number)
        words = {
            "FLOAT": "F32",
            "DOUBLE": "F64",
            "FLOAT16": "F16",
            "BFLOAT16": "BF16",
            "BOOL": "BOOL",
            "STRING": "STRING",
        }
        words |= {"COMPLEX64": "C64", "COMPLEX128": "C128", "FLOAT4E2M1": "F4"}
        words |= {"FLOAT8E4M3FN": "F8_E4M3", "FLOAT8E4M3FNUZ": "F8_E4M3FNUZ"}
        words |= {"FLOAT8E5M2": "F8_E5M2", "FLOAT8E5M2FNUZ": "F8_E5M2FNUZ", "FLOAT8E8M0": "F8_E8M0"}
        assert name == words.get(theirs, theirs.replace("UINT", "U").replace("INT", "I"))


def test_graphs_inside_nodes_count(tmp_path: Path) -> None:
    inner = helper.make_graph([helper.make_node("Add", ["x", "x"], ["z"])], "inner", [], [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    custom = helper.make_node("Magic", ["x"], ["q"], domain="com.me")
    onnx.save(model([], [node, custom]), tmp_path / "x.onnx")
    assert OnnxFile(tmp_path / "x.onnx").operations == {"If": 1, "Add": 2, "com.me.Magic": 1}


def external(folder: Path, location: str, size: int = 24, length: int = 24) -> Path:
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    data = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "8"), ("length", str(length))):
        weight.external_data.add(key=key, value=value)
    (folder / "data.bin").write_bytes((bytes(8) + data)[: 8 + size])
    (folder / "x.onnx").write_bytes(model([weight]).SerializeToString())
    return folder / "x.onnx"


def test_external_weights_are_mapped(tmp_path: Path) -> None:
    found = OnnxFile(external(tmp_path, "data.bin"))
    np.testing.assert_array_equal(found.array(found.entries()[0]), np.arange(6).reshape(2, 3))


def test_external_weights_that_are_not_here_are_a_note(tmp_path: Path) -> None:
    path = external(tmp_path, "data.bin")
    (tmp_path / "data.bin").unlink()
    assert "external weights is missing" in OnnxFile(path).notes[0]


def test_external_weights_that_are_a_git_lfs_pointer_say_so(tmp_path: Path) -> None:
    path = external(tmp_path, "data.bin")
    (tmp_path / "data.bin").write_text("version https://git-lfs.github.com/spec/v1\nsize 24\n")
    found = OnnxFile(path)
    assert "a git-lfs pointer in place of the 24 bytes" in found.notes[0]
    with pytest.raises(LoadError, match="a git-lfs pointer"):
        found.array(found.entries()[0])


def test_bytes_of_external_weights_that_no_tensor_names_are_left_out(tmp_path: Path) -> None:
    path = external(tmp_path, "data.bin")
    file = tmp_path / "data.bin"
    assert OnnxFile(path).left_out == ()
    file.write_bytes(file.read_bytes() + bytes(100))
    assert [(item.name, item.bytes, item.kind) for item in OnnxFile(path).left_out] == [("data.bin", 100, "unnamed")]


def test_zeros_that_align_external_weights_are_not_left_out(tmp_path: Path) -> None:
    weights = {"a": np.ones(5, np.float32), "b": np.ones(3, np.float32)}
    for name, place in (("a", 0), ("b", 4096)):
        with (tmp_path / "data.bin").open("ab") as file:
            file.write(bytes(place - file.tell()) + weights[name].tobytes())
    listed = []
    for name, place in (("b", 4096), ("a", 0)):
        tensor = numpy_helper.from_array(weights[name], name)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "data.bin"), ("offset", place), ("length", weights[name].nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        listed.append(tensor)
    (tmp_path / "x.onnx").write_bytes(model(listed).SerializeToString())
    found = OnnxFile(tmp_path / "x.onnx")
    assert found.left_out == ()
    for entry in found.entries():
        np.testing.assert_array_equal(found.array(entry), weights[entry.name])


def test_tensors_of_the_training_graphs_are_there_for_training(tmp_path: Path) -> None:
    whole = model([numpy_helper.from_array(np.ones(4, np.float32), "w")])
    training = whole.training_info.add()
    for graph, name in ((training.initialization, "start"), (training.algorithm, "rate")):
        graph.name = name
        graph.initializer.append(numpy_helper.from_array(np.full(2, 3, np.float32), name))
    (tmp_path / "x.onnx").write_bytes(whole.SerializeToString())
    found = OnnxFile(tmp_path / "x.onnx")
    assert {entry.name: entry.role for entry in found.entries()} == {"w": "", "start": "training", "rate": "training"}
    assert found.array(found.entries()[1]).tolist() == [3, 3]


def test_an_odd_number_of_f4_values(tmp_path: Path) -> None:
    tensor = onnx.helper.make_tensor("q", onnx.TensorProto.FLOAT4E2M1, [3], [1.0, -2.0, 3.0])
    (tmp_path / "x.onnx").write_bytes(model([tensor]).SerializeToString())
    found = OnnxFile(tmp_path / "x.onnx")
    assert found.array(found.entries()[0]).tolist() == [1, -2, 3]


@pytest.mark.parametrize("location", ["../data.bin", "/etc/passwd", "a/../../data.bin"])
def test_external_weights_must_lie_beside_the_model(tmp_path: Path, location: str) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(LoadError, match="outside the package"):
        OnnxFile(external(tmp_path / "sub", location))


@pytest.mark.parametrize(("size", "length"), [(20, 24), (24, 20), (24, 1 << 62)])
def test_external_weights_must_be_whole(tmp_path: Path, size: int, length: int) -> None:
    with pytest.raises(LoadError, match="not in it whole"):
        OnnxFile(external(tmp_path, "data.bin", size, length))


def test_a_graph_in_a_graph_a_thousand_times_over_is_refused(tmp_path: Path) -> None:
    data = b""
    for _ in range(40):
        attribute = b"\x32" + varint(len(data)) + data
        node = b"\x2a" + varint(len(attribute)) + attribute
        data = b"\x0a" + varint(len(node)) + node
    (tmp_path / "x.onnx").write_bytes(b"\x08\x08\x3a" + varint(len(data)) + data)
    with pytest.raises(LoadError, match="nested over"):
        OnnxFile(tmp_path / "x.onnx")


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_weights_of_another_size_than_their_shape_are_refused(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones(4, np.float32), "w")
    weight.dims[0] = 5
    (tmp_path / "x.onnx").write_bytes(model([weight]).SerializeToString())
    with pytest.raises(LoadError, match="should have 20 bytes and has 16"):
        OnnxFile(tmp_path / "x.onnx")


@needs_models
@pytest.mark.parametrize("path", sorted((MODELS / "oracle").glob("*.onnx")), ids=lambda path: path.stem)
def test_real_models_read_as_the_package_reads_them(path: Path) -> None:
    found, theirs = OnnxFile(path), onnx.load(path)
    entries = {entry.name: entry for entry in found.entries()}
    weights = {weight.name: weight for weight in theirs.graph.initializer}
    for node in theirs.graph.node:  # those of nodes are called what the nodes give
        weights.update((node.output[0], attribute.t) for attribute in node.attribute if attribute.HasField("t"))
    assert entries.keys() == weights.keys()
    for name, weight in weights.items():
        entry = entries[name]
        assert entry.shape == tuple(weight.dims)
        if entry.offset is not None:
            np.testing.assert_array_equal(found.array(entry), numpy_helper.to_array(weight))
    assert sum(found.operations.values()) == len(theirs.graph.node)
