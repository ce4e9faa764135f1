"""What pyproject.toml cannot say: man pages are made of docs/cli.md when a wheel is built, completion goes beside."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "docs"))

from make_man import write_pages  # noqa: E402  # beside this file, where the path leads

PAGES = write_pages(HERE / "docs" / "cli.md", HERE / "build" / "man")

setup(
    data_files=[
        ("share/man/man1", sorted(str(path.relative_to(HERE)) for path in PAGES)),
        ("share/bash-completion/completions", ["docs/completion/tlkit"]),
        ("share/zsh/site-functions", ["docs/completion/_tlkit"]),
        ("share/fish/vendor_completions.d", ["docs/completion/tlkit.fish"]),
    ]
)
