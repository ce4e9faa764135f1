"""The page and the picture of a program's graph, and the command that writes them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.commands import Shell
from tests.formats import packages
from tlkit.cli.views.graph.page import DRAWN, graph_dot, graph_page, graph_svg
from tlkit.core.inspect.costs import Cost, Port
from tlkit.core.inspect.graph import program_graph
from tlkit.errors import UnavailableError, UsageError

HOSTILE = '</script><b>&"\\{{DATA}}\u202e'


def op(name: str, reads: str = "") -> Cost:
    ports = (Port(reads, "float16", (1, None)),) if reads else ()
    return Cost("main", name, "relu", "a.b", ports, (Port(name, "float16", (1, None)),), 3, 6, None, 4)


def data(page: str) -> dict[str, list[object]]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return dict(json.loads(found))


def test_the_page_holds_the_graph_and_asks_for_nothing() -> None:
    page = graph_page("net", program_graph([op("x"), op("y", "x")], {"y": "ane"}))
    found = data(page)
    assert found["operations"] == [
        ["x", "relu", "a.b", "", "x float16 1x?", 3, None, 4, ""],
        ["y", "relu", "a.b", "x float16 1x?", "y float16 1x?", 3, None, 4, "ane"],
    ]
    assert found["edges"] == [[0, 1, "float16 1x?"]] and found["groups"] == [["a.b", -1, 2]]
    assert not re.findall(r"(?:src|href)=|@import|url\(http", page) and "predicted, not measured" in page


def test_names_are_text() -> None:
    page = graph_page(HOSTILE, program_graph([op(HOSTILE)]))
    assert page.count("</script>") == 3 and "<b>" not in page and "\u202e" not in page
    assert str(data(page)["operations"][0]).startswith("['</script><b>&")
    dot = graph_dot(program_graph([op(HOSTILE)]))
    assert '\\"' in dot and dot.count("\n") == len([*dot.splitlines()]) - 1


def test_a_picture_needs_graphviz_and_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="Graphviz") as caught:
        graph_svg("net", program_graph([op("x")]))
    assert "graphviz" in caught.value.hint
    with pytest.raises(UsageError, match="do not fit a picture"):
        graph_svg("net", program_graph([op(f"x{at}") for at in range(DRAWN + 1)]))


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz")
def test_the_picture_is_graphvizs() -> None:
    assert graph_svg("net", program_graph([op("x"), op("y", "x")])).count('<g id="node') == 2


def test_the_command_writes_it(tlkit: Shell, tmp_path: Path) -> None:
    package, goal = packages.linear(tmp_path / "net.mlpackage"), tmp_path / "net.html"
    done = tlkit("inspect", package, "--graph", goal)
    assert done.code == 0 and f"is in {goal}" in done.err and data(goal.read_text())["operations"]
    assert tlkit("inspect", package, "--graph", goal).code == 2, "it exists"
    assert tlkit("inspect", package, "--graph", goal, "--force", "--placement").code == 0
    assert {row[8] for row in data(goal.read_text())["operations"]} & {"cpu", "ane"}  # type: ignore[index]
    assert tlkit("inspect", package, "--graph", tmp_path / "net.png").code == 2
    assert tlkit("inspect", package, "--graph", tmp_path / "a.html", "--stats").code == 2
    weights = Path(__file__).parents[4] / "fixtures" / "digits.safetensors"
    assert tlkit("inspect", weights, "--graph", tmp_path / "b.html").code == 2 and not (tmp_path / "b.html").exists()


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_the_scripts_are_javascript() -> None:
    folder = Path(__file__).parents[4] / "tlkit/cli/views/graph/data"
    for name in ("graph.js", "dagre.min.js"):
        assert subprocess.run(["node", "--check", str(folder / name)]).returncode == 0
