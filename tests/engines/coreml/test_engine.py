"""The Core ML engine: the calls it makes, against coremltools' real signatures; and, on a Mac, the real thing."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlkit.engines.coreml import engine as coreml
from tlkit.errors import ExecutionError, LoadError, UnavailableError
from tlkit.types import ImageSpec, TensorSpec, Unit

VECTOR = TensorSpec("x", "float32", (1, 4))


def test_off_a_mac_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreml, "is_mac", lambda: False)
    for call in (
        lambda: coreml.CoreMLEngine(tmp_path / "m.mlmodelc", [VECTOR]),
        lambda: coreml.compile_model(tmp_path / "m.mlpackage", tmp_path),
    ):
        with pytest.raises(UnavailableError, match="part of macOS"):
            call()


class Apple:
    """Stands in for Apple's runtime behind coremltools: every call must fit the signature of the installed wheel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import coremltools as ct
        from coremltools.models import utils

        real = ct.models.CompiledMLModel
        self.loads: list[dict[str, Any]] = []
        self.compiled: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any], Any], dict[str, Any]] = lambda data, state: {"y": data["x"]}
        self.failure: Exception | None = None
        apple = self
        signatures = {
            name: inspect.signature(getattr(real, name)) for name in ("__init__", "predict", "make_state")
        } | {"compile": inspect.signature(utils.compile_model)}

        class Compiled:
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                bound = signatures["__init__"].bind(self, *args, **kwargs)
                assert isinstance(bound.arguments["path"], str)
                assert isinstance(bound.arguments["compute_units"], ct.ComputeUnit)
                apple.loads.append(bound.arguments)
                if apple.failure:
                    raise apple.failure

            def predict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
                bound = signatures["predict"].bind(self, *args, **kwargs)
                data, state = bound.arguments["data"], bound.arguments.get("state")
                assert type(data) is dict  # coremltools refuses any other mapping
                return apple.answer(data, state)

            def make_state(self, *args: Any, **kwargs: Any) -> object:
                signatures["make_state"].bind(self, *args, **kwargs)
                return "a state"

        def compile_model(*args: Any, **kwargs: Any) -> None:
            bound = signatures["compile"].bind(*args, **kwargs)
            assert bound.arguments["destination_path"].endswith(".mlmodelc")
            apple.compiled.append(bound.arguments)
            if apple.failure:
                raise apple.failure

        monkeypatch.setattr(ct.models, "CompiledMLModel", Compiled)
        monkeypatch.setattr(utils, "compile_model", compile_model)
        monkeypatch.setattr(coreml, "is_mac", lambda: True)


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> Apple:
    return Apple(monkeypatch)


@pytest.mark.parametrize(
    ("unit", "name"),
    [(Unit.ALL, "ALL"), (Unit.CPU, "CPU_ONLY"), (Unit.GPU, "CPU_AND_GPU"), (Unit.ANE, "CPU_AND_NE")],
)
def test_a_compiled_model_is_loaded_from_where_it_is(apple: Apple, unit: Unit, name: str) -> None:
    coreml.CoreMLEngine(Path("/models/m.mlmodelc"), [VECTOR], unit=unit)
    assert apple.compiled == []
    assert apple.loads[0]["path"] == "/models/m.mlmodelc"
    assert apple.loads[0]["compute_units"].name == name


def test_a_package_is_compiled_first(apple: Apple) -> None:
    coreml.CoreMLEngine(Path("/models/m.mlpackage"), [VECTOR], function="adapter")
    (compiled,), (loaded,) = apple.compiled, apple.loads
    assert compiled["model"] == "/models/m.mlpackage"
    assert loaded["path"] == compiled["destination_path"] and loaded["path"].endswith("/m.mlmodelc")
    assert loaded["function_name"] == "adapter"


def test_states_are_core_mls_own(apple: Apple) -> None:
    engine = coreml.CoreMLEngine(Path("/m.mlmodelc"), [VECTOR])
    apple.answer = lambda data, state: {"state": state}
    assert engine.run({"x": np.zeros((1, 4))}, engine.make_state()) == {"state": "a state"}
    assert engine.run({"x": np.zeros((1, 4))}) == {"state": None}


def test_half_precision_arrays_arrive_as_floats(apple: Apple) -> None:
    engine = coreml.CoreMLEngine(Path("/m.mlmodelc"), [VECTOR])
    given = np.array([[1.5, 2, 3, 4]], dtype=np.float16)
    found = engine.bind({"x": given})()["y"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, given)


