"""All that coremltools cannot take, told at once: each op with its count, its module and its line."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tlkit.core.convert import convert
from tlkit.core.preflight import PreflightError

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
    assert "would not help" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


class Loops(nn.Module):
    """torch.export refuses to choose by values; tracing records the choice."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x * 3


def test_the_other_way_is_named_where_it_works(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="cannot export the model") as caught:
        convert(Loops(), tmp_path / "m.mlpackage", inputs=["x=3x3"], export=True)
    assert "without --export it can be captured" in str(getattr(caught.value, "hint", ""))
