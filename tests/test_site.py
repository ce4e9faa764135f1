"""The documentation's site and the release: built without a broken link, and each promise of docs/releasing.md.

Covers docs/make_python.py, docs/run_tutorial.py, docs/run_recipe.py, docs/site_recipes.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import tlkit
from docs import make_python, run_tutorial, site_recipes
from tests.shown.pages import agrees

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "docs" / "recipes").glob("*.ipynb"))


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    assert page == make_python.page(), "run `make docs`"
    assert re.findall(r"^### `(\w+)`$", page, re.MULTILINE) and set(tlkit.__all__) == set(
        re.findall(r"^### `(\w+)`$", page, re.MULTILINE)
    )


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert listed == pages | {f"recipes/{path.stem}.md" for path in RECIPES}


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == tlkit.__version__
    assert f"## {tlkit.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_a_tutorial_s_steps_are_files_and_commands() -> None:
    page = '```python title="a.py"\nx = 1\n```\n```sh\nnot this\n```\n'
    page += "```console\n$ tlkit a \\\n    b\nanswer\n$ tlkit c\n```\n"
    assert list(run_tutorial.steps(page)) == [("a.py", "x = 1\n"), ("", "tlkit a     b"), ("", "tlkit c")]
    assert sum(not name for name, _ in run_tutorial.steps(run_tutorial.PAGE.read_text())) >= 10


def test_a_recipe_s_cells_run_in_order_in_one_space(tmp_path: Path) -> None:
    def cell(*lines: str) -> dict[str, Any]:
        return {"cell_type": "code", "source": "\n".join(lines).splitlines(keepends=True)}

    texts = [
        cell("%%writefile mine.py", "VALUE = 3"),
        {"cell_type": "markdown", "source": ["no code"]},
        cell("import mine", "x = mine.VALUE", 'print("first")', "x + 1"),
        cell("!cat mine.py", "!echo more"),
        cell("x = None", "x"),
    ]
    place = tmp_path / "a.ipynb"
    place.write_text(json.dumps({"cells": texts}))
    command = [sys.executable, str(ROOT / "docs" / "run_recipe.py"), str(place), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    cells = json.loads(place.read_text())["cells"]
    told = [[site_recipes.text_of(output) for output in item["outputs"]] for item in cells if "outputs" in item]
    assert told == [[], ["first\n", "4"], ["VALUE = 3\nmore\n"], []]
    page = site_recipes.page(place)
    assert '```python title="mine.py"\nVALUE = 3\n```' in page and "```console\n$ cat mine.py\n$ echo more\n```" in page
    assert "no code\n" in page and "```text\n4\n```" in page
    place.write_text(json.dumps({"cells": [cell("!false"), cell('open("late", "w")')]}))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    assert not (tmp_path / "late").exists() and "outputs" not in place.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_prints_what_it_shows(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    command = [sys.executable, str(ROOT / "docs" / "run_recipe.py"), str(copy), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = [json.loads(file.read_text())["cells"] for file in (path, copy)]
    for before, after in zip(*cells, strict=True):
        shown, printed = ("".join(map(site_recipes.text_of, item.get("outputs", ()))) for item in (before, after))
        assert not agrees(shown, printed), "".join(before["source"])


@pytest.mark.slow
def test_the_site_has_no_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path / "site") for path in (tmp_path / "site").rglob("index.html")}
    assert Path("tutorial/index.html") in pages and Path("python/index.html") in pages
    for recipe in RECIPES:  # its page, and the notebook that the page links to
        assert Path(f"recipes/{recipe.stem}/index.html") in pages
        assert (tmp_path / "site" / "recipes" / recipe.name).is_file()
    for page in pages:  # nothing is fetched to show a page
        text = (tmp_path / "site" / page).read_text()
        assert not re.findall(r'<(?:script|img)[^>]* src="https?:|<link[^>]*stylesheet[^>]* href="https?:', text)


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, str(ROOT / "docs" / "run_tutorial.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    sizes = [
        sum(file.stat().st_size for file in (tmp_path / f"{name}.mlpackage").rglob("weight.bin"))
        for name in ("net", "small")
    ]
    assert sizes[1] < 0.45 * sizes[0]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the action's steps are bash")
def test_the_action_s_steps_verify_and_measure(tmp_path: Path) -> None:
    """As GitHub runs them, as far as that goes without GitHub."""
    yaml = pytest.importorskip("yaml")
    action = yaml.safe_load((ROOT / "action" / "action.yml").read_text())
    steps = {step["name"]: step for step in action["runs"]["steps"]}
    (tmp_path / "net.py").write_text(
        "import torch\ndef net():\n    torch.manual_seed(0)\n    return torch.nn.Sequential(torch.nn.Linear(8, 8))\n"
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    summary = tmp_path / "summary.md"
    base = os.environ | {"PATH": path, "RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": str(summary)}
    made = ["tlkit", "convert", "net.py:net", "--input", "x=1x8", "-o", "net.mlpackage"]
    assert subprocess.run(made, cwd=tmp_path, env=base, capture_output=True).returncode == 0

    def step(name: str, **inputs: str) -> int:
        given = {"MODEL": "net.mlpackage", "SOURCE": "", "BASELINE": "", "ARGS": "", "INSTALL": "tlkit"} | inputs
        command = ["bash", "-e", "-o", "pipefail", "-c", steps[name]["run"]]
        return subprocess.run(command, cwd=tmp_path, env=base | given, capture_output=True).returncode

    assert step("install") == 0 and step("verify") == 0
    assert step("verify", SOURCE="net.py:net") == 0
    assert step("verify", SOURCE="net.py:net", ARGS="--min-snr 500") == 1
    quick = "--units cpu -n 10 --processes 2"
    assert step("measure", BASELINE="net.mlpackage", ARGS=quick) == 0 and "net" in summary.read_text()
    assert step("measure", ARGS=f"{quick} --max-latency 1ns") == 1
    # Whoever posts it is GitHub's; what is posted has the verdict and the table.
    (tmp_path / "gh").write_text('#!/usr/bin/env bash\ncp "${@: -1}" posted.md\n')
    (tmp_path / "gh").chmod(0o755)
    base["PATH"] = os.pathsep.join([str(tmp_path), path])
    assert step("comment", NUMBER="7") == 0
    posted = (tmp_path / "posted.md").read_text()
    assert posted.startswith("```text\n") and "verdict" in posted and "| row | median |" in posted
    assert set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action" / "action.yml").read_text())) == set(action["inputs"])
