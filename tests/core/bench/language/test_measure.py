"""What ``tlkit bench`` measures of language models: counts, rates and errors of its processes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.formats.gguf.model.folders import build
from tlkit.core.bench.language import measure
from tlkit.core.bench.language.measure import LanguageMethod, measure_language, take
from tlkit.errors import TlkitError, UsageError
from tlkit.host.power import Power


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("model") / "folder", "qwen2")


def test_prompts_and_tokens_are_counted(folder: Path) -> None:
    method = LanguageMethod(prompts=(3, 6), generated=4, processes=1, times=2)
    found = measure_language([folder], method)
    assert [(row.test, row.tokens, row.after) for row in found.rows] == [
        ("prompt", 3, 0),
        ("generate", 4, 3),
        ("prompt", 6, 0),
        ("generate", 4, 6),
    ]
    for row in found.rows:
        samples = row.row.samples_ns
        assert len(samples) == (2 if row.test == "prompt" else 3)
        each = row.tokens if row.test == "prompt" else 1
        assert row.rate == pytest.approx(each * len(samples) / (sum(samples) / 1e9))
    (start,) = found.starts
    assert 0 < start.load_ns < start.first_token_ns
    assert start.peak_bytes > 10 << 20
    assert start.file_bytes == sum(file.stat().st_size for file in folder.rglob("*"))


def test_a_token_s_energy_is_what_rises_above_the_idle_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy: list[float] = []

    class Counter:
        """5 W at rest, and 10 J for each second of processor time."""

        name = "a counter"

        def joules(self) -> dict[str, float]:
            busy.append(time.process_time())
            return {"cpu": 5 * time.monotonic() + 10 * busy[-1]}

    power = Power()
    power.meters, power.notes = [Counter()], []
    monkeypatch.setattr(measure, "Power", lambda: power)
    monkeypatch.setattr(measure, "_REST", 0.3)
    asked = {"model": str(folder), "prompts": [6], "generated": 9, "times": 4, "engine": "torch", "unit": "cpu"}
    found = take(asked | {"seed": 0, "started": time.time_ns(), "power": True})
    # Readings: two of the idle machine, then two around each part.
    assert len(busy) == 6
    parts = (busy[3] - busy[2], 24, found["prompt"][6]), (busy[5] - busy[4], 8, found["generate"][6])
    for name, (seconds, tokens, samples) in zip(("prompt 6", "generate 6"), parts, strict=True):
        row = found["energy"][name]
        assert row["count"] == tokens
        assert row["seconds"] >= sum(samples) / 1e9
        idle = 10 * (busy[1] - busy[0]) * row["seconds"] / 0.3  # what the process itself takes at rest
        assert row["millijoules"] == pytest.approx(1000 * (10 * seconds - idle) / tokens, rel=0.02)
        assert row["per_joule"] == pytest.approx(1000 / row["millijoules"])


def test_what_a_process_refuses_is_told(folder: Path) -> None:
    with pytest.raises(TlkitError, match="its context has 128") as caught:
        measure_language([folder], LanguageMethod(prompts=(100,), generated=40, processes=1))
    assert caught.value.exit_code == UsageError.exit_code
