"""All that coremltools cannot take, told at once: each op with its count, its module and its line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tlkit.core.convert.capture.preflight import PreflightError
from tlkit.core.convert.convert import convert
from tlkit.errors import ConversionError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Layer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x)[:, None] + torch.special.bessel_j0(x)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.rest = Layer(), nn.ModuleList([Layer(), nn.Linear(3, 3)])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.special.bessel_j0(self.first(x))
        for part in self.rest:
            x = part(x)
        return x


def line_of(kind: type[nn.Module], text: str) -> str:
    lines, start = inspect.getsourcelines(kind)
    return f"{Path(__file__).name}:{start + next(i for i, line in enumerate(lines) if text in line)}"


@pytest.mark.parametrize("export", [False, True], ids=["trace", "export"])
def test_every_op_with_its_places(tmp_path: Path, export: bool) -> None:
    with pytest.raises(PreflightError) as caught:
        convert(Layers(), tmp_path / "m.mlpackage", inputs=["x=3x3"], export=export)
    found = {item.op.removeprefix("_").split(".")[0].split("_svd")[0]: item for item in caught.value.unsupported}
    assert set(found) == {"linalg", "special_bessel_j0"}
    bessel, svd = found["special_bessel_j0"], found["linalg"]
    inside, above = line_of(Layer, "bessel_j0"), line_of(Layers, "bessel_j0")
    assert bessel.count == 3
    assert [(place.module, place.line) for place in bessel.places] == [
        ("first", inside),
        ("", above),
        ("rest.0", inside),
    ]
    assert svd.count == 2
    assert {(place.module, place.line) for place in svd.places} == {("first", inside), ("rest.0", inside)}
    assert ("traced, it fails" if export else "captured by torch.export, it fails") in caught.value.hint
    assert list(tmp_path.iterdir()) == []


class Loops(nn.Module):
    """torch.export refuses to choose by values; tracing records the choice."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x * 3


def test_the_other_way_is_taken_where_it_works(tmp_path: Path) -> None:
    """Each way that was tried is told, and what the other froze; without ``auto`` there is only one."""
    result = convert(Loops(), tmp_path / "m.mlpackage", inputs=["x=3x3"], export=True)
    told = " ".join(result.notes)
    assert "captured by torch.export, it cannot be converted (cannot export the model" in told
    assert f"tracing fixed a choice that depends on an input's values, at {line_of(Loops, 'x.sum()')}" in told
    # It is checked where the source chooses otherwise, too.
    assert result.verification is not None and result.verification.passed is False
    assert any("where it chooses otherwise" in reason for reason in result.verification.reasons)
    with pytest.raises(ConversionError, match="cannot export the model"):
        convert(Loops(), tmp_path / "n.mlpackage", inputs=["x=3x3"], export=True, auto=False)


def part_scaled(y: Tensor) -> Tensor:
    y[:, 1:3].mul_(2)
    return y


def part_relu(y: Tensor) -> Tensor:
    y[0].relu_()
    return y + 1


def columns_set(y: Tensor) -> Tensor:
    y[:, torch.tensor([1, 2])] = 0
    return y


def reshaped_set(y: Tensor) -> Tensor:
    y.view(2, 4)[0] = 3
    return y


def slice_set(y: Tensor) -> Tensor:
    y[:, 1:3] = 2
    return y


def slice_added(y: Tensor) -> Tensor:
    y[:, 1:3] += 2
    return y


def chosen_set(y: Tensor) -> Tensor:
    y[y > 0] = 0
    return y


def part_kept(y: Tensor) -> Tensor:
    return y[:, 1:3].mul_(2)


def all_scaled(y: Tensor) -> Tensor:
    y.mul_(2).clamp_(0)
    return y


class Writes(nn.Module):
    def __init__(self, write: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        return self.write(x * 1)


WRITES = [part_scaled, part_relu, columns_set, reshaped_set, slice_set, slice_added, chosen_set, part_kept, all_scaled]


@pytest.mark.parametrize("write", WRITES)
def test_writes_into_parts_are_followed(write: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    """Verification is the judge: a trace keeps each write, and no note says that one would be lost."""
    result = convert(Writes(write), tmp_path / "m.mlpackage", inputs=["x=1x8"], precision="f32", auto=False)
    assert result.ok
    assert not [note for note in result.notes if "writes into a part" in note]
