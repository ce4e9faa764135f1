"""The trial that ``auto`` chooses an engine by, and OpenVINO its kernels."""

from __future__ import annotations

import time

from tlkit.engines.trial import trial


def test_the_shortest_call_of_each_counts_and_what_another_leaves_does_not() -> None:
    calls: list[str] = []

    def slow() -> None:
        calls.append("slow")
        time.sleep(0.02)

    def fast() -> None:
        calls.append("fast")
        time.sleep(0.1 if calls[-2] == "slow" else 0)  # as if the other's threads were still there

    taken = trial({"slow": slow, "fast": fast})
    assert taken["fast"] < taken["slow"]
    assert calls[:6] == ["slow", "fast", "slow", "slow", "fast", "fast"]  # in turns of two
