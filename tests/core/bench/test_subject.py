"""What a child measures: here, that it measures the program that was asked for, within the bounds of ``tlkit run``.

covers tlkit/engines/torch/guarded.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.formats import packages
from tests.formats.greedy import GREEDY, MODEST
from tests.frontends.network import nets
from tlkit.core.bench.subject import EngineSubject, SourceSubject, Task, store_inputs
from tlkit.engines.torch.guarded import FirstGuarded
from tlkit.errors import TlkitError
from tlkit.host import budget


@pytest.mark.parametrize(("strict", "corner"), [(False, 12.0), (True, 48.0)])
def test_what_is_timed_is_core_mls_result_or_the_specifications(tmp_path: Path, strict: bool, corner: float) -> None:
    path = packages.ceil_pool(tmp_path / "pool.mlpackage")
    store_inputs({"x": np.arange(49, dtype=np.float32).reshape(1, 1, 7, 7)}, tmp_path / "x.npz")
    subject = EngineSubject(Task(str(path), "cpu", arrays=str(tmp_path / "x.npz"), strict_mil=strict))
    (output,) = subject.bind(subject.load())()  # type: ignore[misc]
    assert output[0, 0, 2, 2] == corner


def subject(folder: Path, text: str, **settings: Any) -> EngineSubject:
    (folder / "x.mil").write_text(text)
    store_inputs({"x": np.array([[1.0, 2.0]], np.float32)}, folder / "x.npz")
    return EngineSubject(Task(str(folder / "x.mil"), "cpu", arrays=str(folder / "x.npz"), **settings))


@pytest.mark.parametrize("engine", ["onnxruntime", "eager"])
def test_several_callers_have_the_engines_own_streams(tmp_path: Path, engine: str) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    x = np.array([[1.0, -2.0, 0.5, 3.0]], np.float32)
    store_inputs({"x": x}, tmp_path / "x.npz")
    measured = EngineSubject(Task(str(path), "cpu", engine=engine, arrays=str(tmp_path / "x.npz"), cache=False))
    model = measured.load()
    calls = measured.crowd(model, 3)
    assert len(calls) == 3
    for call in calls:
        (found,) = call()  # type: ignore[misc]
        np.testing.assert_allclose(found, x @ packages.MATRIX.T + packages.BIAS, rtol=2**-10)


def test_what_auto_chose_is_told(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    store_inputs({"x": np.ones((1, 4), np.float32)}, tmp_path / "x.npz")
    measured = EngineSubject(Task(str(path), "cpu", engine="auto", arrays=str(tmp_path / "x.npz"), cache=False))
    measured.bind(measured.load())()
    told = measured.describe()
    assert told["backend"].split()[0] in told["why"] and "in a trial" in told["why"]


@pytest.mark.parametrize("engine", ["eager", pytest.param("compile", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["tile", "held", "looped", "written"])
def test_a_program_that_asks_for_much_is_as_bounded_as_in_run(tmp_path: Path, name: str, engine: str) -> None:
    measured = subject(tmp_path, GREEDY[name], engine=engine)
    model = measured.load()
    with pytest.raises(TlkitError, match=r"warrant|does not end") as refused:
        measured.bind(model)()
    assert "TLKIT_BUDGET=" in refused.value.hint


def test_what_is_timed_is_not_watched(tmp_path: Path) -> None:
    measured = subject(tmp_path, MODEST["tile"])
    call = measured.bind(measured.load())
    (first,) = call()  # type: ignore[misc]
    direct = call.direct  # type: ignore[attr-defined]
    assert not isinstance(direct, FirstGuarded)
    (second,) = direct()
    assert torch.equal(first, second)


def test_shapes_that_the_file_asks_for_warrant_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FLOOR", 10)
    monkeypatch.setattr(budget, "STORED", 0)
    monkeypatch.setattr(budget, "GIVEN", 10_000)
    given, drawn = (subject(tmp_path, MODEST["tile"], drawn=drawn) for drawn in (False, True))
    assert given.bind(given.load())()
    with pytest.raises(TlkitError, match="warrant"):
        drawn.bind(drawn.load())()


class Doubles(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(40):
            x = torch.cat([x, x])
        return x


def test_a_script_s_first_run_is_watched(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.script(Doubles()).save(str(path))
    store_inputs({"x": np.ones(2, np.float32)}, tmp_path / "x.npz")
    measured = SourceSubject(Task(str(path), "cpu", arrays=str(tmp_path / "x.npz")))
    with pytest.raises(TlkitError, match="warrant"):
        measured.bind(measured.load())()


def test_custom_layers_are_measured_with_what_runs_them(tmp_path: Path) -> None:
    path = tmp_path / "net.mlmodel"
    path.write_bytes(nets.model([nets.layer("custom", className="Half")], {"x": (2, 3)}).SerializeToString())
    store_inputs({"x": np.full((2, 3), -1.5, np.float32)}, tmp_path / "x.npz")
    custom = ["Half=tests.frontends.network.nets:sizes"]
    subject = EngineSubject(Task(str(path), "cpu", arrays=str(tmp_path / "x.npz"), custom=custom))
    (found,) = subject.bind(subject.load())()  # type: ignore[misc]
    assert found.tolist() == [[1.5] * 3] * 2
