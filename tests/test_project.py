"""What holds for the project as a whole: its rooms, its dependencies, its version and what its documents promise."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

import tlkit
from tests import house

ROOMS = {"types": 0, "errors": 0, "words": 0, "models": 0, "_resnet": 0}
ROOMS |= {"host": 1, "ports": 1, "mil": 2, "formats": 3, "frontends": 4, "placement": 5, "engines": 5}
ROOMS |= {"core": 6, "fleet": 7, "cli": 8}
TOP = 9
"""What stands above the rooms: the package itself, which hands out names of all of them, and its entry points."""


def modules(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((root / "tlkit").rglob("*.py")):
        yield path.relative_to(root), ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import, inside functions too; ``from a import b`` is ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def floor(part: str) -> int:
    return ROOMS.get(part, TOP)


def test_a_room_imports_only_from_rooms_below(root: Path) -> None:
    wrong = []
    for path, tree in modules(root):
        here = floor(path.with_suffix("").parts[1])
        for line, name in imports(tree):
            package, _, rest = name.partition(".")
            # The package's own name and version are everybody's.
            if package == "tlkit" and rest not in ("", "__version__") and floor(rest.split(".")[0]) > here:
                wrong.append(f"{path}:{line} imports {name}")
    assert not wrong


def test_every_module_belongs_to_a_room(root: Path) -> None:
    found = {path.with_suffix("").parts[1] for path, _ in modules(root)}
    assert found - set(ROOMS) == {"__init__", "__main__", "anywhere"}


DOCS = ("architecture", "ci", "contributing", "convert", "costs", "fidelity", "formats", "security")


def test_no_folder_is_crowded(root: Path) -> None:
    assert not house.crowded(root)


def test_imports_go_in_no_circle(root: Path) -> None:
    """Neither files nor folders import each other, lazily or not."""
    found = house.circles(house.file_graph(root)) + house.circles(house.folder_graph(root))
    assert not sorted({tuple(circle) for circle in found})


def test_private_modules_are_their_folders_own(root: Path) -> None:
    assert not house.private_imports(root)


def test_a_class_name_means_one_thing(root: Path) -> None:
    assert {name: paths for name, paths in house.classes(root).items() if len(paths) > 1} == {}


def test_every_module_has_a_test(root: Path) -> None:
    """One of its name, or one whose head says that it covers it (``covers tlkit/…``)."""
    assert not house.untested(root)


def test_no_function_is_long(root: Path) -> None:
    assert not house.long_functions(root)


LATE = {
    "tlkit/cli/": "a command's module is imported for its --help and for completion; what it does comes when it runs",
    "tlkit/anywhere.py": "it stands in for coremltools' runtime, and is imported with it whether anything runs or not",
    "tlkit/core/inspect/": "inspect reads only what it was asked for",
    "tlkit/core/model/load.py": "tlkit.load_model is there at once; the readers of formats come with the first file",
    "tlkit/core/model/opened.py": "as load.py",
    "tlkit/core/convert/door.py": "one door to three makers, of which a call needs one",
    "tlkit/core/bench/subject.py": "what a measured process imports is part of what is measured",
    "tlkit/core/weights/files.py": "one writer per format, of which a call needs one",
    "tlkit/formats/fetch.py": "inspect asks whether a model is an address, and nearly none is",
    "tlkit/formats/describe.py": "one reader per format, of which a file needs one",
}
"""Where imports inside functions need no comment of their own, and why."""


def test_imports_are_late_only_where_that_spares_something(root: Path) -> None:
    """Elsewhere an import inside a function keeps a heavy package away, or a comment beside it says why."""
    assert all((root / path).exists() for path in LATE)
    assert not house.late_imports(root, LATE)


ELSE_CALLED = {"llama_cpp": "llama-cpp-python"}
"""Modules by distributions that tests do not install."""


def test_dependencies_are_what_is_imported(root: Path) -> None:
    """Each package that tlkit imports is declared, and each that is declared is imported."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines]
    declared, optional = (
        {re.split(r"[<>=!~;\[ ]", line)[0].lower() for line in lines} for lines in (project["dependencies"], extras)
    )
    # A PyTorch build for accelerators brings triton, and torch.compile's own dependencies are torch's affair.
    known = packages_distributions()
    imported = set()
    for path, tree in modules(root):
        for line, name in imports(tree):
            package = name.split(".")[0]
            if package in sys.stdlib_module_names or package in ("tlkit", "triton"):
                continue
            package = "google.protobuf" if name.startswith("google.protobuf") else package
            package = ELSE_CALLED.get(package, package)
            names = {"protobuf"} if package == "google.protobuf" else {n.lower() for n in known.get(package, [package])}
            assert names & (declared | optional), f"{path}:{line} imports {name}, which pyproject.toml does not declare"
            imported |= names & declared
    assert imported == declared


