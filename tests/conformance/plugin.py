"""coremltools' own tests, run off a Mac through ``tlkit.anywhere`` and judged more strictly than they judge themselves.

Used as ``pytest -p tlkit.anywhere -p tests.conformance.plugin <the wheel's tests>``; ``run.py`` beside this file does.

* ``--per-function N`` keeps N cases of each test function, picked by a hash of the name: the same ones every time, and
  none of a ``_stress_test``.
* In f16 the suite compares at atol 0.5, rtol 0.05, which outputs off by 0.3 still pass; here both become 5e-3. So they
  do for a case named f32 whose program holds fp16 values: the suite asks 1e-4 of it, against a reference that is never
  rounded.
* In any precision atol is at most 0.4 % of the largest value expected, so that small results are judged, too.
* ``--off-by 0.01`` scales every float output: the negative control, which nearly all cases must fail.
* Each case's random numbers start from a seed of its own, so that it is the same case every time.
* The environment's ``TLKIT_ENGINE`` is the engine; a program that it has no graph for is excluded.
* ``excluded.txt`` lists the cases that nobody can meet, each with its reason; they are not run.
* ``--table FILE`` writes one JSON record a case.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import random
import re
import sys
import zlib
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conformance import boxes, networks
from tlkit.engines.onnx.kit.graph import UnsupportedGraph

STRICT = 5e-3
SHARE = 4e-3  # eight times f16's own rounding; with STRICT below the 1 % of the negative control
NOISE = 2e-5  # what rounding leaves of a 0, such as a group norm's of a single element
MEANT = (1e-6, 50.0)  # an atol below: a pass of coremltools' asks what is 0; above: a test of noise does not compare
EXCLUDED = Path(__file__).with_name("excluded.txt")
STRESS = "_stress_test"
COUNTS_CASTS = (("iOS15", "test_image_resizing.py"), "TestResample")
NEURAL_NETWORK = "runs a neuralNetwork model, which is not a program"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--per-function", type=int, default=0, help="cases of each test function (0: all)")
    group.addoption("--off-by", type=float, default=0.0, help="scale every float output by 1 + this")
    group.addoption("--table", default="", help="write one JSON record a case to this file")


def pytest_configure(config: pytest.Config) -> None:
    boxes.stand_in()
    _old_svm_names()
    config.pluginmanager.register(_Judge(config.getoption("--off-by")))
    if config.getoption("--table") and not hasattr(config, "workerinput"):  # xdist's workers report to this one
        config.pluginmanager.register(_Table(Path(config.getoption("--table"))))


def _old_svm_names() -> None:
    """Let what was written for libsvm's modules of before 3.35 find their names in today's package, if it is here."""
    if importlib.util.find_spec("libsvm") is None:
        return
    modules = {name: importlib.import_module(f"libsvm.{name}") for name in ("svm", "svmutil")}
    vars(sys.modules["libsvm"]).setdefault("__version__", "3.35")  # which coremltools writes into what it converts
    for kinds in ("svm_forms", "kernel_names"):
        for kind in getattr(modules["svm"], kinds, ()):
            for module in modules.values():
                vars(module).setdefault(kind.name, kind)
    sys.modules.update(modules)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    keep = _sample(items, config.getoption("--per-function"))
    for item in keep:
        _without_xfail(item)
        _without_cast_count(item)
        networks.judge_strictly(item, SHARE)
        reason = _excluded(item)
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"excluded: {reason}"))
    config.hook.pytest_deselected(items=[item for item in items if item not in set(keep)])
    items[:] = keep


def _without_xfail(item: pytest.Item) -> None:
    """Take the marks off by which the suite expects Core ML to fail: each case is run and judged like any other."""
    for node in item.listchain():
        node.own_markers[:] = [mark for mark in node.own_markers if mark.name != "xfail"]


def _without_cast_count(item: pytest.Item) -> None:
    """Let :data:`COUNTS_CASTS` compare values: in f32 its first act after the first value is to count f16's casts."""
    owner = getattr(item, "cls", None)
    honest = vars(owner or object).get("_test_builder_to_backend_smoke")
    place = (item.path.parts[-2:], getattr(owner, "__name__", ""))
    if place != COUNTS_CASTS or honest is None or hasattr(honest, "counted"):
        return

    def run(compute_unit: Any, backend: Any, dtype: Any, casts: int) -> None:
        counted = casts if backend.precision == "fp16" else _AnyNumber(casts)
        honest.__func__(compute_unit, backend, dtype, counted)

    replaced = staticmethod(run)
    replaced.counted = True  # type: ignore[attr-defined]
    owner._test_builder_to_backend_smoke = replaced


