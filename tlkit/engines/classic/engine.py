"""The engine for classic models: a function of features, read once from the protobuf."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tlkit.engines.classic.values import Features, Rows
from tlkit.errors import ExecutionError, contradictions

ALSO = (RuntimeError, MemoryError)
"""What torch and numpy make of sizes that a model contradicts itself in."""


class ClassicEngine:
    """Runs one classic model, for one inference or for many at once."""

    name = "classic"

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def make_state(self) -> None:
        """Return no state: these have none."""

    def run(self, arrays: Mapping[str, Any], state: Any = None) -> dict[str, Any]:
        """Run once; return the outputs by name."""
        return self.run_rows([arrays])[0]

    def run_rows(self, rows: Sequence[Features]) -> list[dict[str, Any]]:
        """Run for each of ``rows``, together where that is faster; return the outputs of each."""
        said, hint = "the model contradicts itself or its inputs", "compare its ports with `tlkit inspect`"
        with contradictions(said, hint, ExecutionError, ALSO):
            return self._rows(rows)

    def bind(self, arrays: Mapping[str, Any], state: Any = None) -> Callable[[], dict[str, Any]]:
        """Return a call that runs it once."""
        return lambda: self.run(arrays)
