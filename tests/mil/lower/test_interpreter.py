"""The interpreter gives what the module gives, lets go of what is not needed, and waits for no lock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import fx, nn
from tqdm import tqdm

from tlkit.mil.lower.interpreter import Interpreter


class _Net(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.relu(x @ y)
        return z + x, z * 2


def test_it_runs_while_the_lock_of_progress_bars_is_held() -> None:
    module = fx.symbolic_trace(_Net())
    x, y = torch.randn(3, 3), torch.randn(3, 3)
    runner = Interpreter(module)
    with tqdm.get_lock(), ThreadPoolExecutor(1) as other_thread:
        waiting = other_thread.submit(runner.run, x, y)
        found = waiting.result(timeout=60)
    for one, other in zip(found, module(x, y), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert len(runner.env) == 1  # the output: all else was let go
