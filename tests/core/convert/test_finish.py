"""Converting and compressing, or keeping in f32, in one command: the same package as in two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlkit
from tests.core.compress.test_auto import Uneven
from tests.core.compress.test_compress import ours
from tests.core.precision.test_mixed import Far, types
from tlkit.core.compress.wish import AutoCompressed
from tlkit.errors import UsageError


def test_quantizing_at_once_is_converting_and_editing(tmp_path: Path) -> None:
    plain, one, two = (tmp_path / f"{name}.mlpackage" for name in ("plain", "one", "two"))
    tlkit.convert(Uneven(), plain, inputs=["x=4x64"], verify=False)
    tlkit.edit(plain, two, quantize="int8", verify=False)
    made = tlkit.convert(Uneven(), one, inputs=["x=4x64"], quantize="int8")
    assert isinstance(made, tlkit.ConversionResult) and made.ok and made.verification is not None
    (part,) = made.parts
    assert isinstance(part, tlkit.Compressed) and part.check is not None and made.size == part.after < part.before
    assert made.info.metadata.quantization == "INT8" and made.path == one
    wanted = sorted(ours(two).values(), key=lambda value: (value.size, float(value.sum())))
    found = sorted(ours(one).values(), key=lambda value: (value.size, float(value.sum())))
    assert len(found) == 6 and all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_some_of_it_stays_in_f32(tmp_path: Path) -> None:
    goal = tmp_path / "far.mlpackage"
    made = tlkit.convert(Far(), goal, inputs=["x=2x16"], precision="auto", min_snr=45)
    assert isinstance(made, tlkit.ConversionResult) and made.ok and made.precision == "f16 but for 2 operations in f32"
    assert types(goal) == {"mul": "f32", "tanh": "f16", "linear": "f16"}


@pytest.mark.slow
def test_precision_and_weights_go_together_and_a_search_too(tmp_path: Path) -> None:
    made = tlkit.convert(
        Far(), tmp_path / "a.mlpackage", inputs=["x=2x16"], keep_f32=["mul"], palettize="8", weight_threshold=200
    )
    assert isinstance(made, tlkit.ConversionResult) and made.ok and len(made.parts) == 2
    assert types(tmp_path / "a.mlpackage")["mul"] == "f32" and made.info.metadata.quantization == "PAL8"
    made = tlkit.convert(Uneven(), tmp_path / "b.mlpackage", inputs=["x=4x64"], compress="auto", max_size="25kB")
    assert isinstance(made, tlkit.ConversionResult) and made.ok and isinstance(made.parts[0], AutoCompressed)
    assert made.size <= 25000
    made = tlkit.convert(Uneven(), tmp_path / "c.mlpackage", inputs=["x=4x64"], compress="auto", max_size="1kB")
    assert isinstance(made, tlkit.ConversionResult) and not made.ok and not (tmp_path / "c.mlpackage").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"quantize": "int7"}, "--quantize int7"),
        ({"quantize": "int4", "target": "iOS17"}, "this needs iOS18"),
        ({"compress": "auto"}, "what is it to reach"),
        ({"compress": "auto", "max_size": "5MB", "prune": "0.5"}, "--prune and --compress auto both choose"),
        ({"max_size": "5MB"}, "--max-size has nothing to do here"),
        ({"skip": ["a"]}, "--skip has nothing to do here"),
        ({"keep_f32": ["mul"], "precision": "f32"}, "all of it is in f32"),
        ({"quantize": "int8", "functions": ["other=net.py:Net"]}, "--quantize has nothing to do here"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_converted(
    tmp_path: Path, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        tlkit.convert("no_such_module:Net", tmp_path / "a.mlpackage", inputs=["x=1x8"], **options)
    with pytest.raises(UsageError, match="what is done to the weights"):
        tlkit.convert("net.mlpackage", tmp_path / "a.mlpackage", quantize="int8")
