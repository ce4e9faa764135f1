"""What pyproject.toml cannot say: man pages are made of docs/cli.md when a wheel is built, completion goes beside; and
the source archive is the same bytes whenever and wherever it is built, as wheels are, where SOURCE_DATE_EPOCH is set.
"""

from __future__ import annotations

import gzip
import os
import sys
import tarfile
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "docs"))

from make_man import write_pages  # noqa: E402  # beside this file, where the path leads

PAGES = write_pages(HERE / "docs" / "cli.md", HERE / "build" / "man")


class Sdist(sdist):
    """setuptools' own, which keeps the times, owners and modes of files as they happen to be."""

    def make_archive(self, base_name: str, format: str, *args: object, **kwargs: object) -> str:
        """Write the archive of the folder ``base_dir`` (the fourth argument), and return its path."""
        epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
        if format != "gztar" or not epoch.isdigit():
            return str(super().make_archive(base_name, format, *args, **kwargs))
        folder = Path(str(kwargs.get("base_dir") or args[1]))

        def plain(item: tarfile.TarInfo) -> tarfile.TarInfo:
            item.mtime, item.uid, item.gid, item.uname, item.gname = int(epoch), 0, 0, "", ""
            item.mode = 0o755 if item.isdir() or item.mode & 0o100 else 0o644
            return item

        goal = f"{base_name}.tar.gz"
        with (
            open(goal, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=int(epoch)) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in [folder, *sorted(folder.rglob("*"))]:
                archive.add(path, recursive=False, filter=plain)
        return goal


setup(
    cmdclass={"sdist": Sdist},
    data_files=[
        ("share/man/man1", sorted(str(path.relative_to(HERE)) for path in PAGES)),
        ("share/bash-completion/completions", ["docs/completion/tlkit"]),
        ("share/zsh/site-functions", ["docs/completion/_tlkit"]),
        ("share/fish/vendor_completions.d", ["docs/completion/tlkit.fish"]),
    ],
)
