"""Language models as packages: the same tokens as from GGUF, valid for coremltools, weights in the file's blocks.

Covers tlkit/core/language/packaging.py, tlkit/core/language/held.py, tlkit/core/language/built.py,
tlkit/frontends/gguf/kit/packaged.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from tests.core.language.test_words import after_each, loaded
from tests.formats.gguf.model.folders import CONFIGS, build
from tests.frontends.gguf.test_encoder import jina_folder, nomic_folder
from tlkit import convert_weights, load_model
from tlkit.core.language import packaging
from tlkit.core.language.answer import answer, embed
from tlkit.core.language.model import open_language
from tlkit.core.language.package import open_language_package
from tlkit.core.language.packaging import chunk_sizes, convert_language
from tlkit.core.language.sampling import Sampling
from tlkit.errors import ConversionError, LoadError, UnavailableError, UsageError

PROMPT = "The quick brown fox"
CASES = [case for case in CONFIGS if case not in ("bert", "gemma3", "phi3_long")]


def loaded_by_coremltools(path: Path) -> dict[str, int]:
    """The operations of each function, their types checked by coremltools' own inference."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    model = ct.models.MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    program = load(spec, spec.specificationVersion, model.weights_dir)
    return {name: len(function.operations) for name, function in program.functions.items()}


@pytest.mark.parametrize("case", ["gemma3", *(pytest.param(case, marks=pytest.mark.slow) for case in CASES)])
def test_a_package_says_what_its_source_says(tmp_path: Path, case: str) -> None:
    folder, file = build(tmp_path / "folder", case), tmp_path / "model.gguf"
    convert_weights(folder, file)
    made = convert_language(file, tmp_path / "model.mlpackage", context=96, verify=False)
    wanted = answer(file, PROMPT, most=24, context=96)
    found = answer(made.path, PROMPT, most=24)
    assert (found.tokens, found.text, found.prompt_tokens) == (wanted.tokens, wanted.text, wanted.prompt_tokens)
    assert set(loaded_by_coremltools(made.path)) == {"main", "prefill"}


@pytest.mark.parametrize(("precision", "nested"), [("f32", True), ("f16", False)])
def test_blocks_stay_blocks(tmp_path: Path, precision: str, nested: bool) -> None:
    folder, file = build(tmp_path / "folder", "qwen2"), tmp_path / "model.gguf"
    convert_weights(folder, file, quantize="q8_0" if not nested else "q4_1:pure")
    options = {"context": 64, "precision": precision, "nested": nested}
    made = convert_language(file, tmp_path / "model.mlpackage", **options)  # type: ignore[arg-type]
    # Of 7 matrices a layer and the embeddings those whose rows are whole blocks; the head is one of its own here.
    wanted = {"blocks": 0 if nested else 16, "nested": 16 if nested else 0, "channels": 0, "half": 0, "dense": 0}
    assert made.tensors == wanted
    assert (made.ok, made.compared > 0) == (True, True)
    assert loaded_by_coremltools(made.path)["main"] > 0
    dense = sum(file.stat().st_size for file in [*folder.glob("*.safetensors")])
    weights = made.path / "Data/com.apple.CoreML/weights/weight.bin"
    assert weights.stat().st_size < (0.6 if nested or precision == "f16" else 0.4) * dense + 100_000


def test_weights_per_channel_and_the_likeliest_token(tmp_path: Path) -> None:
    folder = build(tmp_path / "folder", "qwen2")
    options = {"precision": "f16", "returns": "argmax", "prefill": "8,32"}
    made = convert_language(folder, tmp_path / "m.mlpackage", context=64, weights="int8", **options)  # type: ignore[arg-type]
    assert made.tensors == {"blocks": 0, "nested": 0, "channels": 16, "half": 0, "dense": 0}
    assert (made.ok, made.compared > 0, made.chunks) == (True, True, (8, 32))
    assert len(made.errors) == 16 and all(0.001 < error.relative < 0.02 for error in made.errors)
    assert "Neural Engine" in made.notes[0]
    assert set(loaded_by_coremltools(made.path)) == {"main", "prefill_8", "prefill"}
    # Longer than one chunk, and shorter ones.
    whole = answer(made.path, "the quick brown fox jumps over the lazy dog, and so it is done", most=4)
    assert len(whole.tokens) > 0 and len(whole.prompt_tokens) > 8
    with pytest.raises(UsageError, match="no logits to draw from"):
        answer(made.path, PROMPT, most=2, sampling=Sampling(temperature=1.0))


def test_what_is_left_dense_is_said_with_both_ways(tmp_path: Path) -> None:
    folder, file = build(tmp_path / "folder", "qwen2"), tmp_path / "model.gguf"
    convert_weights(folder, file, quantize="q4_1:pure")
    plain = convert_language(file, tmp_path / "a.mlpackage", context=64, verify=False)
    (note,) = [note for note in plain.notes if "Q4_1" in note]
    assert "16 Q4_1 tensors are dense f32" in note and "--nested" in note and "--requantize" in note
    rounded = convert_language(file, tmp_path / "b.mlpackage", context=64, requantize=True)
    assert (rounded.tensors["blocks"], rounded.ok, rounded.gap) == (16, True, None)
    assert len(rounded.errors) == 16 and all(error.relative < 2e-7 for error in rounded.errors)
    assert rounded.size < 0.6 * plain.size


def test_wishes_that_make_no_sense(tmp_path: Path) -> None:
    goal = tmp_path / "m.mlpackage"
    for options, said in (
        ({"weights": "int3"}, "not keep, f16, int8"),
        ({"weights": "int8", "nested": True}, "--nested says"),
        ({"nested": True, "requantize": True}, "--nested keeps all"),
        ({"returns": "text"}, "not logits or argmax"),
    ):
        with pytest.raises(UsageError, match=said):
            convert_language(tmp_path, goal, **options)  # type: ignore[arg-type]
    assert (chunk_sizes(None, 32), chunk_sizes("64,8", 96), chunk_sizes(4, 96)) == ([32], [8, 64], [4])
    assert (chunk_sizes("5-20", 96), chunk_sizes("96, 16-16", 96)) == ([5, 10, 20], [16, 96])
    for text in ("0", "97", "x", "8,", "-1", "9" * 40, "\u0668", "0-8", "8-4", "8-97", "1-2-3", "8-", "1-99999999999"):
        with pytest.raises(UsageError, match="--prefill"):
            chunk_sizes(text, 96)


@pytest.mark.slow
def test_prompts_of_any_length_are_what_the_source_makes_of_them(tmp_path: Path) -> None:
    folder = build(tmp_path / "folder", "gemma3")
    made = convert_language(folder, tmp_path / "m.mlpackage", context=64, prefill="5-20", verify=False)
    assert made.chunks == (5, 10, 20)
    ids = [1, *range(20, 83)]
    wanted = after_each(loaded(folder), ids, halves=True)
    # The functions themselves: one call, one that is padded, several, up to the last row, and on from where it was.
    runner = open_language_package(made.path).runner(None, "torch")
    for first, then in ((1, 3), (4, 6), (5, 11), (9, 21), (20, 23), (22, 41), (43, 20), (63, 1), (64, 0)):
        runner.rewind(0)
        assert np.abs(runner.feed(ids[:first]) - wanted[first - 1]).max() < 1e-3
        if then:
            assert np.abs(runner.feed(ids[first : first + then]) - wanted[first + then - 1]).max() < 1e-3


