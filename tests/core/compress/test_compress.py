"""Compressed packages: every weight is, bit for bit, what coremltools' own decompression makes of it.

Covers tlkit/core/compress/tools.py.
"""

from __future__ import annotations

from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from torch import nn

import tlkit
from tlkit.core.compress.choices import parse_choice
from tlkit.core.compress.compress import compress
from tlkit.core.model.load import load_model
from tlkit.errors import UsageError
from tlkit.formats.coreml.open import open_package
from tlkit.mil.program import walk


class Small(nn.Module):
    """A convolution and two products: 24 thousand weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.one, self.two = nn.Conv2d(3, 64, 3), nn.Linear(64, 128), nn.Linear(128, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.two(torch.relu(self.one(torch.relu(self.conv(x)).mean((2, 3)))))
        return hidden


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.mlpackage"
    tlkit.convert(Small(), path, inputs=["x=1x3x12x12"], verify=False, target="iOS18")
    return path


def ours(path: Path) -> dict[str, np.ndarray]:
    """The weights as tlkit reads them, by the operation's own name without what the compression adds."""
    return {name: tensor.numpy() for name, tensor in load_model(path).tensors().items()}


def theirs(path: Path, goal: Path) -> dict[str, np.ndarray]:
    """The weights as coremltools decompresses them."""
    cto.decompress_weights(ct.models.MLModel(str(path), skip_model_load=True)).save(str(goal))
    return ours(goal)


def same_weights(path: Path, scratch: Path) -> int:
    """How many weights of over a thousand elements were compared; each is equal."""
    wanted = [value for value in theirs(path, scratch).values() if value.size > 1000]
    found = [value for value in ours(path).values() if value.size > 1000]
    assert len(wanted) == len(found)
    for one, other in zip(wanted, found, strict=True):
        assert np.array_equal(one.astype(np.float32), other.astype(np.float32))
    return len(found)


def test_int8_halves_the_weights_and_palettes_of_4_bits_quarter_them(package: Path, tmp_path: Path) -> None:
    found = compress(package, tmp_path / "int8.mlpackage", quantize="int8")
    assert found.ok and found.check is not None and found.check.outputs["output"].snr_db > 35
    assert same_weights(tmp_path / "int8.mlpackage", tmp_path / "plain.mlpackage") == 3
    packed = [item for item in found.weights if item.choice == "int8"]
    # A scale of two bytes for each channel comes along: 128 channels of 64 are 1.6 % more, 64 of 27 are 3.7 %.
    assert [round(item.after / item.before, 3) for item in packed] == [0.537, 0.516, 0.508]
    found = compress(package, tmp_path / "four.mlpackage", palettize="4", skip=["*two*"], threshold=1000)
    sizes = {item.name: (item.choice, item.after / item.before) for item in found.weights}
    kept = [pair for name, pair in sizes.items() if "two" in name]
    assert kept == [("as it is", 1.0)]
    assert all(0.25 <= share < 0.28 for name, (_, share) in sizes.items() if "two" not in name)


@pytest.mark.parametrize(
    ("mode", "kind", "bits"),
    [
        ({"quantize": "int8"}, "constexpr_sparse_blockwise_shift_scale", 8),
        ({"palettize": "4"}, "constexpr_lut_to_sparse", 4),
    ],
)
def test_what_pruning_leaves_is_packed_too(
    package: Path, tmp_path: Path, mode: dict[str, str], kind: str, bits: int
) -> None:
    """A bit for each element says where it is; the half that is left has ``bits`` each."""
    found = compress(package, tmp_path / _SMALL, prune="0.5", **mode, threshold=2048, verify=False)  # type: ignore[arg-type]
    assert same_weights(tmp_path / _SMALL, tmp_path / "plain.mlpackage") == 3
    program = open_package(tmp_path / _SMALL).program
    assert program is not None
    assert sum(item.type == kind for item in walk(program.function().block.operations)) == 2
    share = (1 + bits / 2) / 16
    assert all(share <= item.after / item.before < share + 0.02 for item in found.weights)
    # What is left has nearly the same values: zeros take no entry of the palette.
    for name, before in ours(package).items():
        if before.size > 5000:
            after = next(value for key, value in ours(tmp_path / _SMALL).items() if key.startswith(name))
            left = after != 0
            noise = np.square(after[left].astype(np.float64) - before[left]).sum()
            assert np.square(before[left].astype(np.float64)).sum() / noise > 10 ** ({8: 40, 4: 22}[bits] / 10)


def test_a_weight_of_just_the_threshold_is_compressed(package: Path, tmp_path: Path) -> None:
    found = compress(package, tmp_path / _SMALL, palettize="6", threshold=64 * 128, verify=False)
    assert [item.choice for item in found.weights] == ["palette6", "palette6"]
    found = compress(package, tmp_path / _SMALL, palettize="6", threshold=64 * 128 + 1, verify=False, force=True)
    assert [item.choice for item in found.weights] == ["palette6"]


