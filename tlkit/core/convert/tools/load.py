"""Import coremltools without what its import would load and then leave unused."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_TOOLS = (9, 0)
_LEAST, _MOST = (0, 17), (1, 5)
"""The releases of scikit-learn whose models coremltools 9.0 converts (``coremltools/_deps``)."""


def load_tools() -> Any:
    """Return coremltools, imported if it is not yet: seconds, the first time.

    Its import loads scikit-learn, with much of SciPy, and drops it where it does not know the release: that takes a
    third of its time, so that it is not shown such a one. Afterwards scikit-learn can be imported as ever.
    """
    with _unseen("sklearn") if "coremltools" not in sys.modules and dropped() else _as_it_is():
        import coremltools
    return coremltools


def dropped() -> bool:
    """Whether coremltools would import scikit-learn, and then have no use for it."""
    if "sklearn" in sys.modules:
        return False
    try:
        tools, learn = _release("coremltools"), _release("scikit-learn")
    except PackageNotFoundError:
        return False
    return tools == _TOOLS and not _LEAST <= learn <= _MOST


def _release(package: str) -> tuple[int, int]:
    major, minor = re.findall(r"\d+", version(package))[:2]
    return int(major), int(minor)


@contextmanager
def _unseen(name: str) -> Iterator[None]:
    sys.modules[name] = None  # type: ignore[assignment]  # Python's way to say that there is no such module
    try:
        yield
    finally:
        del sys.modules[name]


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield
