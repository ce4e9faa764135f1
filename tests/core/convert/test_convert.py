"""Conversion, judged by PyTorch for values and by coremltools' own reader for structure.

Covers tlkit/core/convert/result.py, tlkit/core/convert/capture/cases.py, tlkit/core/convert/verify.py,
tlkit/core/convert/provenance.py, tlkit/core/convert/source/source.py, tlkit/core/convert/source/torchscript.py,
tlkit/core/convert/tools/build.py, tlkit/core/convert/capture/capture.py, tlkit/core/convert/capture/trace.py,
tlkit/core/convert/capture/examples.py.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.core import sources
from tests.formats import packages
from tests.processes import files_no_larger_than
from tlkit.core.convert.convert import ConversionResult, convert
from tlkit.core.convert.source.source import load_source
from tlkit.core.model.load import load_model
from tlkit.errors import ConversionError, LoadError, TlkitError, UsageError

SOURCES = Path(__file__).parents[1] / "sources.py"
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

LABELS = ("ant", "bee", "cat", "dog", "eel")
X = ["x=1x4"]


class Frozen(nn.Module):
    """Takes its length as a Python number."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(1, int(x.shape[1])) * x.sum()


class LogSumExp(nn.Module):
    """Sums beyond f32, whose logarithm is not."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.logsumexp(x.abs() + 100, 1)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> ConversionResult:
    folder = tmp_path_factory.mktemp("classifier")
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n\n")
    return convert(
        f"{SOURCES}:Conv",
        folder / "conv.mlpackage",
        images=["image=1x3x8x8:BGR:scale=1/127.5:bias=-1,-0.9,-0.8"],
        classes=folder / "labels.txt",
        author="me",
        description="five animals",
        version="1.2",
        license="MIT",
    )


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> ConversionResult:
    goal = tmp_path_factory.mktemp("tokens") / "t.mlpackage"
    inputs = {"mask": "2x6:f16", "ids": "2x6:i32"}  # not in forward's order, and its `scale` is left out
    return convert(f"{SOURCES}:Tokens", goal, inputs=inputs, precision="f32", target="macOS15")


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """A package that is there already; whatever the test does, it has to survive untouched and alone."""
    goal = tmp_path / "out" / "old.mlpackage"
    file = packages.unlike_any(goal)
    yield goal
    assert file.read_text() == "old"
    assert os.listdir(goal.parent) == [goal.name]


def spec_of(path: Path) -> Any:
    import coremltools as ct

    return ct.utils.load_spec(str(path))


def test_structure_of_a_classifier(classifier: ConversionResult) -> None:
    spec = spec_of(classifier.path)
    image = spec.description.input[0]
    assert (spec.WhichOneof("Type"), spec.specificationVersion) == ("mlProgram", 8)
    assert (image.name, image.type.imageType.width, image.type.imageType.height) == ("image", 8, 8)
    assert image.type.imageType.colorSpace == image.type.imageType.BGR
    meta = spec.description.metadata
    assert (meta.author, meta.shortDescription, meta.versionString, meta.license) == (
        "me",
        "five animals",
        "1.2",
        "MIT",
    )
    assert meta.userDefined["com.github.apple.coremltools.source"].startswith("torch==")
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    counts: dict[str, int] = {}
    for op in block.operations:
        if op.type != "const":
            counts[op.type] = counts.get(op.type, 0) + 1
    assert classifier.info.operations == counts
    assert classifier.size == sum(f.stat().st_size for f in classifier.path.rglob("*") if f.is_file())
    assert classifier.info.labels == LABELS


def test_values_of_a_classifier(classifier: ConversionResult) -> None:
    model = load_source(f"{SOURCES}:Conv").module.eval()
    pixels = np.random.default_rng(5).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    bgr = pixels[..., ::-1].astype(np.float32) / 127.5 + np.array([-1, -0.9, -0.8], np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(bgr.transpose(2, 0, 1)[None].copy()))[0].numpy()
    found = load_model(classifier.path).predict({"image": Image.fromarray(pixels)})
    assert found["classLabel"] == LABELS[int(expected.argmax())]
    probabilities = [found["classLabel_probs"][label] for label in LABELS]
    np.testing.assert_allclose(probabilities, expected, atol=2e-3)


def test_what_is_said_of_a_classifier(classifier: ConversionResult) -> None:
    assert classifier.ok
    assert classifier.verification is not None
    (difference,) = classifier.verification.outputs.values()
    assert difference.elements == 5
    assert 0 < difference.max_abs < 2e-3  # f16 cannot be exact, and is close
    assert classifier.verification.top1 is True
    assert classifier.advice == ()
    assert set(classifier.timings) == {"load", "trace", "convert", "verify", "total"}


def test_structure_of_several_inputs_and_outputs(tokens: ConversionResult) -> None:
    spec = spec_of(tokens.path)
    types = {port.name: port.type.multiArrayType for port in [*spec.description.input, *spec.description.output]}
    assert list(types) == ["mask", "ids", "hidden", "pooled", "best"]
    kind = types["ids"].ArrayDataType
    codes = [types[name].dataType for name in types]
    assert codes == [kind.FLOAT16, kind.INT32, kind.FLOAT32, kind.FLOAT32, kind.INT32]
    assert list(types["hidden"].shape) == [2, 6, 8]
    assert (spec.specificationVersion, tokens.target) == (9, "macOS15")


def test_advice_for_what_the_neural_engine_does_not_do(tokens: ConversionResult) -> None:
    assert [word for sentence in tokens.advice for word in ("f32", "batch") if word in sentence] == ["f32", "batch"]


def test_verification_finds_what_tracing_froze(tmp_path: Path) -> None:
    results = [convert(f"{SOURCES}:Branch", tmp_path / f"{n}.mlpackage", inputs=X, seed=n) for n in range(2)]
    for result in results:
        assert not result.ok  # the side that was not traced is verified, too, whatever the seed draws
        assert result.path.is_dir()
        assert "sources.py:" in result.notes[0]
        assert result.verification is not None
        assert result.ok is not bool(result.verification.reasons)


def test_the_attention_of_torch_itself(tmp_path: Path) -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    result = convert(f"{SOURCES}:encoder", tmp_path / "e.mlpackage", inputs=["x=1x5x8"], output_names=["y"])
    assert result.ok
    assert [port.name for port in spec_of(result.path).description.output] == ["y"]
    assert torch.backends.mha.get_fastpath_enabled() is before


def test_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU())).save(path)
    assert convert(path, tmp_path / "net.mlpackage", inputs=X, precision="f32").ok


def test_a_script_with_torchs_own_checks(tmp_path: Path) -> None:
    """A batch norm's script branches on its mode and raises on shapes; evaluated, none of that is left."""
    path = tmp_path / "net.pt"
    torch.jit.script(sources.Conv().train()).save(path)
    result = convert(path, tmp_path / "net.mlpackage", inputs=["image=1x3x8x8"], precision="f32")
    assert result.ok
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8), np.float32)
    with torch.no_grad():
        expected = sources.Conv().eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(load_model(result.path).predict({"image": x})["output"], expected, atol=1e-6)