class Kernels(nn.Module):
    """Small kernels are most of the first, and a thousandth of the second beside a large product."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.deep, self.wide = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 3)
        self.out = nn.Linear(16, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.out(torch.relu(self.wide(self.deep(x))).mean((2, 3)))
        return hidden


@pytest.mark.slow
def test_small_weights_are_compressed_where_they_are_much_of_all(tmp_path: Path) -> None:
    """72, 1,152 and 256 elements: the first stays, as too few; all but the last of the second model's are 1 %."""
    for width, names in ((16, {"wide", "out"}), (10_000, {"out"})):
        tlkit.convert(Kernels(width), tmp_path / "k.mlpackage", inputs=["x=1x8x8x8"], verify=False, force=True)
        found = compress(tmp_path / "k.mlpackage", tmp_path / _SMALL, quantize="int8", verify=False, force=True)
        assert {item.name.split("_")[1] for item in found.weights} == names
    # A palette of 256 entries is larger than a weight of 256 elements.
    tlkit.convert(Kernels(16), tmp_path / "k.mlpackage", inputs=["x=1x8x8x8"], verify=False, force=True)
    found = compress(tmp_path / "k.mlpackage", tmp_path / _SMALL, palettize="8", verify=False, force=True)
    assert {item.name.split("_")[1]: item.choice for item in found.weights} == {"wide": "palette8", "out": "as it is"}
    found = compress(
        tmp_path / "k.mlpackage", tmp_path / _SMALL, quantize="int8", threshold=2, verify=False, force=True
    )
    assert len(found.weights) > 2  # vectors too, where that is asked for


@pytest.mark.slow
def test_half_of_a_large_weight_is_pruned(tmp_path: Path) -> None:
    """By itself coremltools leaves f16 weights of more than some 65,504 elements nearly as they are."""
    torch.manual_seed(0)
    tlkit.convert(nn.Linear(512, 320), tmp_path / "large.mlpackage", inputs=["x=1x512"], verify=False)
    found = compress(tmp_path / "large.mlpackage", tmp_path / _SMALL, prune="0.5", verify=False)
    assert all(item.after / item.before < 0.57 for item in found.weights)
    (weight,) = (value for value in ours(tmp_path / _SMALL).values() if value.size == 512 * 320)
    assert 0.49 < (weight == 0).mean() < 0.51


class Table(nn.Module):
    """Rows of a table, of which the first two are zero: what is drawn has to look further."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(300, 32)
        self.table.weight.data[:2] = 0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = self.table(ids)
        return rows * 2


def test_integers_that_index_a_table_are_drawn_from_all_of_it(tmp_path: Path) -> None:
    tlkit.convert(Table(), tmp_path / "t.mlpackage", inputs=["ids=1x16:i32"], verify=False)
    found = compress(tmp_path / "t.mlpackage", tmp_path / _SMALL, palettize="2")
    assert found.check is not None and 5 < found.check.outputs["output"].snr_db < 20


def test_what_does_not_fit_is_stored_without_groups_and_told(package: Path, tmp_path: Path) -> None:
    found = compress(package, tmp_path / _SMALL, palettize="4:group=48", verify=False)
    assert {item.choice for item in found.weights} == {"palette4"}
    assert all(item.after / item.before < 0.26 for item in found.weights)
    assert any("palette4:group=48 does not fit: palette4" in note for note in found.notes)
    # One of three: the others go into blocks of 64.
    found = compress(package, tmp_path / "b.mlpackage", quantize="int4:per-block=64", threshold=1000, verify=False)
    assert sorted(item.choice for item in found.weights) == ["int4", "int4:per-block=64", "int4:per-block=64"]


_SMALL = "small.mlpackage"
MODES = (
    {"quantize": "int4"},
    {"quantize": "int4:per-block=32"},
    {"quantize": "int8:per-tensor"},
    {"palettize": "8"},
    {"palettize": "6"},
    {"palettize": "3"},
    {"palettize": "2"},
    {"palettize": "1"},
    {"palettize": "4:group=16"},
    {"palettize": "4:vector=2"},
    {"prune": "0.5"},
    {"prune": "2:4"},
    {"prune": "0.5", "quantize": "int8"},
    {"prune": "0.5", "quantize": "int4"},
    {"prune": "0.5", "palettize": "4"},
    {"prune": "0.5", "palettize": "4:group=16"},
)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_mode_is_what_coremltools_decompresses(package: Path, tmp_path: Path, mode: dict[str, str]) -> None:
    found = compress(package, tmp_path / _SMALL, **mode)  # type: ignore[arg-type]
    assert found.ok and found.after < found.before, found
    assert same_weights(tmp_path / _SMALL, tmp_path / "plain.mlpackage") == 3
    original, made = (
        ours(package),
        [value for value in ours(tmp_path / "small.mlpackage").values() if value.size > 5000],
    )
    for before, after in zip([value for value in original.values() if value.size > 5000], made, strict=True):
        assert not np.array_equal(before, after)
        if "prune" in mode:
            assert np.mean(after == 0) == pytest.approx(0.5, abs=0.02)


def test_the_last_rule_that_matches_counts(package: Path, tmp_path: Path) -> None:
    found = compress(
        package,
        tmp_path / "a.mlpackage",
        rules=["linear=int8", "*two*=palette6", "conv=none"],
        threshold=1000,
        verify=False,
    )
    choices = [item.choice for item in sorted(found.weights, key=lambda item: item.name)]
    assert choices == ["as it is", "int8", "palette6"]


def test_a_system_that_is_too_old_is_refused_and_a_newer_one_chosen(package: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"int4 needs iOS18; --target iOS16 is older"):
        compress(package, tmp_path / "a.mlpackage", quantize="int4", target="iOS16")
    with pytest.raises(UsageError, match="matches no weight"):
        compress(package, tmp_path / "a.mlpackage", quantize="int8", skip=["nothing"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["int8", "int4:per-block=64", "palette3:group=8", "prune0.5+int8", "prune2:4", "none"])
def test_a_choice_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_choice(text)) == {"none": "as it is"}.get(text, text)
