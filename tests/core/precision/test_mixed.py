"""Packages partly in f32: what is planted is kept and little else, and coremltools' own types say which is which.

Covers tlkit/core/precision/rounding.py, tlkit/core/precision/search.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch

import tlkit
from fixtures.strays import INPUTS, Strays
from tests.core.compress.test_compress import Small
from tlkit.core.compare.difference import snr_db
from tlkit.core.precision.mixed import mixed_precision
from tlkit.errors import UsageError


class Far(torch.nn.Module):
    """Leaves f16's range in one product and comes back in the next."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.one(x)) * 3e5
        scores: torch.Tensor = self.two(torch.tanh(hidden * 1e-5))
        return scores


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("far") / "far.mlpackage"
    tlkit.convert(Far(), path, inputs=["x=2x16"], precision="f32", verify=False)
    return path


def operations(path: Path) -> Sequence[Any]:
    """The operations of a package, as coremltools' protobuf has them."""
    program = ct.models.MLModel(str(path), skip_model_load=True).get_spec().mlProgram
    (block,) = program.functions["main"].block_specializations.values()
    found: Sequence[Any] = block.operations
    return found


def types(path: Path) -> dict[str, str]:
    """Each operation's type of result."""
    names = {10: "f16", 11: "f32"}
    found: dict[str, set[str]] = {}
    for item in operations(path):
        if item.type in ("mul", "tanh", "linear"):
            found.setdefault(item.type, set()).add(names[item.outputs[0].type.tensorType.dataType])
    return {kind: "/".join(sorted(kinds)) for kind, kinds in found.items()}


def test_what_overflows_is_kept_in_f32_and_the_rest_is_not(far: Path, tmp_path: Path) -> None:
    goal = tmp_path / "mixed.mlpackage"
    found = mixed_precision(far, goal, precision="auto", min_snr=45)
    assert found.ok and found.half_db < 20 and found.operations == 6
    # The first has a constant that coremltools leaves in f32, the second is given what f16 does not hold.
    assert [item.type for item in found.kept] == ["mul", "mul"]
    assert "a constant of it is over f16's" in found.kept[0].why and "65504" in found.kept[1].why
    assert types(goal) == {"mul": "f32", "tanh": "f16", "linear": "f16"}
    # Against PyTorch, which knows nothing of packages.
    x = np.random.default_rng(5).normal(size=(2, 16)).astype(np.float32)
    with torch.no_grad():
        want = Far()(torch.from_numpy(x)).numpy()
    (got,) = tlkit.load_model(goal).predict({"x": x}).values()
    assert snr_db(want, got) >= 45


@pytest.mark.parametrize("asked", [{"min_cosine": 0.9995}, {"min_top1": 1.0}])
def test_other_figures_than_the_signal_to_noise_are_kept(far: Path, tmp_path: Path, asked: dict[str, float]) -> None:
    found = mixed_precision(far, tmp_path / "mixed.mlpackage", precision="auto", **asked)  # type: ignore[arg-type]
    assert found.ok and found.target_db is None and found.asked and 0 < len(found.kept) < found.operations
    x = np.random.default_rng(5).standard_normal((2, 16)).astype(np.float32)
    (exact,) = tlkit.load_model(far, precision="f32").predict({"x": x}).values()
    (made,) = tlkit.load_model(tmp_path / "mixed.mlpackage").predict({"x": x}).values()
    assert (exact * made).sum() / np.linalg.norm(exact) / np.linalg.norm(made) > 0.999
    assert np.array_equal(exact.argmax(-1), made.argmax(-1))


def test_patterns_keep_what_they_name_and_a_stranger_is_refused(far: Path, tmp_path: Path) -> None:
    # coremltools counts its names through a whole process: the first linear is linear_0 only in a fresh one.
    first = next(item.outputs[0].name for item in operations(far) if item.type == "linear")
    found = tlkit.edit(far, tmp_path / "a.mlpackage", keep_f32=["mul", first])
    assert isinstance(found, tlkit.MixedPrecision) and found.ok
    assert sorted(item.type for item in found.kept) == ["linear", "mul", "mul"]
    assert types(tmp_path / "a.mlpackage") == {"mul": "f32", "tanh": "f16", "linear": "f16/f32"}
    found = mixed_precision(far, tmp_path / "b.mlpackage", keep_f32=["tanh"])
    assert not found.ok and found.unseen_db is not None and found.unseen_db < 26 and (tmp_path / "b.mlpackage").is_dir()
    with pytest.raises(UsageError, match="'conv' matches no operation"):
        mixed_precision(far, tmp_path / "c.mlpackage", keep_f32=["conv"])
    with pytest.raises(UsageError, match="two edits"):
        tlkit.edit(far, tmp_path / "c.mlpackage", keep_f32=["mul"], rename=["x=y"])
    assert not (tmp_path / "c.mlpackage").exists()


def test_it_says_where_f16_is_fine_as_it_is(tmp_path: Path) -> None:
    tlkit.convert(Small(), tmp_path / "small.mlpackage", inputs=["x=1x3x12x12"], precision="f32", verify=False)
    rng = np.random.default_rng(0)
    (tmp_path / "samples").mkdir()
    for index in range(5):
        np.savez(tmp_path / "samples" / f"{index}.npz", x=rng.normal(size=(1, 3, 12, 12)).astype(np.float32))
    found = mixed_precision(
        tmp_path / "small.mlpackage", tmp_path / "half.mlpackage", precision="auto", min_snr=40,
        samples=tmp_path / "samples",
    )  # fmt: skip
    assert found.ok and not found.kept and "fine as it is" in found.notes[0]
    assert found.seen == ("0.npz", "2.npz", "4.npz") and found.unseen == ("1.npz", "3.npz")
    assert types(tmp_path / "half.mlpackage") == {"linear": "f16"}


@pytest.mark.slow
def test_in_thirty_networks_the_target_is_kept_on_unseen_inputs_by_few_operations(tmp_path: Path) -> None:
    shares = []
    for seed in range(30):
        source = tmp_path / f"{seed}.mlpackage"
        tlkit.convert(Strays(seed).eval(), source, inputs=INPUTS, verify=False, auto=False, precision="f32")
        found = mixed_precision(source, tmp_path / f"{seed}m.mlpackage", precision="auto", min_snr=40)
        assert found.ok and found.half_db < 40, (seed, found)
        shares.append(len(found.kept) / found.operations)
    assert max(shares) < 0.4 and np.mean(shares) < 0.15, shares
