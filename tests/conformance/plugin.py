"""coremltools' own tests, run off a Mac through ``tlkit.anywhere`` and judged more strictly than they judge themselves.

Used as ``pytest -p tlkit.anywhere -p tests.conformance.plugin <the wheel's tests>``; ``run.py`` beside this file does.

* ``--per-function N`` keeps N cases of each test function, picked by a hash of the name: the same ones every time.
* In f16 the suite compares at atol 0.5, rtol 0.05, which outputs off by 0.3 still pass; here both become 5e-3.
* A case named f32 whose program holds fp16 values is judged at 5e-3 too: the suite asks 1e-4 of it, against a reference
  that is never rounded.
* ``--off-by 0.01`` scales every float output: the negative control, which nearly all cases must fail.
* ``excluded.txt`` lists the cases that nobody can meet, each with its reason; they are not run.
* ``--table FILE`` writes one JSON record a case.
"""

from __future__ import annotations

import functools
import json
import re
import zlib
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

LOOSE = (0.5, 0.05)
STRICT = 5e-3
LEAST = 1e-6
EXCLUDED = Path(__file__).with_name("excluded.txt")
NEURAL_NETWORK = "runs a neuralNetwork model, which is not a program"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--per-function", type=int, default=0, help="cases of each test function (0: all)")
    group.addoption("--off-by", type=float, default=0.0, help="scale every float output by 1 + this")
    group.addoption("--table", default="", help="write one JSON record a case to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_judge_strictly())
    if config.getoption("--off-by"):
        _perturb(config.getoption("--off-by"))
    if config.getoption("--table"):
        config.pluginmanager.register(_Table(Path(config.getoption("--table"))))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    keep = _sample(items, config.getoption("--per-function"))
    for item in keep:
        reason = _excluded(item)
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"excluded: {reason}"))
    config.hook.pytest_deselected(items=[item for item in items if item not in set(keep)])
    items[:] = keep


def _sample(items: list[pytest.Item], count: int) -> list[pytest.Item]:
    if not count:
        return items
    groups: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        groups[item.nodeid.partition("[")[0]].append(item)
    kept = {item for group in groups.values() for item in sorted(group, key=_order)[:count]}
    return [item for item in items if item in kept]


def _order(item: pytest.Item) -> int:
    return zlib.crc32(_case(item.nodeid).encode())


def _case(nodeid: str) -> str:
    """A case's name, the same wherever the wheel is installed."""
    return nodeid.rpartition("/tests/")[2] if "/tests/" in nodeid.partition("::")[0] else nodeid


@functools.cache
def _exclusions() -> list[tuple[re.Pattern[str], str]]:
    lines = [line for line in EXCLUDED.read_text().splitlines() if line.strip() and not line.startswith("#")]
    pairs = [line.split("  # ", 1) for line in lines]
    return [(re.compile(pattern), reason) for pattern, reason in pairs]


def _excluded(item: pytest.Item) -> str:
    """Why a case is not run, or nothing; one whose backend is a neuralNetwork is told by its parameters."""
    given = getattr(item, "callspec", None)
    if given is not None and any(map(_is_neural_network, given.params.values())):
        return NEURAL_NETWORK
    return next((reason for pattern, reason in _exclusions() if pattern.search(item.nodeid)), "")


def _is_neural_network(backend: Any) -> bool:
    return isinstance(backend, list | tuple) and bool(backend) and str(backend[0]) == "neuralnetwork"


def _judge_strictly() -> _Judged:
    """Replace the tolerance of what holds f16 where the suite uses it: in numpy's two comparisons."""
    judged = _Judged()

    def strict(compare: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            loose = kwargs.get("atol", 0) >= LOOSE[0] and kwargs.get("rtol", 0) >= LOOSE[1]
            meant = kwargs.get("atol", 0) >= LEAST  # else a pass of coremltools' asks what rounds to 0
            if meant and "rtol" in kwargs and (loose or judged.holds_f16):
                kwargs |= {"atol": STRICT, "rtol": STRICT}
            return compare(*args, **kwargs)

        return call

    np.testing.assert_allclose = strict(np.testing.assert_allclose)
    np.isclose = strict(np.isclose)
    return judged


class _Judged:
    """Follows which model predicted last: whether its program holds fp16 values, and whether it put floats out.

    Each case's report carries ``judged``: ``f16`` or ``f32`` where floats were there to compare, else nothing.
    """

    def __init__(self) -> None:
        from tlkit.core import load

        self.holds_f16 = False
        self.precision = ""
        honest = load.Model.predict

        def predict(model: load.Model, *args: Any, **kwargs: Any) -> dict[str, Any]:
            self.holds_f16 = "fp16" in _element_types(model)
            outputs = honest(model, *args, **kwargs)
            if any(_is_float(value) and value.any() for value in outputs.values()):
                self.precision = "f16" if self.holds_f16 else "f32"
            return outputs

        load.Model.predict = predict  # type: ignore[method-assign]

    def pytest_runtest_setup(self) -> None:
        self.precision = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, pytest.TestReport]:
        report: pytest.TestReport = yield
        if call.when == "call":
            report.user_properties.append(("judged", self.precision))
        return report


def _element_types(model: Any) -> set[str]:
    from tlkit.mil.program import StateType, TensorType, walk

    functions = model.program.functions.values() if model.program else ()
    named = [item for function in functions for item in function.inputs]
    named += [item for function in functions for op in walk(function.block.operations) for item in op.outputs]
    kinds = [item.type.wrapped if isinstance(item.type, StateType) else item.type for item in named]
    return {kind.dtype.mil for kind in kinds if isinstance(kind, TensorType)}


def _perturb(share: float) -> None:
    from tlkit.core import load

    honest = load.Model.predict

    def predict(self: load.Model, *args: Any, **kwargs: Any) -> dict[str, Any]:
        outputs = honest(self, *args, **kwargs)
        return {name: value * (1 + share) if _is_float(value) else value for name, value in outputs.items()}

    load.Model.predict = predict  # type: ignore[method-assign]


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


class _Table:
    """Collects how each case ended and writes it as JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            reason = report.longrepr
            text = str(reason[2]) if isinstance(reason, tuple) else str(getattr(reason, "reprcrash", None) or "")
            outcome = "xfailed" if hasattr(report, "wasxfail") and report.outcome == "skipped" else report.outcome
            judged = str(dict(report.user_properties).get("judged", ""))
            self.records[report.nodeid] = {"outcome": outcome, "reason": text[:300], "judged": judged}

    def pytest_sessionfinish(self) -> None:
        with self.path.open("w") as file:
            for nodeid, record in self.records.items():
                file.write(json.dumps({"case": _case(nodeid), **record}) + "\n")
