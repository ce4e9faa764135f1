"""The Python API is the command line: each command's parameters are its function's, but for what is said here.

Covers tlkit/core/convert/door.py, tlkit/core/inspect/inspect.py.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

import tlkit
from tests.formats import packages

SHOWN = {"json", "quiet", "verbose", "offline"}
"""How an answer is printed and whether addresses are asked, which is a command's affair."""
VIEWS = {
    # Of an inspection these are always there, as attributes; the flags choose what is printed.
    "inspect": {
        "depth",
        "force",
        "graph",
        "html",
        "mil",
        "ops",
        "patterns",
        "per_op",
        "risks",
        "rules",
        "tree",
        "weights",
        # Many models side by side: `tlkit.fleet`.
        "cluster",
        "jobs",
    },
    "run": {
        "top",
        # Many inputs side by side, and files of what comes out: the same.
        *("cluster", "jobs", "part", "rows"),
        # Many inferences and their labels: `tlkit.accuracy`.
        *("labels", "classes", "calibration", "min_top1", "ports", "images"),
        # Text streamed to a terminal; `core/language/answer.py` answers, judges and embeds without the command.
        *("prompt", "prompt_file", "chat", "system", "perplexity", "embed", "context", "max_tokens", "stop"),
        *("temperature", "top_k", "top_p", "min_p", "repeat_penalty"),
    },
    "bench": {
        # How a run is printed.
        *("top", "format"),
        # Files that hold what was printed: the function returns the run, `--report` is the command's own page.
        *("save", "report", "force"),
        # Print runs that were saved, or predictions (`core/bench/estimate.py`), and measure nothing.
        *("show", "since", "estimate", "chip"),
        # Language models: `core/bench/language/measure.py` measures them.
        *("prompt_tokens", "gen"),
        # Limits whose answer is the exit code; `core/bench/gate.py` judges a run that the function returned.
        *("baseline", "max_regression", "max_latency", "at", "max_memory", "max_load"),
    },
    "convert": set(),
    # Pages are the commands' own, and `--find-nan` is `tlkit.find_nan`.
    "edit": {"report"},
    "compare": {"report", "find_nan"},
    "doctor": set(),
}
RENAMED = {"model": "path", "models": "model", "units": "unit", "output_path": "output"}
HEARD = {"report", "note", "progress"}
"""What a program hears while a command draws a bar and prints notes."""


@pytest.mark.parametrize("name", VIEWS)
def test_parameters_are_the_commands(name: str) -> None:
    command = set(signature(getattr(import_module(f"tlkit.cli.{name}"), name)).parameters) - SHOWN - VIEWS[name]
    function = set(signature(getattr(tlkit, name)).parameters) - HEARD
    assert {RENAMED.get(word, word) if word not in function else word for word in command} == function


def test_an_inspection_is_a_description_and_more(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    found = tlkit.inspect(path, stats=True, hashes=True, placement=True, units=("ane", "cpu"), diff=path)
    assert isinstance(found, tlkit.ModelInfo)
    assert found.metadata.format == "CoreML"
    assert {entry.name for entry in found.entries} == {row.name for row in found.stats or ()}
    assert found.program and {row["type"] for row in found.program} == set(found.operations)
    assert found.hashes is not None and len(found.hashes["files"]) >= 2
    assert [str(item.setting) for item in found.placement or ()] == ["ane", "cpu"]
    assert found.difference is not None and found.difference.same
    plain = tlkit.inspect(path)
    assert (plain.stats, plain.hashes, plain.placement, plain.difference) == (None, None, None, None)


def test_convert_is_one_door(tmp_path: Path) -> None:
    """What `tlkit convert` does by the output's name, `tlkit.convert` does."""
    package = packages.linear(tmp_path / "net.mlpackage")
    made = tlkit.convert(package, tmp_path / "net.safetensors")
    assert isinstance(made, tlkit.WeightsResult) and made.tensors == len(tlkit.inspect(package).entries)
    back = tlkit.convert(tmp_path / "net.safetensors", tmp_path / "net.gguf", dtype="f16")
    assert isinstance(back, tlkit.WeightsResult) and back.format == "GGUF"


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("a.gguf", {"inputs": ["x=1x4"]}, "--input is for packages, not for a.gguf"),
        ("a.onnx", {"classes": ["a", "b"]}, "--classes is for packages, not for a.onnx"),
        ("a.onnx", {"functions": ["one", "two"]}, "a.onnx holds one function"),
        ("a.mlpackage", {"dtype": "f16"}, "--dtype is for files of weights, not for a.mlpackage"),
        ("a.mlpackage", {"strip_prefix": "model."}, "--strip-prefix is for files of weights, not for a.mlpackage"),
    ],
)
def test_options_without_a_use_are_refused(output: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(tlkit.UsageError, match=message):
        tlkit.convert("net.py:Net", output, **options)


def test_what_a_prompt_and_a_notebook_show_is_short_and_true(tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "<net>.mlpackage")
    model = tlkit.load_model(path)
    for shown in (tlkit.inspect(path), model, tlkit.run(path)):
        text, page = repr(shown), shown._repr_html_()
        assert text.startswith(f"<{type(shown).__name__}: model ") and len(text) < 1000 and "\n" not in text
        assert "&lt;net&gt;.mlpackage" in page and "<net>" not in page
    assert "image" in repr(model) and "cpu" in repr(model) and "15 parameters" not in repr(model)
    assert "parameters 15" in repr(tlkit.inspect(path))


def test_a_description_is_plain_data(tmp_path: Path) -> None:
    import json

    found = tlkit.inspect(packages.classifier(tmp_path / "net.mlpackage")).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["inputs"][0]["image"]["layout"] == "GRAYSCALE" and "intake" not in found["inputs"][0]


def test_an_error_s_text_keeps_its_hint() -> None:
    import pickle

    with pytest.raises(tlkit.UsageError) as caught:
        tlkit.Unit.parse("tpu")
    assert str(caught.value) == f"{caught.value.message}\n{caught.value.hint}" and "units are" in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.message, again.hint) == (caught.value.message, caught.value.hint)
    assert "units are" in caught.value._repr_html_()
