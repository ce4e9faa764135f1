"""A call whose first run is watched for what it makes, and whose later ones cost nothing more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlkit.mil.lower.guard import bounded


class FirstGuarded:
    """A call that runs ``direct``; the first time under a ``Guard`` of ``most`` elements, then told to ``passed``.

    Whoever times it times ``direct``, once the first run is over.
    """

    def __init__(
        self,
        direct: Callable[[], Any],
        most: float,
        passed: Callable[[], None] = lambda: None,
        where: Callable[[], str] = lambda: "",
        coming: Callable[[], float] = lambda: 0,
    ) -> None:
        self.direct = direct
        self._most, self._passed, self._where, self._coming = most, passed, where, coming
        self._done = False

    def __call__(self) -> Any:
        """Run once. Raises ExecutionError where a value is made that is not warranted, beginning with ``where()``."""
        if self._done:
            return self.direct()
        outputs = bounded(self.direct, self._most, where=self._where, coming=self._coming)
        self._done = True
        self._passed()
        return outputs
