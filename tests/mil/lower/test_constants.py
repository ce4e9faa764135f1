"""Compressed weights expanded by themselves, against plain numpy; what is damaged is a LoadError."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.formats import packages
from tests.formats.packages import MODEL, Body, immediate, tensor_type
from tests.mil.programs import call, constant, tensor
from tlkit.errors import LoadError
from tlkit.mil.lower import constants
from tlkit.mil.lower.constants import decompress
from tlkit.mil.program import NamedType, Operation, Ref, Value

X = tensor("fp32", 2, 3)


def makers(*operations: Operation) -> dict[str, Operation]:
    return {item.name: operation for operation in operations for item in operation.outputs}


def test_a_chain_of_compressions_is_expanded() -> None:
    """A palette of sparse indices, scattered: the table's entries where the mask says, 0 elsewhere."""
    sparse = Operation(
        "constexpr_lut_to_sparse",
        {"indices_mask": (Ref("mask"),), "indices_nonzero_data": (Ref("indices"),), "lut": (Ref("lut"),)},
        (NamedType("kept", tensor("uint1", 2, 3)), NamedType("values", tensor("fp32", 3))),
    )
    dense = call("constexpr_sparse_to_dense", "weight", X, nonzero_data="values", mask="kept")
    known = makers(
        constant("mask", [[1, 0, 1], [0, 1, 0]], "uint1"),
        constant("indices", [3, 0, 2], "uint2"),
        constant("lut", np.array([0.5, 1.0, -2.0, 8.0]).reshape(1, 1, 4, 1), "fp32"),
        sparse,
    )
    assert decompress(dense, known, "CoreML8").tolist() == [[8.0, 0.0, 0.5], [0.0, -2.0, 0.0]]


def test_a_weight_in_f16_is_rounded_once() -> None:
    scales = np.array([[0.1], [3.3]], np.float16)
    data = np.array([[1, 2, 3], [100, 101, 127]], np.int8)
    known = makers(constant("data", data, "int8"), constant("scale", scales, "fp16"))
    op = call("constexpr_blockwise_shift_scale", "w", tensor("fp16", 2, 3), data="data", scale="scale")
    exact = data.astype(np.float64) * scales.astype(np.float64)
    np.testing.assert_array_equal(decompress(op, known, "CoreML8").numpy(), exact.astype(np.float16).astype(np.float32))


def test_iOS16_keeps_everything_in_attributes() -> None:
    inner = {name: constant(name, value, kind).attributes["val"] for name, value, kind in (
        ("quantized_data", [[10, 20, 30], [0, 128, 255]], "uint8"),
        ("zero_point", 10, "uint8"),
        ("scale", 0.25, "fp32"),
        ("axis", 0, "int32"),
    )}  # fmt: skip
    op = Operation("constexpr_affine_dequantize", {}, (NamedType("w", X),), inner)
    assert decompress(op, {}, "CoreML6").tolist() == [[0.0, 2.5, 5.0], [-2.5, 29.5, 61.25]]


def test_what_is_damaged_is_said_in_a_line() -> None:
    scaled = call("constexpr_blockwise_shift_scale", "w", X, data="data", scale="scale")
    data, scale = constant("data", [[1, 2, 3]], "int8"), constant("scale", [[1.0]], "fp32")
    cases = {
        "nothing defines 'scale'": makers(data),
        "cannot be decompressed": makers(data, scale),  # one row where two are declared
        "makes no weight": makers(data, call("relu", "scale", X, x="data")),
    }
    for message, known in cases.items():
        with pytest.raises(LoadError, match=message) as caught:
            decompress(scaled, known, "CoreML8")
        assert "\n" not in caught.value.message
    circle = call("constexpr_sparse_to_dense", "w", X, nonzero_data="w", mask="mask")
    with pytest.raises(LoadError, match="makes no weight"):
        decompress(circle, makers(circle, constant("mask", [[1, 0, 1], [0, 1, 0]], "uint1")), "CoreML8")


def test_reading_a_compressed_weight_lowers_no_program(tmp_path: Path) -> None:
    body = Body("CoreML8")
    body.input("x", tensor_type("fp32", 2, 3))
    made = {"data": body.const("data", immediate("int8", [[1, 2, 3], [4, 5, 6]]))}
    made["scale"] = body.const("scale", immediate("fp32", [[0.5], [2.0]]))
    body.op("constexpr_blockwise_shift_scale", {"w": tensor_type("fp32", 2, 3)}, made)
    body.op("add", {"y": tensor_type("fp32", 2, 3)}, {"x": "x", "y": "w"})
    body.returns("y")
    model = MODEL.Model(specificationVersion=9)
    model.mlProgram.CopyFrom(body.message)
    package = packages.write(tmp_path / "net.mlpackage", model)
    code = (
        "import sys, tlkit; print(tlkit.load_model(sys.argv[1]).tensors()['w'].numpy().tolist());"
        "print([name for name in ('tlkit.mil.lower.lower', 'tlkit.engines.torch.engine') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(package)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[[0.5, 1.0, 1.5], [8.0, 10.0, 12.0]]", "[]"]


@pytest.mark.parametrize("side", [1 << 12, 1 << 15])
def test_a_weight_takes_no_more_than_its_file_warrants(side: int) -> None:
    """One element stands for 2^24, or 2^30: what it would make is refused before it is made."""
    many = tensor("fp32", side, side)
    mask = Value(tensor("uint1", side, side), (0,))
    known = makers(
        constant("data", [0.5], "fp32"), Operation("const", {}, (NamedType("mask", mask.type),), {"val": mask})
    )
    op = call("constexpr_sparse_to_dense", "w", many, nonzero_data="data", mask="mask")
    with pytest.raises(LoadError, match=r"where the file and its inputs warrant") as caught:
        decompress(op, known, "CoreML8")
    assert "\n" not in caught.value.message


def test_what_feeds_an_op_more_than_once_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six squarings, each of which takes the one before twice: 63 runs if each were made for each use."""
    runs: list[str] = []
    run = constants._constexpr
    monkeypatch.setattr(constants, "_constexpr", lambda *given: runs.append(given[2].name) or run(*given))
    chain = [constant("w0", [[1, -1, 1], [-1, 1, 1]], "fp32")]
    for index in range(6):
        before = f"w{index}"
        chain.append(call("constexpr_blockwise_shift_scale", f"w{index + 1}", X, data=before, scale=before))
    assert decompress(chain[-1], makers(*chain), "CoreML8").tolist() == [[1.0] * 3] * 2
    assert sorted(runs) == [f"w{index}" for index in range(1, 7)]
