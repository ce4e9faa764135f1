"""A call whose first run is watched for what it makes, and whose later ones cost nothing more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlkit.errors import ExecutionError
from tlkit.mil.lower.guard import Guard


class FirstGuarded:
    """A call that runs ``direct``; the first time under a :class:`Guard` of ``most`` elements, then told to ``passed``.

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
        guard = Guard(self._most, self._coming)
        try:
            with guard:
                outputs = self.direct()
        except Exception:
            if guard.refused is None:
                raise
        if guard.refused is not None:  # outside the handler: what was made goes with the frames of the other error
            raise ExecutionError(f"{self._where()}{guard.refused.message}", guard.refused.hint)
        self._done = True
        self._passed()
        return outputs
