"""Whether this process was forked from one that had imported PyTorch: its thread pools were not copied.

OpenMP's threads exist only in the parent. A forked child that computes with more than one waits for them forever, which
is why PyTorch's own data loader gives its forked workers one thread each.
"""

from __future__ import annotations

import os
import sys

_forked = False


def use_one_thread() -> None:
    """In a child forked from a process that had imported PyTorch, limit PyTorch to one thread.

    This happens once per fork, so a later ``torch.set_num_threads`` by the caller stands.
    """
    global _forked
    if _forked:
        _forked = False
        sys.modules["torch"].set_num_threads(1)


def _after_fork() -> None:
    global _forked
    _forked = "torch" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