@pytest.mark.parametrize("layout", ["RGB", "BGR", "GRAYSCALE", "GRAYSCALE_FLOAT16"])
def test_image_ports_get_pil_images_with_the_same_pixels(apple: Apple, layout: Any) -> None:
    """The oracle is coremltools' documented modes: RGB for both colour orders, L, and F."""
    mode = {"GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}.get(layout, "RGB")
    channels = 3 if mode == "RGB" else 1
    pixels = np.arange(channels * 6, dtype=np.float32).reshape(1, channels, 2, 3)
    spec = TensorSpec("x", "float32", pixels.shape, "image", image=ImageSpec(layout, 3, 2))
    image = coreml.CoreMLEngine(Path("/m.mlmodelc"), [spec]).run({"x": pixels})["y"]
    assert (image.mode, image.size) == (mode, (3, 2))
    red = 2 if layout == "BGR" else 0
    first = image.getpixel((1, 0))
    assert (first[0] if mode == "RGB" else first) == pixels[0, red if mode == "RGB" else 0, 0, 1]


def test_failures_are_one_line_and_name_the_model(apple: Apple) -> None:
    engine = coreml.CoreMLEngine(Path("/m.mlmodelc"), [VECTOR])

    def refuse(data: Any, state: Any) -> Any:
        raise RuntimeError("Error computing\nNN outputs")

    apple.answer = refuse
    with pytest.raises(ExecutionError, match=r"^Core ML: Error computing NN outputs$"):
        engine.run({"x": np.zeros((1, 4))})
    apple.failure = RuntimeError("no\nsuch file")
    with pytest.raises(LoadError, match=r"^/m.mlmodelc: Core ML cannot load it: no such file$"):
        coreml.CoreMLEngine(Path("/m.mlmodelc"), [VECTOR])
    with pytest.raises(LoadError, match=r"^/m.mlpackage: Core ML cannot compile it: no such file$"):
        coreml.CoreMLEngine(Path("/m.mlpackage"), [VECTOR])


def test_every_setting_is_one_that_coremltools_has() -> None:
    import coremltools as ct

    assert {coreml._COMPUTE_UNITS[unit] for unit in Unit} == {unit.name for unit in ct.ComputeUnit}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML itself is here")
def test_through_coremltools_own_classes_it_computes_what_the_formula_says(tmp_path: Path) -> None:
    """With ``tlkit.anywhere`` behind coremltools, everything but Apple's library is the real thing.

    In a process of its own: what it installs changes coremltools for good.
    """
    script = f"""
import numpy as np
from pathlib import Path
from types import SimpleNamespace
from tlkit import anywhere
anywhere.install()
import coremltools as ct
from coremltools.converters.mil import Builder as mb
from tlkit.engines.coreml import engine as coreml
from tlkit.types import TensorSpec, Unit
coreml.is_mac = lambda: True
folder = Path({str(tmp_path)!r})

@mb.program(input_specs=[mb.TensorSpec((1, 4))])
def double(x):
    return mb.mul(x=x, y=np.float32(2), name="y")

ct.convert(double, convert_to="mlprogram", skip_model_load=True).save(str(folder / "double.mlpackage"))
given = np.array([[1, 2, 3, 4]], dtype=np.float32)
compiled = coreml.compile_model(folder / "double.mlpackage", folder)
assert compiled.is_dir(), compiled
for path in (compiled, folder / "double.mlpackage"):
    call = coreml.CoreMLEngine(path, [TensorSpec("x", "float32", (1, 4))], unit=Unit.CPU).bind({{"x": given}})
    for _ in range(2):
        np.testing.assert_array_equal(call()["y"], 2 * given)
print("computed")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.endswith("computed\n"), done.stderr


@pytest.mark.macos
@pytest.mark.parametrize("unit", list(Unit))
def test_core_ml_computes_what_the_formula_says(tmp_path: Path, unit: Unit) -> None:
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((1, 4))])
    def double(x: Any) -> Any:
        return mb.mul(x=x, y=np.float32(2), name="y")

    package = tmp_path / "double.mlpackage"
    ct.convert(double, convert_to="mlprogram", skip_model_load=True).save(str(package))
    compiled = coreml.compile_model(package, tmp_path)
    given = np.array([[1, 2, 3, 4]], dtype=np.float32)
    for path in (package, compiled):
        call = coreml.CoreMLEngine(path, [VECTOR], unit=unit).bind({"x": given})
        np.testing.assert_allclose(call()["y"], 2 * given, rtol=1e-3)
