"""Run a notebook's cells as Jupyter would, without Jupyter: ``python docs/run_recipe.py NOTEBOOK [FOLDER]``.

Runs in ``FOLDER`` (or a new temporary one) and writes what the cells printed into the notebook, where it is shown. A
cell is Python, or lines that each begin with ``!`` and are commands of the shell, or a file that ``%%writefile`` names.
Stops at the first cell that fails, and leaves the notebook as it was then.
"""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]
_FILE = "%%writefile "


def code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    """Return the cells that are run, in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(notebook: Notebook, folder: Path) -> list[list[dict[str, Any]]]:
    """Run all cells in ``folder`` and return the outputs of each, as nbformat 4 has them."""
    space: dict[str, Any] = {"__name__": "__main__"}
    sys.path.insert(0, "")  # what %%writefile makes can be imported
    with chdir(folder):
        return [_outputs("".join(cell["source"]), space, at) for at, cell in enumerate(code_cells(notebook), 1)]


def _outputs(source: str, space: dict[str, Any], at: int) -> list[dict[str, Any]]:
    if source.startswith(_FILE):
        head, _, text = source.partition("\n")
        Path(head.removeprefix(_FILE).strip()).write_text(text + "\n")
        return []
    lines = source.strip().splitlines()
    if lines and lines[0].startswith("!"):
        return _stream("".join(_shell(line.removeprefix("!")) for line in lines))
    printed = io.StringIO()
    with redirect_stdout(printed):
        value = _python(source, space, at)
    found = _stream(printed.getvalue())
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        found.append({"output_type": "execute_result", "execution_count": at, "metadata": {}, "data": data})
    return found


def _python(source: str, space: dict[str, Any], at: int) -> Any:
    """Run a cell; return the value of its last line where that is an expression."""
    tree = ast.parse(source, f"<cell {at}>")
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, f"<cell {at}>", "exec"), space)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), f"<cell {at}>", "exec"), space)
    return eval(compile(ast.Expression(last.value), f"<cell {at}>", "eval"), space)


def _shell(command: str) -> str:
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def _stream(text: str) -> list[dict[str, Any]]:
    if not text:
        return []
    return [{"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}]


def main() -> None:
    """Run the notebook that is named, and write its outputs into it."""
    path = Path(sys.argv[1])
    notebook: Notebook = json.loads(path.read_text())
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory() as name:
        found = run(notebook, Path(sys.argv[2] if len(sys.argv) > 2 else name))
    for at, (cell, outputs) in enumerate(zip(code_cells(notebook), found, strict=True), 1):
        cell |= {"outputs": outputs, "execution_count": at}
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
