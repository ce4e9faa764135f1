"""``tlkit inspect`` on every format: the flags that read tensors, folders and differences.

Covers tlkit/cli/views/tensors.py, tlkit/core/inspect/which.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from rich.console import Console, RenderableType
from safetensors.torch import save_file

from tests.cli.commands import Shell
from tests.formats import packages
from tests.fuzz.tensor_seeds import Small, tensor_files
from tests.real_models import MODELS, needs_models
from tlkit.cli.sink.fitting import fitted
from tlkit.cli.views.inspect import summary_view
from tlkit.cli.views.tensors import extra_view, groups_view, model_tree
from tlkit.core.inspect.stats import tensor_stats
from tlkit.formats.describe import describe_tensors, open_tensors
from tlkit.formats.groups import group
from tlkit.types import Metadata, ModelInfo, TensorSpec

STATE = {f"layers.{i}.w": torch.full((2, 3), float(i)) for i in range(3)} | {
    "norm": torch.tensor([0.0, 7e4, torch.nan])
}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file(STATE, tmp_path / "x.safetensors", {"format": "pt", "note": "mine"})
    return tmp_path / "x.safetensors"


def rows(out: str) -> dict[str, str]:
    return {line.split()[0]: line for line in out.splitlines() if line.strip()}


def test_the_summary_groups_blocks(tlkit: Shell, weights: Path) -> None:
    outcome = tlkit("inspect", weights)
    assert (outcome.code, outcome.err) == (0, "")
    found = rows(outcome.out)
    assert found["layers.[0-2].w"].split() == ["layers.[0-2].w", "F32", "2x3", "3", "18", "72", "B"]
    assert "SafeTensors · weights" in found["format"] and found["note"].split() == ["note", "mine"]
    assert any(line.startswith("good for") for line in outcome.out.splitlines()[-3:])


def test_the_command_at_the_end_is_one_line_however_long(tlkit: Shell, tmp_path: Path) -> None:
    folder = tmp_path / ("a name of many words " * 10)
    folder.mkdir()
    torch.save({"w": torch.ones(3)}, folder / "a b.pth")
    command = tlkit("inspect", folder / "a b.pth").out.splitlines()[-1]
    assert shlex.split(command) == ["tlkit", "convert", str(folder / "a b.pth"), "-o", "a b.safetensors"]


def test_the_json_holds_all_of_it(tlkit: Shell, weights: Path) -> None:
    document = tlkit("inspect", weights, "--json").json()
    assert document["metadata"]["format"] == "SafeTensors" and document["parameters"] == 21
    assert document["file_metadata"] == {"format": "pt", "note": "mine"}
    assert [group["name"] for group in document["groups"]] == ["layers.[0-2].w", "norm"]
    by_name = {tensor["name"]: tensor for tensor in document["tensors"]}
    assert by_name["layers.1.w"]["shape"] == [2, 3] and by_name["layers.1.w"]["bytes"] == 24
    assert document["good_for"] and document["convert"]


def test_tensors_are_listed_by_pattern(tlkit: Shell, weights: Path) -> None:
    outcome = tlkit("inspect", weights, "--tensors", "layers.*")
    assert [line.split()[0] for line in outcome.out.splitlines() if " F32 " in line] == [
        f"layers.{i}.w" for i in range(3)
    ]
    assert [t["name"] for t in tlkit("inspect", weights, "--tensors", "norm", "--json").json()["tensors"]] == ["norm"]
    missing = tlkit("inspect", weights, "--tensors", "nothing")
    assert missing.code == 2 and "none of its 4 tensors matches" in missing.err


def test_stats_show_what_f16_cannot_hold(tlkit: Shell, weights: Path) -> None:
    line = rows(tlkit("inspect", weights, "--stats").out)["norm"]
    assert line.split() == ["norm", "F32", "0", "7e+04", "3.5e+04", "3.5e+04", "33.3", "%", "1", "1"]
    (norm,) = tlkit("inspect", weights, "--stats", "--tensors", "norm", "--json").json()["stats"]
    assert (norm["nan"], norm["over_f16"], norm["zeros"], norm["max"]) == (1, 1, 1, 7e4)


def narrow(view: RenderableType, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_figures_stay_whole_on_a_narrow_terminal(tmp_path: Path) -> None:
    state = {f"model.{'encoder.' * 4}layers.{i}.attention.output.dense.weight": torch.ones(70, 1024) for i in range(3)}
    save_file(state | {"b" * 200: torch.ones(1)}, tmp_path / "x.safetensors")
    file = open_tensors(tmp_path / "x.safetensors")
    out = narrow(summary_view(describe_tensors(file), group(file.entries())))
    table = out[out.index("tensors ") :]
    assert {"F32", "70x1024", "215,040", "860", "kB", "parameters", "bytes"} <= set(table.split())
    stats = [tensor_stats(file, entry) for entry in file.entries()]
    assert len(narrow(extra_view({"stats": stats})).splitlines()) < 24


def test_descriptions_stay_readable_on_a_narrow_terminal() -> None:
    said = "Probability of each category"
    ports = [TensorSpec("classLabelProbs", "string to float64", kind="dictionary", description=said)]
    info = ModelInfo("net.mlmodel", Metadata("CoreML", ""), "glmClassifier", outputs=tuple(ports))
    out = narrow(summary_view(info))
    assert set(said.split()) <= set(out.split())


def test_names_have_lines_of_their_own_where_a_table_is_wide(tmp_path: Path) -> None:
    name = f"model.{'encoder.' * 4}dense.weight"
    save_file({name: torch.ones(70, 1024), "b": torch.ones(3)}, tmp_path / "x.safetensors")
    file = open_tensors(tmp_path / "x.safetensors")
    lines = [line.rstrip() for line in narrow(fitted(groups_view(group(file.entries()))), 60).splitlines()]
    place = lines.index(name)
    assert lines[place + 1].split() == ["F32", "70x1024", "1", "71,680", "287", "kB"]
    assert lines[lines.index("b") + 1].split() == ["F32", "3", "1", "3", "12", "B"]
    assert all(len(line) <= 70 for line in lines)


def test_counts_read_as_sentences() -> None:
    node = {"kind": "treeEnsembleRegressor", "inputs": [], "outputs": [], "name": ""}
    out = narrow(model_tree(node | {"facts": {"trees": 1, "leaves": 1, "nodes": 6032, "revision": 1}}))
    assert "1 tree, 1 leaf, 6,032 nodes, revision 1" in out


def test_hashes(tlkit: Shell, weights: Path) -> None:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert f"{digest}  {weights}" in tlkit("inspect", weights, "--hash").out
    document = tlkit("inspect", weights, "--hash", "--json").json()
    assert document["hashes"]["files"] == {str(weights): digest} and len(document["hashes"]["weights"]) == 64


def test_trees(tlkit: Shell, weights: Path) -> None:
    assert "└── [0-2]" in tlkit("inspect", weights, "--tree").out


def test_a_diff_is_the_exit_code(tlkit: Shell, weights: Path, tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "same.pt")
    same = tlkit("inspect", weights, "--diff", tmp_path / "same.pt")
    assert same.code == 0 and "tensors: 4 the same" in same.out
    torch.save(STATE | {"layers.1.w": torch.ones(2, 3) * 1.5, "extra": torch.ones(1)}, tmp_path / "other.pt")
    other = tlkit("inspect", weights, "--diff", tmp_path / "other.pt")
    assert other.code == 1 and "layers.1.w" in other.out and "only in" in other.out
    document = tlkit("inspect", weights, "--diff", tmp_path / "other.pt", "--json")
    found = {item["name"]: item for item in document.json()["tensors"]}
    assert document.code == 1 and found["layers.1.w"]["max_abs"] == 0.5 and found["extra"]["status"] == "added"


def test_a_folder_is_a_table(tlkit: Shell, weights: Path) -> None:
    packages.linear(weights.parent / "net.mlpackage")
    outcome = tlkit("inspect", weights.parent)
    assert "CoreML" in rows(outcome.out)["net.mlpackage"] and "SafeTensors" in rows(outcome.out)["x.safetensors"]
    document = tlkit("inspect", weights.parent, "--json").json()
    assert [model["info"]["metadata"]["format"] for model in document["models"]] == ["CoreML", "SafeTensors"]


def test_a_folder_without_models_is_an_error(tlkit: Shell, tmp_path: Path) -> None:
    outcome = tlkit("inspect", tmp_path)
    assert outcome.code == 3 and "not a model package" in outcome.err


@pytest.mark.parametrize("index", range(len(tensor_files())))
@pytest.mark.parametrize("flags", [[], ["--json"], ["--weights"], ["--tree"], ["--ops"], ["--hash"]])
def test_every_kind_of_file_is_shown_every_way(tlkit: Shell, tmp_path: Path, index: int, flags: list[str]) -> None:
    (tmp_path / "x").write_bytes(tensor_files()[index])
    outcome = tlkit("inspect", tmp_path / "x", *flags)
    assert (outcome.code, outcome.err) == (0, "") and outcome.out
    if "--json" in flags:
        outcome.json()


def test_gguf_shows_what_its_users_look_for(tlkit: Shell, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(4096)
    writer.add_block_count(2)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_chat_template("{{ messages }}")
    kind = gguf.GGMLQuantizationType.Q8_0
    for layer in range(2):
        data = gguf.quants.quantize(np.ones((4, 64), np.float32), kind)
        writer.add_tensor(f"blk.{layer}.attn_q.weight", data, raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.ones(64, np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    found = rows(tlkit("inspect", tmp_path / "x.gguf").out)
    assert "GGUF · llama" in found["format"] and "Q8_0 weights (Q8_0 88.9 %, F32 11.1 %)" in found["precision"]
    assert "2 layers, 64 wide, 4 heads, 2 kv heads" in found["network"] and "4,096 tokens" in found["context"]
    assert "Q8_0: attn_q; F32: output_norm" in found["by"] and "gpt2, 2 tokens" in found["tokenizer"]
    assert "{{ messages }}" in found["chat"] and "at 2k" in found["memory"]


def test_a_module_names_what_loading_it_would_run(tlkit: Shell, tmp_path: Path) -> None:
    torch.save(Small(), tmp_path / "x.pt")
    out = tlkit("inspect", tmp_path / "x.pt").out
    assert "would import, and can run, tests.fuzz.tensor_seeds.Small" in out and "first.weight = tied.weight" in out


@needs_models
def test_pipelines_and_custom_layers_are_shown(tlkit: Shell) -> None:
    out = tlkit("inspect", MODELS / "mlmodel/blazeface_pipeline.mlmodel").out
    assert "nonMaximumSuppression" in out and "pixel x 0.00784314" in out
    out = tlkit("inspect", MODELS / "mlmodel/lstsq_custom_layer.mlmodel").out
    assert "custom layers: dneprDroid_lstsq" in " ".join(out.split())
    out = tlkit("inspect", MODELS / "mlmodel/s4tf_house_trainable_updatable.mlmodel").out
    assert "updatable layers: dense1, dense2, dense3" in out and "sgdOptimizer" in out


def test_run_says_that_weights_need_a_prompt(tlkit: Shell, weights: Path) -> None:
    outcome = tlkit("run", weights)
    assert outcome.code == 3 and "do not run by themselves" in outcome.err


def limited(command: list[str], megabytes: int) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes << 20, megabytes << 20))

    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=60)


HEADER = {"a": {"dtype": "F32", "shape": [1 << 28], "data_offsets": [0, 1 << 30]}}


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts private memory on Linux alone")
@pytest.mark.parametrize(
    "flags", [[], pytest.param(["--stats"], marks=pytest.mark.slow), pytest.param(["--hash"], marks=pytest.mark.slow)]
)
def test_a_gigabyte_takes_little_memory(tmp_path: Path, flags: list[str]) -> None:
    text = json.dumps(HEADER).encode()
    with (tmp_path / "x.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + (1 << 30))
    command = [sys.executable, "-m", "tlkit", "inspect", str(tmp_path / "x.safetensors"), "--json", *flags]
    done = limited(command, 300 if "--stats" in flags else 100)  # numpy's BLAS sets room aside for its threads
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"] == 1 << 28
