"""The wheel's tests of neural networks, which compare by methods of their own: how these become strict.

They allow 1 % of the larger of 1 and the value, so that all below 1 is hardly judged; some compare shapes only, and
those of random layers their results with themselves, which is no comparison.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
import pytest

_LEAST = 1e-4
"""Of values below this, what rounding leaves would be judged."""


class Comparison:
    """What the case that runs has compared: ``values`` is whether numbers met their expectation."""

    own = values = random = False

    @classmethod
    def begin(cls, item: pytest.Item) -> None:
        """Forget the case before."""
        cls.own, cls.values, cls.random = _owner(item) is not None, False, False

    @classmethod
    def counts(cls) -> bool:
        """Whether the case may be counted as one that judged numbers."""
        return cls.values or not cls.own


def judge_strictly(item: pytest.Item, share: float) -> None:
    """Let a case's class compare at ``share`` of the largest value expected (of 1, where that is larger)."""
    owner = _owner(item)
    if owner is None or hasattr(owner._test_predictions, "strict"):
        return
    honest = owner._test_predictions
    shared = "delta" in signature(honest).parameters  # others judge by the ratio of signal to noise only
    told, moments = getattr(owner, "_compare_predictions", None), vars(owner).get("_compare_moments")

    def compare(self: Any, expected: Any, actual: Any, **given: Any) -> None:
        Comparison.values = not Comparison.random
        if shared:
            given["delta"] = min(given.get("delta", share), share)
        if given.get("test_metric") == "SNR":
            given |= {"SNR": max(given.get("SNR", 0), 45), "PSNR": 45}
        honest(self, *scaled(expected, actual), **given)

    def tell(self: Any, expected: Any, actual: Any, delta: float = share) -> bool:
        Comparison.values = True
        return bool(told(self, *scaled(expected, actual), delta=min(delta, share)))

    def compare_moments(*args: Any, **given: Any) -> None:
        Comparison.random = True  # it then makes what was computed the expectation
        moments.__func__(*args, **given)

    compare.strict = True  # type: ignore[attr-defined]
    owner._test_predictions = compare
    if told is not None:
        owner._compare_predictions = tell
    if moments is not None:
        owner._compare_moments = staticmethod(compare_moments)


def scaled(expected: Any, actual: Any) -> tuple[Any, Any]:
    """Return both over the largest finite magnitude expected, where that is below 1."""
    wanted, found = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
    magnitudes = np.abs(wanted)
    largest = float(magnitudes[np.isfinite(magnitudes)].max(initial=0))
    factor = 1 / largest if _LEAST < largest < 1 else 1.0
    return wanted * factor, found * factor


def _owner(item: pytest.Item) -> Any:
    """Return the class that has the comparison, among those of a case."""
    classes = getattr(getattr(item, "cls", None), "__mro__", ())
    return next((found for found in classes if "_test_predictions" in vars(found)), None)
