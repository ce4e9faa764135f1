"""Fingerprints, folders, and what a file is good for.

Covers tlkit/core/inspect/folder.py.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import tlkit
from tests.formats import packages
from tests.fuzz.tensor_seeds import Small
from tests.real_models import MODELS, needs_models
from tlkit.core.inspect.folder import is_collection, list_models
from tlkit.core.inspect.inspection import examine
from tlkit.core.inspect.which import which_format
from tlkit.errors import LoadError, UnavailableError, UsageError
from tlkit.formats.base import sniff
from tlkit.formats.describe import FORMATS, describe, find_format, open_tensors
from tlkit.formats.hashes import file_hashes, files_of, weights_hash

STATE = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(3)}


def test_files_hash_as_sha256sum_has_it(tmp_path: Path) -> None:
    package = packages.classifier(tmp_path / "net.mlpackage")
    heard: list[int] = []
    found = file_hashes(files_of(package), heard.append)
    assert found == {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in package.rglob("*") if f.is_file()}
    assert sum(heard) == sum(Path(path).stat().st_size for path in found)


def test_weights_hash_alike_in_any_order_and_split(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "whole.safetensors")
    (tmp_path / "split").mkdir()
    for index, name in enumerate(STATE):
        save_file({name: STATE[name]}, tmp_path / f"split/model-{index}.safetensors")
    names = {name: f"model-{index}.safetensors" for index, name in enumerate(STATE)}
    (tmp_path / "split/model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    torch.save(
        {name: value.T.contiguous().T if value.ndim == 2 else value for name, value in STATE.items()}, tmp_path / "x.pt"
    )
    found = {weights_hash(open_tensors(tmp_path / name)) for name in ("whole.safetensors", "split", "x.pt")}
    assert len(found) == 1
    save_file(STATE | {"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert weights_hash(open_tensors(tmp_path / "other.safetensors")) not in found


def test_a_folder_is_a_row_a_model(tmp_path: Path) -> None:
    packages.linear(tmp_path / "a.mlpackage")
    save_file(STATE, tmp_path / "b.safetensors")
    (tmp_path / "sub").mkdir()
    torch.save(STATE, tmp_path / "sub/c.pt")
    (tmp_path / "sub/README.md").write_text("no model")
    (tmp_path / "sub/image.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / ".hidden.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\x09\0\0\0")
    assert is_collection(tmp_path) and not is_collection(tmp_path / "a.mlpackage")
    rows = {Path(row.path).name: row for row in list_models(tmp_path)}
    assert list(rows) == ["a.mlpackage", "b.safetensors", "broken.gguf", "c.pt"]
    assert rows["broken.gguf"].info is None and "GGUF" in rows["broken.gguf"].problem
    assert rows["c.pt"].info is not None and rows["c.pt"].info.parameters == 9


@needs_models
def test_every_real_model_has_a_row_and_only_the_broken_ones_a_problem() -> None:
    rows = {Path(row.path).name: row for row in list_models(MODELS)}
    assert len(rows) >= 45
    assert [name for name, row in rows.items() if row.problem] == ["lfs_pointer_digit_recognizer.mlmodel"]


def huggingface(folder: Path) -> Path:
    folder.mkdir()
    save_file(STATE, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": 8}))
    return folder


def test_a_hugging_face_folder_is_one_model(tmp_path: Path) -> None:
    info = describe(huggingface(tmp_path / "hub"))
    assert info.metadata.format == "SafeTensors" and info.parameters == 9
    assert info.details["architecture"] == "LlamaForCausalLM" and info.details["config"]["hidden_size"] == 8
    assert [Path(row.path).name for row in list_models(tmp_path)] == ["hub"]


def test_shards_among_other_models_are_rows_of_the_folder(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(STATE, "a-00001-of-00001.safetensors")}
    (tmp_path / "a.safetensors.index.json").write_text(json.dumps(index))
    assert sniff.detect(tmp_path) is sniff.Format.SAFETENSORS
    torch.save(STATE, tmp_path / "b.pt")
    assert "b.pt" in {Path(row.path).name for row in list_models(tmp_path)}
    with pytest.raises(LoadError):
        sniff.detect(tmp_path)


def test_which_format_names_what_is_missing(tmp_path: Path) -> None:
    assert which_format(describe(huggingface(tmp_path / "hub")))[1].endswith("-o hub.gguf")
    save_file(STATE, tmp_path / "x.safetensors")
    assert which_format(describe(tmp_path / "x.safetensors"))[1] == "tlkit convert model.py:Net -o x.mlpackage"
    torch.jit.script(Small()).save(tmp_path / "x y.pt")
    command = which_format(describe(tmp_path / "x y.pt"))[1]
    assert command == f"tlkit convert '{tmp_path}/x y.pt' --input x=DIMS -o 'x y.mlpackage'"
    package = packages.linear(tmp_path / "net.mlpackage")
    assert which_format(describe(package)) == (
        "for running on Apple devices, and anywhere with `tlkit run`; its weights for PyTorch:",
        f"tlkit convert {package} -o net.safetensors",
    )
    (package / "Data/com.apple.CoreML/weights/weight.bin").unlink()
    assert which_format(describe(package)) == ("nothing until its weights are here: see the warning", "")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1]))
    assert which_format(describe(tmp_path / "x.pkl"))[1] == ""


def test_the_vocabulary_of_formats(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a")
    torch.save(STATE, tmp_path / "b")
    np.savez(tmp_path / "c.npz", a=np.ones(1))
    names = [describe(tmp_path / name).metadata.format for name in ("a", "b", "c.npz")]
    assert names == ["SafeTensors", "PyTorch", "NumPy"]
    assert describe(packages.linear(tmp_path / "d.mlpackage")).metadata.format == "CoreML"


def test_format_overrides_the_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(pickle.dumps({"a": "b" * 30}, protocol=0))  # which begins with "(", as anything may
    with pytest.raises(LoadError, match="not a model file"):
        describe(path)
    assert tlkit.inspect(path, format="pytorch").kind == "pickle"
    with pytest.raises(LoadError, match="not a GGUF file"):
        describe(path, "gguf")
    with pytest.raises(UsageError, match="unknown format 'zip'"):
        describe(path, "zip")
    assert {find_format(path, name) for name in FORMATS} == set(FORMATS.values())


def test_what_is_not_read_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.aimodel").mkdir()
    with pytest.raises(LoadError, match="Core AI model, which tlkit does not read"):
        describe(tmp_path / "x.aimodel")
    assert sniff.detect(tmp_path / "x.aimodel") is sniff.Format.AIMODEL
    (tmp_path / "y.aimodel").write_bytes(b"\1\2\3" * 30)
    assert sniff.detect(tmp_path / "y.aimodel") is sniff.Format.AIMODEL
    (tmp_path / "p").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5000000\n")
    with pytest.raises(LoadError, match="stands for"):
        examine(tmp_path / "p")
    with pytest.raises(LoadError, match="5,000,000 bytes"):
        tlkit.load_model(tmp_path / "p")


def test_shared_tensors_count_once(tmp_path: Path) -> None:
    module = Small()
    torch.save(module.state_dict(), tmp_path / "x.pt")
    info = describe(tmp_path / "x.pt")
    assert info.parameters == sum(p.numel() for p in module.parameters()) + 6
    assert info.details["shared"] == [["first.weight", "tied.weight"]]


def test_patterns(tmp_path: Path) -> None:
    save_file({f"layers.{i}.{name}": torch.ones(1) for i in range(3) for name in "ab"}, tmp_path / "x.safetensors")
    found = examine(tmp_path / "x.safetensors")
    assert len(found.matching(None)) == 6 and len(found.matching("1.")) == 2 and len(found.matching("*.a")) == 3
    assert len(found.matching("layers.[02].b")) == 2 and len(found.matching("layers.0.a")) == 1
    with pytest.raises(UsageError, match="none of its 6 tensors matches 'c'"):
        found.matching("c")


def test_models_of_weights_have_tensors_and_do_not_run(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.pt")
    model = tlkit.load_model(tmp_path / "x.pt")
    assert (model.metadata.format, model.metadata.quantization, model.program) == ("PyTorch", "F32", None)
    tensors = model.tensors()
    assert list(tensors) == ["b", "a"] and tensors["b"].shape == (2, 3)
    np.testing.assert_array_equal(np.asarray(tensors["b"]), STATE["b"].numpy())
    for call in (lambda: model.predict({}), lambda: model.bind({}), model.make_state, model.prepare):
        with pytest.raises(UnavailableError, match="do not run by themselves") as caught:
            call()
        assert caught.value.exit_code == 3


def test_inspecting_imports_nothing_heavy(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    torch.save(STATE, tmp_path / "b.pt")
    packages.linear(tmp_path / "c.mlpackage")
    code = (
        "import sys, tlkit\n"
        "for path in sys.argv[1:]: tlkit.inspect(path)\n"
        "print(sorted({'torch', 'coremltools', 'numpy', 'gguf', 'safetensors'} & sys.modules.keys()))"
    )
    paths = [str(tmp_path / name) for name in ("a.safetensors", "b.pt", "c.mlpackage")]
    import sys

    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
