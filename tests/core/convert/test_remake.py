"""Packages made anew from packages: the oracle is the PyTorch module that the first one was made of.

Covers tlkit/core/convert/tools/rebuild.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tlkit.core.convert.convert import convert
from tlkit.core.convert.functions import combine
from tlkit.core.model.load import inspect, load_model
from tlkit.errors import ConversionError, LoadError, UsageError
from tlkit.formats.coreml.open import open_package
from tlkit.mil.passes.precision import is_half
from tlkit.mil.program import Program

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
DIGITS = Path(__file__).parents[3] / "fixtures" / "digits.py"


class Net(nn.Module):
    """Weights that f16 cannot hold, and a softmax: what each precision gives differs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(32, 64), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.second(torch.relu(self.first(x))), -1)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.total.add_(x)
        return self.total * 2


def made(folder: Path, name: str, **options: object) -> Path:
    goal = folder / f"{name}.mlpackage"
    options = {"inputs": ["x=1x32"], "target": "iOS16"} | options
    return convert(options.pop("source", Net()), goal, **options).path  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("full"), "full", precision="f32", author="Ada", output_names=["y"])


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("half"), "half", inputs=["x=1..8x32:f16"], output_names=["y:f16"])


def program(package: Path) -> Program:
    found = open_package(package).program
    assert found is not None
    return found


def truth(x: np.ndarray, module: nn.Module | None = None) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = (module or Net())(torch.from_numpy(x.astype(np.float32))).numpy()
    return found


def run(package: Path, x: np.ndarray) -> np.ndarray:
    return np.asarray(load_model(package).predict({"x": x})["y"])


X = np.random.default_rng(0).standard_normal((1, 32)).astype(np.float32)


def test_another_system_brings_its_operations_and_no_other_number(full: Path, tmp_path: Path) -> None:
    result = convert(full, tmp_path / "new.mlpackage", target="iOS18")
    assert (result.target, result.precision) == ("iOS18", "f32")
    message = open_package(result.path).model
    assert (message.specificationVersion, message.mlProgram.functions["main"].opset) == (9, "CoreML8")
    assert result.verification is not None
    assert result.verification.outputs["y"].max_abs == 0
    np.testing.assert_array_equal(run(result.path, X), run(full, X))
    assert result.info.metadata.author == "Ada"


def test_f16_halves_the_weights_and_agrees_with_the_source(full: Path, tmp_path: Path) -> None:
    result = convert(full, tmp_path / "new.mlpackage", precision="f16", author="Grace")
    assert result.precision == "f16"
    assert is_half(program(result.path))
    assert result.info.sizes["weights"] < 0.6 * inspect(full).sizes["weights"]
    assert [(port.name, port.dtype, port.shape) for port in result.info.inputs] == [("x", "float32", (1, 32))]
    found = run(result.path, X)
    assert 0 < np.abs(found - truth(X)).max() < 2e-3
    assert result.info.metadata.author == "Grace"


def test_f32_computes_without_rounding_and_keeps_f16_ports_and_open_lengths(half: Path, tmp_path: Path) -> None:
    result = convert(half, tmp_path / "new.mlpackage", precision="f32")
    assert result.notes == ("the weights are still the same f16 numbers: f32 does not restore lost bits",)
    assert result.info.inputs == inspect(half).inputs
    assert result.info.outputs == inspect(half).outputs
    exact = Net()
    for part in exact.parameters():
        part.data = part.data.half().float()  # what the weights now are
    for batch in (2, 8):
        x = np.random.default_rng(batch).standard_normal((batch, 32)).astype(np.float16)
        wide, rounded = (_steps(run(package, x), truth(x, exact)) for package in (result.path, half))
        assert wide.max() <= 1  # of f16, at the output's own rounding
        assert wide.mean() < 0.05 < rounded.mean()