def test_numpy_stays_below_what_coremltools_fails_with(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert any(re.fullmatch(r"numpy>=2.*,<2\.4", line) for line in project["dependencies"])
    assert tuple(map(int, version("numpy").split(".")[:2])) < (2, 4)


def test_version_is_one(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["version"] == tlkit.__version__
    assert f"## {tlkit.__version__}" in (root / "CHANGELOG.md").read_text()


def test_python_m_tlkit_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "tlkit", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tlkit", tlkit.__version__]


def test_ci_runs_make_test(root: Path) -> None:
    assert os.access(root / ".ci/run", os.X_OK)
    assert (root / ".ci/run").read_text().rstrip().endswith("make test")


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{name}.md" for name in DOCS), "CHANGELOG.md"])
def test_links_lead_somewhere(root: Path, name: str) -> None:
    page = root / name
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text())
    gone = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not gone


def test_architecture_names_every_room(root: Path) -> None:
    text = (root / "docs/architecture.md").read_text()
    rooms = [path.name for path in (root / "tlkit").iterdir() if path.is_dir() and (path / "__init__.py").exists()]
    assert rooms
    assert not [room for room in rooms if f"{room}/" not in text]


@pytest.mark.parametrize("name", DOCS)
def test_files_that_a_page_names_are_there(root: Path, name: str) -> None:
    text = (root / f"docs/{name}.md").read_text()
    named = re.findall(r"`((?:tlkit|tests)/[\w/]+\.(?:py|toml))`", text)
    assert named or name in ("ci", "convert", "fidelity", "formats")
    assert not [path for path in named if "NAME" not in path and not (root / path).exists()]


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The tlkit commands of a page's console blocks: (subcommand, flags)."""
    for block in re.findall(r"```(?:console|sh)\n(.*?)```", text, flags=re.DOTALL):
        for line in re.findall(r"^\$ tlkit (.+)$", block.replace("\\\n", " "), flags=re.MULTILINE):
            words = re.split(r" [|>] ", line)[0].split()
            yield words[0], [word.split("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)]


def test_readme_commands_exist(root: Path) -> None:
    """Every subcommand and flag that README shows is one the command line has."""
    shown = list(commands((root / "README.md").read_text()))
    assert {"convert", "inspect", "run", "bench"} <= {name for name, _ in shown}
    reference = (root / "docs/cli.md").read_text()
    for name, flags in shown:
        section = re.search(rf"^## `tlkit {name}`\n(.*?)(?=^## |\Z)", reference, flags=re.DOTALL | re.MULTILINE)
        assert section, f"no subcommand {name}"
        for flag in flags:
            assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", section[1]), f"tlkit {name} has no {flag}"


def test_reference_is_what_help_says(root: Path, tmp_path: Path) -> None:
    """docs/cli.md is what `make docs` writes with the typer of constraints.txt; another one words help differently."""
    if f"typer=={version('typer')}" not in (root / "constraints.txt").read_text().split():
        pytest.skip("written with another typer")
    fresh = tmp_path / "cli.md"
    subprocess.run([sys.executable, root / "docs/make_cli.py", fresh], check=True)
    assert (root / "docs/cli.md").read_text() == fresh.read_text(), "run `make docs`"
