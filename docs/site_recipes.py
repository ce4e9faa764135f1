"""Shows the notebooks of ``docs/recipes`` on the site: a hook of mkdocs, which makes a page of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

RECIPES = Path(__file__).parent / "recipes"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page per notebook; mkdocs calls this with the files that it found."""
    from mkdocs.structure.files import File  # the site's, which is not installed where its tests are skipped

    for path in sorted(RECIPES.glob("*.ipynb")):
        files.append(File.generated(config, f"recipes/{path.stem}.md", content=page(path)))
    return files


def page(path: Path) -> str:
    """Return a notebook as Markdown: its texts as they are, its code and what that printed as blocks."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(_code(source))
        parts += [_block("text", printed) for output in cell["outputs"] if (printed := text_of(output)).strip()]
    link = f"[Download the notebook]({path.name}), which runs wherever tlkit is installed."
    return "\n\n".join([*parts, link]) + "\n"


def text_of(output: dict[str, Any]) -> str:
    """Return what a cell's output shows as text."""
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", ""))


def _code(source: str) -> str:
    if source.startswith("%%writefile "):
        head, _, text = source.partition("\n")
        return _block(f'python title="{head.removeprefix("%%writefile ").strip()}"', text)
    if source.startswith("!"):
        return _block("console", "\n".join(f"$ {line.removeprefix('!')}" for line in source.splitlines()))
    return _block("python", source)


def _block(kind: str, text: str) -> str:
    return f"```{kind}\n{text.rstrip()}\n```"
