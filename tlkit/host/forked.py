"""Whether this process is a fork of one that had PyTorch: its thread pools did not come along.

OpenMP's threads live in the parent only. A fork that computes with more than one waits for them for ever, which is why
PyTorch's own data loader gives its forked workers one thread each.
"""

from __future__ import annotations

import os
import sys

_forked = False


def use_one_thread() -> None:
    """In the fork of a process that had imported PyTorch, let PyTorch compute with one thread.

    It is set once in each fork: a ``torch.set_num_threads`` of the caller's after that stands.
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