def test_a_module_stays_as_it_was(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).bfloat16()
    model.train()
    model[0].eval()
    assert convert(model, tmp_path / "m.mlpackage", inputs=X, precision="f32").ok
    assert [part.training for part in model.modules()] == [True, False, True]
    assert model[0].weight.dtype == torch.bfloat16


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_are_refused_unopened(tmp_path: Path, old: Path, legacy: bool) -> None:
    path, sprung = tmp_path / "model.pt", tmp_path / "sprung"
    torch.save({"a": Trap(sprung)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(LoadError, match="pickle"):
        convert(path, old, inputs=X, force=True)
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung))).close()  # the trap works
    assert sprung.exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_damaged_torchscript(tmp_path: Path, old: Path, damage: str) -> None:
    path = tmp_path / "net.pt"
    torch.jit.script(nn.Linear(64, 64)).save(path)
    data = bytearray(path.read_bytes())
    at = data.index(next(iter(torch.jit.load(path).parameters())).detach().numpy().tobytes())
    flipped = bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]])
    path.write_bytes({"truncated": data[: len(data) // 2], "flipped": flipped, "empty": b"", "text": b"hi"}[damage])
    with pytest.raises(LoadError, match=r"net\.pt: (damaged|not a TorchScript)"):
        convert(path, old, inputs=["x=1x64"], force=True)


BAD: list[tuple[str, dict[str, Any], type[TlkitError], str]] = [
    ("{S}:nothing", {}, LoadError, "returns None, not a torch.nn.Module"),
    ("{S}:os", {}, LoadError, "is of type module"),
    ("{S}:fails", {}, LoadError, r"ValueError: no such checkpoint \(sources.py, line \d+\)"),
    ("{S}:Con", {}, LoadError, "there is no 'Con'"),
    ("{T}/nope.py:net", {}, LoadError, "no such file"),
    ("{T}/nope.pt", {}, LoadError, "no such file"),
    ("nope.sub:net", {}, LoadError, "no module named 'nope'"),
    ("torch.nn:Linear", {}, LoadError, "missing 2 required positional arguments"),
    ("resnet5", {}, UsageError, "no built-in or file 'resnet5'"),
    ("{T}", {}, UsageError, "folder"),
    ("{S}:Conv", {"inputs": ["x=1x2x8x8"]}, UsageError, "Conv does not run on x 1x2x8x8: .*channels"),
    ("{S}:Conv", {"inputs": ["x=1x3x8x8", "y=1"]}, UsageError, "does not take 2 input"),
    ("{S}:Conv", {"inputs": []}, UsageError, "what does it take"),
    ("{S}:Conv", {"inputs": ["x=1x3x8x8"], "classes": ["a", "b"]}, UsageError, "2 class labels for the output"),
    ("{S}:Conv", {"inputs": ["x=1x3x8x8"], "classes": ["a", "b", "a"]}, UsageError, "'a' is there twice"),
    ("{S}:Conv", {"inputs": ["x=1x3x8x8"], "classes": "{T}/no.txt"}, LoadError, "no.txt: No such file"),
    ("{S}:Conv", {"inputs": ["x=1x3x8x8"], "output_names": ["x"]}, UsageError, "names must differ"),
    ("{S}:Conv", {"inputs": ["x=1x3x8x8"], "output_names": ["a", "b"]}, UsageError, "2 output name"),
    ("{S}:Conv", {"precision": "int8"}, UsageError, "unknown precision"),
    ("{S}:Conv", {"target": "iOS3"}, UsageError, "unknown target"),
    ("{S}:Unsupported", {"inputs": ["x=3x3"]}, ConversionError, "cannot convert a torch op of this model: linalg_svd"),
    ("{S}:Complains", {}, UsageError, r"does not run on x 1x4: no such thing \(sources.py, line \d+\)"),
    ("{S}:Casts", {"inputs": ["x=1x8"]}, UsageError, r"Casts does not run on x 1x8: .*dtype"),
    ("{S}:Twice", {}, ConversionError, "the same value"),
]


WITHOUT_A_MODULE = [
    ("a.gguf", b"GGUF\3" + bytes(19), "GGUF weights without the module"),
    ("a.bin", b"\x0a" + bytes(7) + b'{"a": {} }', "SafeTensors weights without the module"),
    ("a.onnx", b"\x08\x08\x3a\x00", "ONNX, which coremltools does not convert"),
]


@pytest.mark.parametrize(("name", "data", "words"), WITHOUT_A_MODULE)
def test_weights_and_graphs_that_are_no_module_say_what_they_are(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(LoadError, match=words):
        convert(str(tmp_path / name), tmp_path / "x.mlpackage")
    assert not (tmp_path / "x.mlpackage").exists()


@pytest.mark.parametrize(("source", "options", "kind", "message"), BAD)
def test_bad_input(
    tmp_path: Path, old: Path, source: str, options: dict[str, Any], kind: type[TlkitError], message: str
) -> None:
    places = {"{S}": str(SOURCES), "{T}": str(tmp_path)}
    for mark, place in places.items():
        source = source.replace(mark, place)
        options = {k: v.replace(mark, place) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(kind, match=message) as caught:
        convert(source, old, **({"inputs": X, "force": True} | options))
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_dataclass_of_outputs(tmp_path: Path) -> None:
    result = convert(f"{SOURCES}:Detector", tmp_path / "a.mlpackage", inputs=["x=1x8"], precision="f32")
    assert result.ok
    assert [port.name for port in result.info.outputs] == ["scores", "boxes"]


def test_what_the_hint_says_to_do(tmp_path: Path) -> None:
    with pytest.raises(TlkitError) as caught:
        convert(f"{SOURCES}:Casts", tmp_path / "a.mlpackage", inputs=["x=1x8"])
    assert "take its type from a parameter" in caught.value.hint


def test_complex_numbers_inside_are_pairs_of_real_ones(tmp_path: Path) -> None:
    assert convert(f"{SOURCES}:Complex", tmp_path / "a.mlpackage", inputs=["x=1x8"]).ok


def test_compression_is_said_to_be_no_precision(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        convert(f"{SOURCES}:Conv", tmp_path / "a.mlpackage", inputs=["x=1x3x8x8"], precision="int8")
    assert "tlkit edit net.mlpackage --quantize int8" in caught.value.hint


def test_an_output_of_another_shape_differs(tmp_path: Path) -> None:
    """Tracing freezes the length that the example has: at others the package gives as many values as then."""
    result = convert(Frozen(), tmp_path / "a.mlpackage", inputs=["x=1x2..4"])
    assert result.verification is not None
    assert result.verification.passed is False
    assert any("shapes differ: 1x" in reason for reason in result.verification.reasons)


def test_what_exists_is_kept_without_force(old: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        convert("resnet50", old)


def test_an_interrupt_in_the_middle_leaves_the_old(old: Path) -> None:
    def report(what: str, share: float) -> None:
        stages.append(what)
        if what == "optimizing the program":
            raise KeyboardInterrupt

    stages: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        convert(f"{SOURCES}:Conv", old, inputs=["x=1x3x8x8"], force=True, report=report)
    assert stages[:4] == ["loading the source", "finding values to run it on", "tracing", "loading coremltools"]
    assert "verifying" not in stages


def test_a_full_disk(old: Path) -> None:
    # The weights take more, the rest does not.
    with files_no_larger_than(1 << 16), pytest.raises(TlkitError, match=r"old\.mlpackage: cannot write") as caught:
        convert(nn.Linear(4, 1 << 15), old, inputs=X, force=True)
    assert caught.value.exit_code == 4


def test_numpy_that_coremltools_cannot_use(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"numpy": "2.4.0", "coremltools": "9.0"}
    monkeypatch.setattr("tlkit.core.convert.tools.build.version", versions.__getitem__)
    with pytest.raises(TlkitError, match=r"cannot convert with numpy 2\.4\.0") as caught:
        convert("resnet50", old, force=True)
    assert caught.value.exit_code == 3


def test_a_source_file_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "helper_of_mine.py").write_text("WIDTH = 4\n")
    (tmp_path / "net.py").write_text(
        "from helper_of_mine import WIDTH\nfrom torch import nn\nprint('hello')\nnet = nn.Linear(WIDTH, 2)\n"
    )
    before = list(sys.path)
    assert load_source(f"{tmp_path}/net.py:net").module.in_features == 4
    assert sys.path == before
    assert sorted(os.listdir(tmp_path)) == ["helper_of_mine.py", "net.py"]


@pytest.mark.parametrize("strict", [False, True])
def test_verification_is_against_core_ml_or_against_the_specification(tmp_path: Path, strict: bool) -> None:
    made = convert(LogSumExp(), tmp_path / "n.mlpackage", inputs=X, precision="f32", strict_mil=strict)
    assert made.ok is strict


class Large(nn.Module):
    """Sums beyond 32752 in a matrix product, and an open length."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 0 + 1) @ torch.full((4, 2), 12000.0)


def test_what_may_go_wrong_on_a_device_is_told_by_shapes_and_by_values(tmp_path: Path) -> None:
    made = convert(Large(), tmp_path / "n.mlpackage", inputs=["x=1..4x4"])
    assert {"C17", "P4"} <= {risk.row for risk in made.risks}
    plain = convert(Large(), tmp_path / "p.mlpackage", inputs=X, precision="f32")
    assert not {"C17", "P4"} & {risk.row for risk in plain.risks}


class Softplus(nn.Module):
    """What the Neural Engine returns 0 for above 10.4."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x * 0 + 11.0 + 0.01 * x)


@pytest.mark.slow
def test_an_emulated_unit_is_what_is_verified(tmp_path: Path) -> None:
    made = [
        convert(Softplus(), tmp_path / f"{name}.mlpackage", inputs=["x=1x8"], emulate=name) for name in ("cpu", "ane")
    ]
    # Under the Neural Engine's arithmetic f16 does not do, and operations stay in f32, which it leaves to the CPU.
    assert [item.ok for item in made] == [True, True]
    assert ["softplus" in " ".join(item.notes) for item in made] == [False, True]
    for item in made:
        assert item.verification is not None and "not a measurement" in item.verification.notes[0]
    with pytest.raises(UsageError, match="f16 only"):
        convert(Softplus(), tmp_path / "n.mlpackage", inputs=["x=1x8"], emulate="ane", precision="f32")
