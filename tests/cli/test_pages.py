"""Every page in a real browser: on a screen, on a telephone, in the dark. Nothing runs over, overlaps or is too small.

Covers tlkit/cli/sink/template.py.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.test_bench_paper import full
from tests.formats import packages
from tlkit.cli.sink.template import Bar, Cell, Table, chart, render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
NEEDS_BROWSER = pytest.mark.skipif(BROWSER is None, reason="no Chromium here to look with")

LONG = "a_very_long_name_of_an_operation_that_nobody_would_type/" * 3
LOOK = """
const seen = frame.contentDocument, view = frame.contentWindow, found = [];
const whole = seen.documentElement.scrollWidth;
if (whole > view.innerWidth) found.push("wider than the screen: " + whole);
const boxes = [];
const walker = seen.createTreeWalker(seen.body, NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const parent = node.parentElement;
  if (!node.data.trim() || /SCRIPT|STYLE|TITLE|OPTION/i.test(parent.tagName)) continue;
  const range = seen.createRange(); range.selectNodeContents(node);
  const box = range.getBoundingClientRect();
  if (!box.width) continue;
  const svg = parent.closest("svg");
  const scale = svg && svg.viewBox.baseVal.width ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
  const size = parseFloat(view.getComputedStyle(parent).fontSize) * scale;
  if (size < 9) found.push(`${size.toFixed(1)} px: ${node.data.trim().slice(0, 40)}`);
  const cut = box.left < -1 || box.right > view.innerWidth + 1;
  if (cut && !parent.closest(".wide")) found.push("cut: " + node.data.trim().slice(0, 40));
  if (svg) {
    const room = svg.getBoundingClientRect();
    const [left, right] = [room.left - box.left, box.right - room.right];
    const [top, bottom] = [room.top - box.top, box.bottom - room.bottom];
    if (Math.max(left, right) > 1 || Math.max(top, bottom) > 2) found.push("outside its chart: " + node.data);
  }
  for (const line of range.getClientRects()) boxes.push([line, node.data.trim().slice(0, 30)]);  // a box a line
}
for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
  const [a, b] = [boxes[i][0], boxes[j][0]];
  const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  if (across > 2 && down > 4) found.push(`${boxes[i][1]} over ${boxes[j][1]}`);
}
const colour = view.getComputedStyle(seen.body).backgroundColor;
document.body.textContent = JSON.stringify({found, texts: boxes.length, colour});
"""


def look(page: str, width: int, folder: Path, dark: bool = False) -> dict[str, object]:
    """Show ``page`` in a frame ``width`` pixels wide; return what is wrong with it, its number of texts, its paper."""
    frame = f'<iframe id="frame" style="width:{width}px;height:3000px;border:0" srcdoc="{html.escape(page)}"></iframe>'
    script = f'<script>const frame = document.getElementById("frame"); frame.onload = () => {{ {LOOK} }}</script>'
    (folder / "looked.html").write_text(f'<!doctype html><meta charset="utf-8"><body>{frame}{script}')
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--window-size=1400,1000"]
    command += ["--virtual-time-budget=4000", "--dump-dom", (folder / "looked.html").as_uri()]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    (told,) = re.findall(r"<body>(\{.*\})</body>", done.stdout, re.DOTALL)
    return dict(json.loads(html.unescape(told)))


def bench_page(_: Path) -> str:
    return full(4)


def placement_page(folder: Path) -> str:
    from tlkit.cli.views.placement_page import placement_page as page
    from tlkit.core.inspect.inspect import inspect

    found = inspect(packages.linear(folder / "net.mlpackage"), placement=True)
    return page(LONG, found.placement or ())


def compare_page(folder: Path) -> str:
    from tlkit.cli.views.judge.compare_page import page
    from tlkit.core.judge.compare import compare

    found = compare(packages.linear(folder / "net.mlpackage"), None, precision="f32,f16")
    return page(replace(found, a=LONG, notes=(f"{LONG} & <b>",)))


def made_page(_: Path) -> str:
    """The page of a search."""
    from tlkit.cli.views import svg

    points = [(0.5 + step / 9, 20.0 + 3 * step, "" if step % 3 else f"int{step}") for step in range(9)]
    table = Table([LONG[:20], "size", "why"], [[LONG, "12.5", Cell(LONG, "why")], ["x", Cell("1 of 2", "poor", 2)]])
    return render(
        "compressed.html", title="t", source=LONG, target="--max-size 5MB", verdict="met", kind="good", remarks=[LONG],
        frontier=chart(svg.curve(points, ("size in MB", "dB"), 4)), candidates=table, sensitivity=table,
    )  # fmt: skip


def fleet_page(_: Path) -> str:
    from tests.cli.views.fleet.test_formats import fleet
    from tlkit.cli.views.fleet.page import page

    return page(LONG, fleet(), Path("zoo.journal"))


PAGES = {
    "bench": bench_page,
    "placement": placement_page,
    "compare": compare_page,
    "compressed": made_page,
    "fleet": fleet_page,
}


@NEEDS_BROWSER
@pytest.mark.parametrize("name", ["bench", *(pytest.param(name, marks=pytest.mark.slow) for name in list(PAGES)[1:])])
def test_nothing_runs_over_overlaps_or_is_too_small(name: str, tmp_path: Path) -> None:
    make: Callable[[Path], str] = PAGES[name]
    page = make(tmp_path)
    wide, narrow = look(page, 1280, tmp_path), look(page, 390, tmp_path, dark=True)
    assert (wide["found"], narrow["found"]) == ([], [])
    assert int(str(wide["texts"])) >= 15
    assert (wide["colour"], narrow["colour"]) == ("rgb(255, 255, 255)", "rgb(20, 23, 26)")


@NEEDS_BROWSER
@pytest.mark.slow
def test_a_graph_of_5000_operations_is_drawn_readably(tmp_path: Path) -> None:
    from tlkit.cli.views.graph.page import graph_page
    from tlkit.core.inspect.costs import Cost, Port
    from tlkit.core.inspect.graph import program_graph

    ports = [(Port(f"b{at}", "float16", (1, 64)),) for at in range(5000)]
    ops = [
        Cost("main", f"b{at}", "relu", f"layers.{at // 50}.mlp", ports[at - 1] if at else (), ports[at], 3, 6, None, 4)
        for at in range(5000)
    ]
    written = tmp_path / "graph.html"
    written.write_text(graph_page("net", program_graph(ops)))
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=1300,900", "--virtual-time-budget=9000", "--dump-dom", written.as_uri()]
    drawn = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    groups = re.findall(r'class="node group[^>]*>.*?([0-9]+) operations', drawn)
    assert 1 < len(groups) <= 50 and sum(map(int, groups)) == 5000  # closed groups, which together hold all
    (area,) = re.findall(r'<svg id="view"[^>]*viewBox="([^"]+)"', drawn)
    assert 900 < float(area.split()[2]) < 1500  # about a pixel a unit: letters as large as they were meant


@NEEDS_BROWSER
@pytest.mark.slow
def test_the_look_sees_what_is_wrong(tmp_path: Path) -> None:
    texts = '<text x="0" y="20">small</text><text x="4" y="20">over</text>'
    bad = f'<svg viewBox="0 0 400 40" style="width:100px">{texts}</svg>'
    found = look(f"<body>{bad}<p style='width:900px'>x</p>", 390, tmp_path)["found"]
    told = " ".join(map(str, found))  # type: ignore[call-overload]
    assert "wider than the screen" in told and "px: small" in told and "small over over" in told


def test_strings_are_text_and_charts_are_charts() -> None:
    table = Table(["<i>"], [["<b>\u202e", Cell('"><script>', 'x" onclick="y')]])
    page = render(
        "compressed.html", title="</title>", source="<s>", target="", verdict="", kind="", remarks=["{{ 1 }}"],
        frontier=chart("<svg/>"), candidates=table, sensitivity=table,
    )  # fmt: skip
    assert "<svg/>" in page and "{{ 1 }}" in page
    for text in ("<b>", "<s>", "<i>", "<script>", 'onclick="y', "\u202e", "</title></"):
        assert text not in page
    assert "&lt;b&gt;\ufffd" in page


def test_a_bar_is_as_long_as_its_share() -> None:
    from tlkit.cli.sink.template import _environment

    bars = _environment().get_template("parts.html").module.bars([Bar("a", 1.0, "x"), Bar("b", 4.0, "y")])  # type: ignore[attr-defined]
    assert re.findall(r"width:([0-9.]+)%", bars) == ["18.75", "75.00"]