def test_the_tokenizer_lies_beside_as_transformers_reads_it(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    made = convert_language(build(tmp_path / "folder", "llama31"), tmp_path / "m.mlpackage", context=64, verify=False)
    beside = made.path / "Data/com.apple.CoreML"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(beside)
    wanted = PreTrainedTokenizerFast.from_pretrained(tmp_path / "folder")
    assert tokenizer(PROMPT)["input_ids"] == wanted(PROMPT)["input_ids"]
    assert tokenizer.bos_token == "<s>"
    manifest = json.loads((made.path / "Manifest.json").read_text())
    assert "com.apple.CoreML/tokenizer.json" in {item["path"] for item in manifest["itemInfoEntries"].values()}
    (beside / "language.json").write_text('{"context": 0}')
    with pytest.raises(LoadError, match="does not describe"):
        answer(made.path, "x")


@pytest.mark.parametrize("kind", ["q4_k_m", "f32"])
def test_large_packages_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    folder, file = build(tmp_path / "folder", "gemma3"), tmp_path / "model.gguf"
    convert_weights(folder, file, **({} if kind == "f32" else {"quantize": kind}))
    monkeypatch.setattr(packaging, "LARGE", 1 << 10)
    made = convert_language(file, tmp_path / "m.mlpackage", context=32)
    assert (made.compared, made.ok, "read back" in made.notes[-1]) == (0, True, True)
    written = packaging.write_package

    def damaged(path: Path, *given: Any) -> None:
        written(path, *given)
        weights = path / "Data/com.apple.CoreML/weights/weight.bin"
        held = bytearray(weights.read_bytes())
        held[len(held) // 2 // 64 * 64 + 5] ^= 1
        weights.write_bytes(held)

    monkeypatch.setattr(packaging, "write_package", damaged)
    with pytest.raises(ConversionError, match=r"main is not what was built, from .* on"):
        convert_language(file, tmp_path / "n.mlpackage", context=32)
    assert not (tmp_path / "n.mlpackage").exists()


def test_llama_cpp_runs_no_packages(tmp_path: Path) -> None:
    made = convert_language(build(tmp_path / "folder", "qwen2"), tmp_path / "m.mlpackage", context=64, verify=False)
    with pytest.raises(UsageError, match="it runs GGUF files"):
        answer(made.path, PROMPT, most=2, engine="llama.cpp")


@pytest.mark.parametrize(
    ("case", "kind", "bound"),
    [
        ("llama31", "q8_0", 2e-3),  # a key that is rounded to the other f16 moves logits by so much
        pytest.param("qwen2", "q4_1", 2e-3, marks=pytest.mark.slow),
        *(pytest.param(case, None, 5e-3, marks=pytest.mark.slow) for case in ("gemma2", "phi3", "gpt2", "mixtral")),
    ],
)
def test_openvino_runs_a_package_as_pytorch_does(tmp_path: Path, case: str, kind: str | None, bound: float) -> None:
    pytest.importorskip("openvino")
    file = tmp_path / "model.gguf"
    convert_weights(build(tmp_path / "folder", case), file, **({"quantize": kind} if kind else {}))
    convert_language(file, tmp_path / "m.mlpackage", context=64, verify=False, nested=True)
    package = open_language_package(tmp_path / "m.mlpackage")
    ids = [1, 5, 9, 33, 200, 7, 60, *range(20, 50)]
    found, wanted = (package.runner(None, engine, cache=False) for engine in ("openvino", "torch"))
    assert found.name.startswith("OpenVINO")
    ours = found.scores(ids)
    assert np.abs(ours - wanted.scores(ids)).max() < bound
    found.rewind(20)
    assert np.abs(found.feed(ids[20:]) - ours[-1]).max() < bound


@pytest.mark.slow
def test_a_part_of_a_packages_context_turns_positions_as_the_whole(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    folder = build(tmp_path / "folder", "phi3_long")  # which turns them otherwise for longer contexts
    whole = open_language(folder).sizes.context
    made = convert_language(folder, tmp_path / "m.mlpackage", context=whole, verify=False)
    found, wanted = (open_language_package(made.path).runner(24, e, cache=False) for e in ("openvino", "torch"))
    ids = [1, 5, 9, 33, 200, 7, 60, *range(20, 30)]
    assert np.abs(found.scores(ids) - wanted.scores(ids)).max() < 5e-3


def test_a_package_that_was_changed_is_run_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    made = convert_language(build(tmp_path / "folder", "qwen2"), tmp_path / "m.mlpackage", context=64, verify=False)
    description = made.path / "Data/com.apple.CoreML/language.json"
    told = json.loads(description.read_text())

    def engine(**changes: object) -> str:
        description.write_text(json.dumps(told | changes))
        with pytest.raises(UnavailableError, match="OpenVINO runs what tlkit builds"):
            open_language_package(made.path).runner(None, "openvino", cache=False)
        return open_language_package(made.path).runner(None, cache=False).name

    other = told["metadata"] | {"qwen2.rope.freq_base": 5000.0}
    assert engine(metadata=other).startswith("PyTorch")  # the program turns heads otherwise
    assert engine(metadata=None).startswith("PyTorch")  # as packages of before have none
    assert engine(tensors=[*told["tensors"], "blk.0.more.weight"]).startswith("PyTorch")
    assert engine(precision="f16").startswith("PyTorch")


@pytest.mark.parametrize("case", ["nomic", *(pytest.param(case, marks=pytest.mark.slow) for case in ("bert", "jina"))])
def test_an_encoders_package_makes_the_same_vectors(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "folder"
    if case == "bert":
        build(folder, "bert")
    elif case == "nomic":
        nomic_folder(folder)
    else:
        jina_folder(folder, 6, True)
    made = convert_language(folder, tmp_path / "m.mlpackage", context=32, weights="keep")
    assert (made.encodes, made.ok, made.compared, made.same) == (True, True, 3, 3)
    assert made.gap is not None and made.gap < 1e-5
    assert set(loaded_by_coremltools(made.path)) == {"main"}
    # A text of another length than the verification's, hidden padding behind it; and the package's own pooling.
    text = "Water boils"
    assert np.abs(embed(made.path, text) - embed(folder, text)).max() < 1e-5
    packaged = open_language_package(made.path)
    ids = packaged.tokenizer.encode(text)
    tokens = np.zeros((1, 32), np.int32)
    tokens[0, : len(ids)] = ids
    found = load_model(made.path).predict({"tokens": tokens, "count": np.array([len(ids)], np.int32)})
    assert np.abs(found["vector"][0] - embed(folder, text)).max() < 1e-5
    for options in ({"prefill": "8"}, {"returns": "argmax"}):
        with pytest.raises(UsageError, match="is an encoder"):
            convert_language(folder, tmp_path / "n.mlpackage", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("pooling", "place"), [(2, 0), (3, -1)])
def test_an_encoders_text_is_its_first_or_last_token(tmp_path: Path, pooling: int, place: int) -> None:
    folder, file = nomic_folder(tmp_path / "folder")[0], tmp_path / "m.gguf"
    convert_weights(folder, file, metadata=[f"nomic-bert.pooling_type:u32={pooling}"])
    made = convert_language(file, tmp_path / "m.mlpackage", context=16, verify=False)
    tokens = np.zeros((1, 16), np.int32)
    tokens[0, :5] = [2, 9, 30, 31, 3]
    found = load_model(made.path).predict({"tokens": tokens, "count": np.array([5], np.int32)})
    wanted = found["vectors"][:5][place]
    assert np.allclose(found["vector"][0], wanted / np.linalg.norm(wanted), atol=1e-6)


@pytest.mark.parametrize(("case", "precision"), [("phi3", "f16"), ("bert", "f32")])
def test_core_ml_has_nothing_to_refuse(tmp_path: Path, case: str, precision: Literal["f16", "f32"]) -> None:
    """docs/fidelity.md has reports of what it refuses: inputs left out, f16 in the program, slices of one element."""
    folder = build(tmp_path / "folder", case)
    made = convert_language(folder, tmp_path / "m.mlpackage", context=32, precision=precision, verify=False)
    assert [risk.text for risk in made.risks if risk.level == "refused"] == []
    assert {risk.row for risk in made.risks} == ({"I9"} if case == "phi3" else set())
