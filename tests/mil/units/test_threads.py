"""Sums are shared out to threads while torch keeps to one."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, get_ident

import pytest
import torch

from tlkit.mil.units.threads import apart, share_out, threads


@pytest.fixture(autouse=True)
def three_threads():  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_torch_keeps_to_one_thread_and_has_its_own_back() -> None:
    seen: list[tuple[int, int]] = []

    def forward(x: int) -> int:
        seen.append((torch.get_num_threads(), threads()))
        return -x

    assert threads() == 3
    assert apart(forward)(5) == -5
    assert seen == [(1, 3)]
    with pytest.raises(ZeroDivisionError):
        apart(lambda: 1 // 0)()
    assert (torch.get_num_threads(), threads()) == (3, 3)


def test_calls_side_by_side_leave_the_threads_as_they_were() -> None:
    both = Barrier(2, timeout=30)

    def forward(_: int) -> int:
        both.wait()  # neither begins after the other's end
        return threads()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(apart(forward), range(2))) == [3, 3]
    assert threads() == 3


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_task_is_done_once_on_as_many_threads(count: int) -> None:
    together, done = Barrier(count, timeout=30), []

    def task(number: int, mode: bool) -> None:
        if number < count:
            together.wait()  # which only as many threads at once pass
        done.append((number, get_ident(), torch.is_inference_mode_enabled() == mode))

    with torch.inference_mode():
        share_out(task, [(number, True) for number in range(50)], count)
    assert sorted(number for number, _, _ in done) == list(range(50))
    assert len({thread for number, thread, _ in done if number < count}) == count
    assert all(same for _, _, same in done)


def test_what_a_task_raises_is_raised() -> None:
    def task(number: int) -> None:
        if number == 7:
            raise ValueError("seven")

    for count in (1, 3):
        with pytest.raises(ValueError, match="seven"):
            share_out(task, [(number,) for number in range(20)], count)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_threads_of_its_own() -> None:
    share_out(lambda _: None, [(1,), (2,)], 2)
    child = os.fork()
    if child == 0:
        done: list[int] = []
        share_out(done.append, [(1,), (2,), (3,)], 2)
        os._exit(0 if sorted(done) == [1, 2, 3] else 1)
    assert os.waitpid(child, 0)[1] == 0