def _steps(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How many f16 values apart, element by element (all are positive)."""
    bits = [array.astype(np.float16).view(np.int16).astype(int) for array in (found, expected)]
    return np.abs(bits[0] - bits[1])


def test_a_classifier_of_images_keeps_both_ends(tmp_path: Path) -> None:
    labels = DIGITS.with_name("digits.labels.txt")
    image = ["image=1x1x8x8:GRAYSCALE:scale=1/255"]
    first = tmp_path / "digits.mlpackage"
    convert(f"{DIGITS}:model", first, images=image, classes=labels, precision="f32", target="iOS15")
    second = convert(first, tmp_path / "half.mlpackage", precision="f16", target="iOS17")
    assert second.info.labels == inspect(first).labels
    assert second.info.inputs == inspect(first).inputs
    third = convert(second.path, tmp_path / "wide.mlpackage", precision="f32", target="iOS18")
    assert not is_half(program(third.path))
    from PIL import Image

    for digit in range(10):
        picture = Image.open(DIGITS.with_name(f"digit_{digit}.png"))
        before = load_model(first).predict({"image": picture})
        for package, tolerance in ((second.path, 3e-3), (third.path, 3e-3)):
            after = load_model(package).predict({"image": picture})
            assert after["classLabel"] == before["classLabel"] == str(digit)
            for label, share in before["classLabel_probs"].items():
                assert after["classLabel_probs"][label] == pytest.approx(share, abs=tolerance)


def test_states_stay_and_cannot_be_f32(tmp_path: Path) -> None:
    first = made(tmp_path, "states", source=Counting(), inputs=["x=1x4"], target="iOS18", output_names=["y"])
    result = convert(first, tmp_path / "new.mlpackage", target="iOS26")
    model = load_model(result.path)
    state = model.make_state()
    for step in (1, 2, 3):
        found = model.predict({"x": np.full((1, 4), 0.5, np.float32)}, state=state)["y"]
        np.testing.assert_array_equal(found, np.full((1, 4), step, np.float32))
    with pytest.raises(UsageError, match="state 'total' has to be f16"):
        convert(first, tmp_path / "wide.mlpackage", precision="f32")
    assert not (tmp_path / "wide.mlpackage").exists()


def test_every_function_of_several_is_made_anew(full: Path, tmp_path: Path) -> None:
    other = convert(full, tmp_path / "other.mlpackage", target="iOS18").path
    both = combine(other, {"again": other}, tmp_path / "both.mlpackage").path
    result = convert(both, tmp_path / "new.mlpackage", precision="f16")
    assert set(result.info.functions) == {"main", "again"}
    assert result.verification is not None
    assert len(result.verification.outputs) == 2
    for function in ("main", "again"):
        found = load_model(result.path, function=function).predict({"x": X})["y"]
        assert np.abs(found - truth(X)).max() < 2e-3


def test_verification_fails_where_the_numbers_differ(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is no formality: a conversion that loses a weight shows."""
    from tlkit.core.convert import remake

    write = remake._write

    def damaged(package: object, recipe: object, path: Path, *rest: object) -> None:
        write(package, recipe, path, *rest)  # type: ignore[arg-type]
        weights = next(path.rglob("weight.bin"))
        data = bytearray(weights.read_bytes())
        data[128:384] = bytes(256)  # the first record, up to the head of the next
        weights.write_bytes(data)

    monkeypatch.setattr(remake, "_write", damaged)
    result = convert(full, tmp_path / "new.mlpackage", target="iOS18")
    assert not result.ok


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "it is f32, for iOS16, already"),
        ({"target": "iOS16", "precision": "f32"}, "already"),
        ({"target": "iOS15"}, "it is for iOS16; iOS15 is older"),
        ({"inputs": ["x=1x32"], "target": "iOS18"}, "--input is for PyTorch sources"),
        ({"export": True}, "--export is for PyTorch sources"),
        ({"classes": ["a"], "precision": "f16"}, "--classes is for PyTorch sources"),
        ({"precision": "int8"}, "unknown precision 'int8'"),
    ],
)
def test_what_cannot_be_asked(full: Path, tmp_path: Path, options: dict[str, object], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        convert(full, tmp_path / "new.mlpackage", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_what_is_no_program_is_said(full: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no such package"):
        convert(tmp_path / "nothing.mlpackage", tmp_path / "new.mlpackage", target="iOS18")
    broken = tmp_path / "broken.mlpackage"
    shutil.copytree(full, broken)
    weights = next(broken.rglob("weight.bin"))
    weights.write_bytes(weights.read_bytes()[:200])
    for options in ({"target": "iOS18"}, {"precision": "f16"}):
        with pytest.raises(LoadError, match=r"weight\.bin"):
            convert(broken, tmp_path / "new.mlpackage", **options)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.mlpackage"]


def test_what_coremltools_refuses_is_one_line(full: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.mlpackage"
    shutil.copytree(full, odd)
    file = next(odd.rglob("*.mlmodel"))
    message = open_package(full).model
    for operation in next(iter(message.mlProgram.functions["main"].block_specializations.values())).operations:
        if operation.type == "relu":
            operation.type = "no_such_operation"
    file.write_bytes(message.SerializeToString())
    with pytest.raises(ConversionError, match=r"coremltools .* cannot convert the model: .*no_such_operation"):
        convert(odd, tmp_path / "new.mlpackage", target="iOS18", verify=False)
