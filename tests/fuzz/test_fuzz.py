"""The fuzzer finds what it is there to find; what it found once stays mended; and a short run of it finds nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.board import COLUMNS
from tests.fuzz.planted import EXPECTED

CORPUS = Path(__file__).parent / "corpus"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def fuzz(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.fuzz", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)


def counts(text: str) -> dict[str, dict[str, int]]:
    """The table that a run printed: its columns by target."""
    lines = [line.split() for line in text.splitlines()]
    start = next(at for at, words in enumerate(lines) if words[:1] == ["target"])
    heads = lines[start]
    rows = lines[start + 1 : lines.index([], start)]
    return {row[0]: {key: int(cell) for key, cell in zip(heads, row, strict=False) if key in COLUMNS} for row in rows}


@pytest.fixture(scope="module")
def planted(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A run over targets that misbehave on purpose, and the folder with its faults."""
    faults = tmp_path_factory.mktemp("faults")
    arguments = ("--jobs", "2", "--seconds", "24", "--hang", "5", "--faults", str(faults))
    return fuzz(root, "--table", "tests.fuzz.planted", *arguments), faults


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_each_kind_of_fault_is_found_and_counted_where_it_belongs(
    planted: tuple[subprocess.CompletedProcess[str], Path], name: str
) -> None:
    ran, faults = planted
    found = counts(ran.stdout)[name]
    column = EXPECTED[name][1]
    bad = {key for key in COLUMNS[COLUMNS.index("raw") :] if found[key]}
    assert found[column] > 0, ran.stdout + ran.stderr
    assert bad == ({column} if column != "read" else set()), ran.stdout
    assert ran.returncode == 1
    assert bool(list(faults.glob(f"{name}-{column}-*.case"))) == bool(bad)


def test_a_fault_is_found_again_by_replaying_its_input(root: Path, tmp_path: Path) -> None:
    case = tmp_path / "raises-raw-0.case"
    case.write_bytes(b"x")
    ran = fuzz(root, "--table", "tests.fuzz.planted", "--replay", str(case))
    assert ran.returncode == 1 and "KeyError" in ran.stdout


def test_past_faults_stay_mended(root: Path) -> None:
    cases = sorted(map(str, CORPUS.glob("*.case")))
    assert cases
    ran = fuzz(root, "--replay", *cases)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
def test_a_short_run_finds_nothing(root: Path, tmp_path: Path) -> None:
    ran = fuzz(root, "--jobs", "2", "--seconds", "40", "--seed", "20", "--faults", str(tmp_path))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = counts(ran.stdout)
    assert all(row["inputs"] > 0 and row["read"] > 0 for row in found.values()), ran.stdout
