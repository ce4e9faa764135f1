"""The trial that ``auto`` chooses an engine by, and OpenVINO its kernels."""

from __future__ import annotations

import time

from tlkit.engines.trial import trial


def test_the_shortest_call_of_each_counts_and_the_first_does_not() -> None:
    calls: list[str] = []

    def slow() -> None:
        calls.append("slow")
        time.sleep(0.02)

    def fast() -> None:
        calls.append("fast")
        time.sleep(0.2 if calls.count("fast") == 1 else 0)

    taken = trial({"slow": slow, "fast": fast})
    assert taken["fast"] < taken["slow"]
    assert calls[:4] == ["slow", "fast", "slow", "fast"]  # in turns
