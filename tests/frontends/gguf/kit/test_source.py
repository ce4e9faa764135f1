"""Rows of a table that stays in its file."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tlkit.formats.base.planned import Planned
from tlkit.formats.gguf.read import GGUFFile
from tlkit.formats.gguf.write import write_gguf
from tlkit.frontends.gguf.kit.source import gguf_source


def resident(file: Path) -> int:
    """How many bytes of a file are mapped and in memory."""
    found = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    mine = [part for part in found if str(file) in part.partition("\n")[0]]
    assert mine
    return sum(int(re.findall(r"^Rss: +(\d+) kB", part, re.MULTILINE)[0]) << 10 for part in mine)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/smaps")
def test_rows_are_read_and_nothing_around_them_stays_in_memory(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((1 << 16, 32), np.float32)
    file = tmp_path / "table.gguf"
    write_gguf(file, [Planned("table", "F32", values.shape)], {}, lambda _: iter([values.data.cast("B")]))
    table = gguf_source(GGUFFile(file)).tensor("table")
    for places in np.random.default_rng(1).integers(0, 1 << 16, (50, 2)):
        assert np.array_equal(table.rows(places.tolist()), values[places])
    # Fifty looks map 64 KiB or more each, where nothing gives them back.
    assert resident(file) < 1 << 20
