"""``tlkit run`` on language models: what goes to stdout and what to stderr, and the options that exclude each other.

Covers tlkit/cli/options/language.py.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.commands import Shell
from tests.formats.gguf.model.folders import build
from tlkit import convert_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    convert_weights(build(folder / "folder", "llama31"), folder / "model.gguf")
    return folder / "model.gguf"


def test_stdout_carries_the_text_and_stderr_the_rates(tlkit: Shell, model: Path) -> None:
    outcome = tlkit("run", model, "--prompt", "The fox", "--max-tokens", 6)
    told = tlkit("run", model, "--prompt", "The fox", "--max-tokens", 6, "--json").json()
    assert outcome.code == 0
    assert outcome.out == told["text"] + "\n"
    assert "generated: 6 tokens" in outcome.err
    assert (told["stopped"], len(told["tokens"]), told["prompt_tokens"][0]) == ("limit", 6, 1)
    assert told["tokens_per_second"] > 0


def test_a_stop_text_and_a_file(tlkit: Shell, model: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("The fox")
    whole = tlkit("run", model, "--prompt", "The fox", "--max-tokens", 12, "--json").json()["text"]
    given = ("--prompt-file", tmp_path / "prompt.txt", "--max-tokens", 12, "--stop", whole[3:5])
    found = tlkit("run", model, *given, "--json").json()
    assert (found["text"], found["stopped"]) == (whole[: whole.index(whole[3:5])], "stop")


def test_lines_of_stdin_are_turns(tlkit: Shell, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\ntwo\n"))
    outcome = tlkit("run", model, "--chat", "--max-tokens", 3, "--json")
    assert [json.loads(line)["prompt"] for line in outcome.out.splitlines()] == ["one", "two"]


def test_perplexity(tlkit: Shell, model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The quick brown fox jumps. " * 8)
    found = tlkit("run", model, "--perplexity", tmp_path / "text.txt", "--context", 32, "--json").json()["result"]
    assert found["perplexity"] > 1
    assert found["tokens"] == found["windows"] * 15


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompt", "a", "--prompt-file", "b"), "two prompts"),
        (("--embed",), "needs a text"),
        (("--prompt", "a", "--embed"), "is a decoder"),
        (("--prompt", "a", "--system", "b"), "add --chat"),
        (("--prompt", "a", "--max-tokens", 0), "at least 1"),
        (("--prompt", "a", "--context", 1000), "1 to 128 tokens"),
        (("--prompt", "a", "--top-p", 2), "give a number above 0 and up to 1"),
        (("--prompt-file", "nowhere.txt"), "nowhere.txt"),
        (("--prompt", "a", "--engine", "onnxruntime"), "--engine onnxruntime: not for language models"),
        (("--prompt", "a", "--units", "dsp"), "unknown unit 'dsp'"),
        (("--embed", "--prompt", "a", "--units", "gpu"), "--units has no effect on --embed"),
        (("--prompt", "a", "--precision", "bf16"), "--precision does not apply"),
        (("--prompt", "a", "--input", "x=1"), "--input does not apply"),
        (("--prompt", "a", "--save-outputs", "x.npz"), "--save-outputs does not apply"),
        (("--perplexity", "a", "--top-k", 3), "--top-k has no effect on --perplexity"),
        (("--embed", "--prompt", "a", "--context", 9), "--context has no effect on --embed"),
        (("--temperature", 1), "--temperature is for language models"),
    ],
)
def test_what_makes_no_sense_is_refused(tlkit: Shell, model: Path, words: tuple[object, ...], said: str) -> None:
    outcome = tlkit("run", model, *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert len(outcome.err.splitlines()) == 2


def test_a_package_is_made_and_run(tlkit: Shell, tmp_path: Path) -> None:
    folder, file, goal = build(tmp_path / "folder", "llama31"), tmp_path / "model.gguf", tmp_path / "m.mlpackage"
    convert_weights(folder, file)
    made = tlkit("convert", file, "-o", goal, "--context", 32, "--json").json()
    assert (made["ok"], made["package"]["same"]) == (True, made["package"]["compared"])
    assert made["package"]["compared"] > 0
    said = tlkit("run", goal, "--prompt", "The fox", "--max-tokens", 4).out
    assert said == tlkit("run", file, "--prompt", "The fox", "--max-tokens", 4).out
    for words, told in (
        (("convert", file, "-o", tmp_path / "n.mlpackage", "--context", 999), "1 to 128"),
        (("convert", "resnet50", "-o", tmp_path / "n.mlpackage", "--context", 9), "language models"),
        (("convert", file, "-o", tmp_path / "n.mlpackage", "--input", "x=1"), "does not apply"),
        (("run", goal, "--prompt", "x", "--context", 99), "made for 32"),
    ):
        outcome = tlkit(*words)
        assert (outcome.code, outcome.out) == (2, "")
        assert told in outcome.err


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_said(tlkit: Shell, model: Path) -> None:
    outcome = tlkit("run", model, "--prompt", "a", "--units", "gpu")
    assert (outcome.code, outcome.out) == (3, "")
    assert "no GPU that PyTorch can use" in outcome.err


def test_stdin_is_not_the_model_and_the_text() -> None:
    command = [sys.executable, "-m", "tlkit", "run", "-", "--prompt-file", "-"]
    ran = subprocess.run(command, input="GGUF", capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 2 and "stdin is the model already" in ran.stderr


def test_a_seed_is_no_negative_number(tlkit: Shell, model: Path) -> None:
    outcome = tlkit("run", model, "--prompt", "a", "--seed", -1)
    assert outcome.code == 2 and "-1 is not in the range" in outcome.err


def test_a_prompt_of_stdin_is_one_of_the_command_line(
    tlkit: Shell, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"The fox\n")))
    piped = tlkit("run", model, "--prompt-file", "-", "--max-tokens", 4, "--json").json()
    given = tlkit("run", model, "--prompt", "The fox", "--max-tokens", 4, "--json").json()
    assert (piped["prompt"], piped["tokens"]) == ("The fox", given["tokens"])


def test_a_reader_that_goes_away_ends_the_answer(model: Path) -> None:
    command = [sys.executable, "-m", "tlkit", "run", model, "--prompt", "The fox", "--max-tokens", "120"]
    ran = subprocess.Popen([*map(str, command), "--engine", "eager"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert ran.stdout is not None and ran.stderr is not None
    ran.stdout.close()
    assert b"generated" not in ran.stderr.read()
    assert ran.wait() == 0


def test_where_a_package_would_run_is_told_before_it_is_written(tlkit: Shell, model: Path) -> None:
    wanted = ("convert", model, "--plan", "--precision", "f16", "--weights", "int8", "--context", 16, "--prefill", 1)
    (found,) = tlkit(*wanted, "--json").json()["placement"]
    assert found["setting"] == "ane" and found["operations"] == sum(found["counts"].values()) > 50


def test_a_package_is_for_systems_with_states(tlkit: Shell, model: Path, tmp_path: Path) -> None:
    outcome = tlkit("convert", model, "-o", tmp_path / "m.mlpackage", "--target", "iOS16")
    assert (outcome.code, list(tmp_path.iterdir())) == (2, [])
    assert "the model has states, which iOS16 does not have" in outcome.err
