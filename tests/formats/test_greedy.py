"""Small programs that ask for much are refused before they get it; in usual sizes they run."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.formats.greedy import GREEDY, MODEST, fill
from tlkit import load_model
from tlkit.errors import ExecutionError, LoadError, TlkitError
from tlkit.host import budget

X = {"x": np.array([[1.0, 2.0]], np.float32)}
MEMORY = 200_000_000


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("name", GREEDY)
def test_a_greedy_program_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.mil"
    path.write_text(GREEDY[name])
    assert path.stat().st_size < 10_000
    load_model(path).prepare() if not name.startswith("filled") else None  # what loading itself takes is no matter
    before = peak()
    with pytest.raises((ExecutionError, LoadError)) as refused:
        load_model(path).predict(X)
    assert peak() - before < MEMORY
    assert "warrant" in refused.value.message or "does not end" in refused.value.message
    assert "TLKIT_BUDGET=" in refused.value.hint


@pytest.mark.parametrize("name", MODEST)
def test_the_same_in_usual_sizes_runs(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.mil"
    path.write_text(MODEST[name])
    assert load_model(path).predict(X)


@pytest.mark.parametrize("name", ["filled 2^40", "filled often", "fill"])
@pytest.mark.slow
@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--stats"], ["inspect", "--hash"], ["convert"], ["run"]])
def test_the_command_line_is_soon_done_with_it(tmp_path: Path, name: str, command: list[str]) -> None:
    path = tmp_path / "x.mil"
    path.write_text(GREEDY[name])
    output = ["-o", str(tmp_path / "x.safetensors")] if command == ["convert"] else []
    call = [sys.executable, "-m", "tlkit", command[0], str(path), *command[1:], *output]
    ran = subprocess.run(call, capture_output=True, text=True, timeout=60)
    assert ran.returncode in (0, 3, 4), ran.stderr
    if ran.returncode:
        error, hint = ran.stderr.splitlines()
        assert str(path) in error or "op 'y'" in error
        assert "internal error" not in error and hint.strip()


def test_the_advice_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hint says makes the same program run; a little less does not."""
    path = tmp_path / "x.mil"
    path.write_text(fill(3000))
    monkeypatch.setattr(budget, "FLOOR", 1 << 20)
    with pytest.raises(ExecutionError) as refused:
        load_model(path).predict(X)
    factor = int(refused.value.hint.partition("TLKIT_BUDGET=")[2].split()[0])
    monkeypatch.setenv("TLKIT_BUDGET", str(factor - 1))
    with pytest.raises(ExecutionError):
        load_model(path).predict(X)
    monkeypatch.setenv("TLKIT_BUDGET", str(factor))
    assert load_model(path).predict(X)["y"].shape == (3000, 3000)


def test_what_the_user_gives_may_become_more_than_what_the_file_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.mil"
    path.write_text(MODEST["tile"])  # 20,000 elements
    monkeypatch.setattr(budget, "FLOOR", 10)
    monkeypatch.setattr(budget, "STORED", 0)
    monkeypatch.setattr(budget, "GIVEN", 10_000)
    assert load_model(path).predict(X)
    with budget.drawn(), pytest.raises(TlkitError, match="warrant"):
        load_model(path).predict(X)


def test_a_second_inference_at_the_same_shapes_is_not_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.mil"
    path.write_text(MODEST["tile"])
    model = load_model(path)
    first = model.predict(X)
    monkeypatch.setattr(budget, "warranted", lambda *_: pytest.fail("watched"))
    np.testing.assert_array_equal(model.predict(X)["y"], first["y"])
