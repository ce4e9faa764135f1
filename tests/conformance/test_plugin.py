"""The judge of the conformance suite: what it changes in cases, and its stand-in for torchvision's boxes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.conformance import boxes, networks, plugin

CASES = """
import pytest

@pytest.mark.xfail(reason="Core ML fails here")
def test_marked_and_passing():
    assert True

@pytest.mark.parametrize("value", [1, pytest.param(2, marks=pytest.mark.xfail)])
def test_marked_by_parameter(value):
    assert value

@pytest.mark.xfail
class TestOfMarkedClass:
    def test_failing(self):
        assert False

def test_that_says_so_itself_and_passes():
    pytest.xfail("Core ML fails here")
    import torchvision
    assert torchvision.ops.nms
"""


@pytest.mark.slow
def test_what_the_suite_expects_to_fail_is_judged_like_all_else(root: Path, tmp_path: Path) -> None:
    """Whatever pytest makes of an unexpected pass (this project's settings make it a failure)."""
    (tmp_path / "test_cases.py").write_text(CASES)
    plugins = ["-p", "tests.conformance.plugin", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore"]
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "--rootdir", ".", "-rA", *plugins, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert "4 passed" in done.stdout and "1 failed" in done.stdout, done.stdout[-3000:]
    assert "test_failing" in done.stdout.rpartition("short test summary")[2].partition("FAILED")[2]


@dataclass(frozen=True)
class Case:
    nodeid: str


def test_a_sample_has_the_same_cases_of_each_function_and_no_stress_test() -> None:
    names = ["t.py::A::test_one[1]", "t.py::A::test_one[2]", "t.py::A::test_one_stress_test", "t.py::A::test_two"]
    cases = [Case(name) for name in names]
    for order in (cases, cases[::-1]):
        kept = {case.nodeid for case in plugin._sample(order, 1)}
        assert len(kept) == 2 and kept < {*names[:2], names[3]} and names[3] in kept
    assert len({plugin._sample(order, 1)[0] for order in (cases[:2], cases[1::-1])}) == 1
    assert plugin._sample(cases, 0) == cases


def test_a_network_of_small_values_is_judged_by_their_own_size() -> None:
    """A thousandth that is 1 % off is within 1 % of 1, and is still wrong."""
    expected, found = networks.scaled([1e-3, -5e-4], [1.01e-3, -5e-4])
    assert expected.tolist() == [1, -0.5] and found[0] - expected[0] == pytest.approx(0.01)
    assert networks.scaled([3.0, 0.1], [3.03, 0.1])[0].tolist() == [3, 0.1]
    assert networks.scaled([1e-9], [2e-9])[1].tolist() == [2e-9]


def test_overlap_is_common_area_over_united_area() -> None:
    one = torch.tensor([[0.0, 0, 2, 2], [5, 5, 6, 7]])
    two = torch.tensor([[1.0, 1, 2, 3], [0, 0, 2, 2], [9, 9, 9, 9]])
    assert boxes.box_iou(one, two).tolist() == [pytest.approx([0.2, 1, 0]), [0, 0, 0]]


def test_the_kernel_compares_an_f32_share_with_a_double_threshold() -> None:
    pair = torch.tensor([[1.0, 1, 2, 3], [0, 0, 2, 2]])
    scores = torch.tensor([4.0, 2])
    assert boxes.nms(pair, scores, 0.2).tolist() == [0]  # 0.2 in f32 is above 0.2
    assert boxes.nms(pair, scores, 0.21).tolist() == [0, 1]
    assert boxes.nms(pair, -scores, 0.0).tolist() == [1]
    assert boxes.nms(pair[:0], scores[:0], 0.5).tolist() == []