class _AnyNumber(int):
    """A number that every other one equals."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int)

    __hash__ = int.__hash__


def _sample(items: list[pytest.Item], count: int) -> list[pytest.Item]:
    if not count:
        return items
    groups: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        groups[item.nodeid.partition("[")[0]].append(item)
    # Minutes each, most of them libsvm's and scikit-learn's own training; tests beside them ask the same of tlkit.
    groups = {name: group for name, group in groups.items() if not name.endswith(STRESS)}
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


class _Judge:
    """Replaces numpy's two comparisons, which the suites use, by ones as strict as the case's last prediction allows.

    Each case's report carries ``judged``: ``f16`` or ``f32`` where floats were there to compare, else nothing. A case
    that coremltools itself expects to fail must pass, unless it fails before there is a model to predict with.
    """

    def __init__(self, off_by: float) -> None:
        from tlkit.core.model import load

        self.precision = self.judged = self.doubt = ""
        honest = load.Model.predict

        def predict(model: load.Model, *args: Any, **kwargs: Any) -> dict[str, Any]:
            outputs = honest(model, *args, **kwargs)
            self.precision = "f16" if "fp16" in _element_types(model) else "f32"
            if any(_is_float(value) and value.any() for value in outputs.values()):
                self.judged = self.precision
            return {name: value * (1 + off_by) if _is_float(value) else value for name, value in outputs.items()}

        load.Model.predict = predict  # type: ignore[method-assign]
        np.testing.assert_allclose = self._strict(np.testing.assert_allclose)
        np.isclose = self._strict(np.isclose)

    def _strict(self, compare: Any) -> Any:
        def call(actual: Any, expected: Any, **given: Any) -> Any:
            meant = "rtol" in given and MEANT[0] <= given.get("atol", 0) <= MEANT[1]
            if self.precision and meant:
                given |= self._tolerance(expected, given["atol"], given["rtol"])
            return compare(actual, expected, **given)

        return call

    def _tolerance(self, expected: Any, atol: float, rtol: float) -> dict[str, float]:
        if self.precision == "f16":
            atol = rtol = STRICT
        scaled = max(NOISE, SHARE * _largest(expected))
        return {"atol": min(atol, scaled), "rtol": min(rtol, STRICT)}

    def pytest_sessionstart(self) -> None:
        def doubt(reason: str = "") -> None:
            self.doubt = reason

        pytest.xfail = doubt

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.precision = self.judged = self.doubt = ""
        networks.Comparison.begin(item)
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(_order(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, pytest.TestReport]:
        report: pytest.TestReport = yield
        if call.when == "call":
            report.user_properties.append(("judged", self.judged if networks.Comparison.counts() else ""))
            if report.failed and self.doubt and not self.precision:
                report.outcome = "skipped"
                report.longrepr = (item.nodeid, 0, f"excluded: coremltools does not convert it: {self.doubt}")
            without = _graphless(call.excinfo.value) if report.failed and call.excinfo else ""
            if without:
                report.outcome = "skipped"
                report.longrepr = (item.nodeid, 0, f"excluded: no graph for the engine: {without}")
        return report


def _graphless(error: BaseException | None) -> str:
    """Return why an engine of ONNX graphs cannot take the program, where that is what stopped the case."""
    while error is not None:
        if isinstance(error, UnsupportedGraph):
            return error.message
        error = error.__cause__ or error.__context__
    return ""


def _largest(expected: Any) -> float:
    """The largest finite magnitude; 1 where all is 0 and so tells no scale."""
    values = np.abs(np.asarray(expected, dtype=np.float64))
    return float(values[np.isfinite(values)].max(initial=0)) or 1.0


def _element_types(model: Any) -> set[str]:
    from tlkit.mil.program import StateType, TensorType, walk

    functions = model.program.functions.values() if model.program else ()
    named = [item for function in functions for item in function.inputs]
    named += [item for function in functions for op in walk(function.block.operations) for item in op.outputs]
    kinds = [item.type.wrapped if isinstance(item.type, StateType) else item.type for item in named]
    return {kind.dtype.mil for kind in kinds if isinstance(kind, TensorType)}


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


class _Table:
    """Writes how each case ended as a line of JSON, at once: a run that is stopped has told what it saw."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.write_text("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            reason = report.longrepr
            text = str(reason[2]) if isinstance(reason, tuple) else str(getattr(reason, "reprcrash", None) or "")
            judged = str(dict(report.user_properties).get("judged", ""))
            record = {"case": _case(report.nodeid), "outcome": report.outcome, "reason": text[:300], "judged": judged}
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
