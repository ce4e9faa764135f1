"""Modules that torch.export writes with all that an archive can hold, each with inputs and dynamic sizes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

Case = tuple[nn.Module, tuple[Any, ...], dict[str, Any], Any]
CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 3)
        self.constant = torch.ones(3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": (self.layer(x) * self.constant).reshape(-1, 6)}


class Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(8, 4), nn.Linear(4, 8, bias=False)
        self.out.weight = self.embedding.weight
        for dtype in ("float16", "bfloat16", "float64", "uint8", "int8", "int16", "int32", "bool", "complex64"):
            self.register_buffer(f"of_{dtype}", torch.ones(4).to(getattr(torch, dtype)))
        self.register_buffer("of_float8", torch.ones(4).to(torch.float8_e4m3fn))
        self.register_buffer("numbers", torch.arange(4))
        self.register_buffer("part", self.numbers[1:3])
        self.register_buffer("empty", torch.empty(0))
        self.register_buffer("scalar", torch.tensor(2.5))
        self.register_buffer("turned", torch.arange(12.0).reshape(3, 4).t())
        self.register_buffer("not_kept", torch.ones(3), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        special = ("of_float8", "of_bool")
        total = sum(value.abs().sum().float() for name, value in self.named_buffers() if name not in special)
        total = total + self.of_float8.float().sum() + self.of_bool.sum()
        return self.out(self.embedding(x)) + total, torch.tensor([1.0])


@case
def buffers() -> Case:
    return Buffers(), (torch.tensor([1, 2, 3]),), {}, None


class Sizes(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        z = torch.cat([x, y], 1)
        rows, columns = z.shape
        padded = nn.functional.pad(z, (0, columns % 3))
        larger = nn.functional.interpolate(z[:, None], scale_factor=2.0)
        pooled = nn.functional.avg_pool1d(z, 3, stride=2)
        return (
            z[:, ::2],
            torch.arange(columns),
            torch.zeros(rows, columns + 1),
            z * max(rows, columns),
            padded,
            larger,
            pooled,
        )


@case
def sizes() -> Case:
    rows = Dim("rows", min=2, max=64)
    shapes = {"x": {0: rows, 1: Dim("first", min=3, max=100)}, "y": {0: rows, 1: Dim("second", min=3)}}
    return Sizes(), (torch.randn(4, 6), torch.randn(4, 5)), {}, shapes


class Derived(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x[1:] + y


@case
def derived() -> Case:
    size = Dim("size", min=3, max=30)
    return Derived(), (torch.randn(6), torch.randn(5)), {}, {"x": {0: size}, "y": {0: size - 1}}


class Unbacked(nn.Module):
    def forward(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        n = count.item()
        torch._check(n >= 0)
        torch._check(n <= x.shape[0])
        return x[:n], torch.nonzero(x)


@case
def unbacked() -> Case:
    return Unbacked(), (torch.randn(8), torch.tensor(3)), {}, None


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.layer(x), lambda x: x - 1, (x,))


@case
def branches() -> Case:
    return Branches(), (torch.randn(2, 3),), {}, None


class Loops(nn.Module):
    def forward(self, x: Tensor) -> Any:
        def more(i: Tensor, x: Tensor) -> Tensor:
            return i < 3

        def step(i: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, x * 2

        return torch._higher_order_ops.while_loop(more, step, (torch.tensor(0), x))


@case
def loops() -> Case:
    return Loops(), (torch.randn(2, 3),), {}, None


class Changes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.state.add_(x)
        return self.state * 2


@case
def changes() -> Case:
    return Changes(), (torch.randn(2, 3),), {}, None


class Containers(nn.Module):
    def forward(self, given: Any, *rest: Tensor, scale: float = 1.0, mode: str = "a", **others: Tensor) -> Any:
        x = given["image/left"] + given["b"][0] + rest[0]
        return OrderedDict([("out/put", x * scale), ("nested", [x, (others["z"], None)]), ("three", 3)])


@case
def containers() -> Case:
    given = {"image/left": torch.randn(2), "b": [torch.randn(2)]}
    return Containers(), (given, torch.randn(2)), {"scale": 2.0, "mode": "b", "z": torch.randn(2)}, None


class Words(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        grid = torch.meshgrid(x[0], x[0], indexing="ij")
        low = x.masked_fill(x > 0, float("-inf")).to(torch.float16)
        return torch.einsum("ij,jk->ik", x, x), *grid, torch.div(x, 2, rounding_mode="floor"), low, torch.rand_like(x)


@case
def words() -> Case:
    return Words(), (torch.randn(3, 3),), {}, None


class Modes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"in/x": nn.Linear(3, 3)})
        self.scales = nn.ParameterDict({"a b": nn.Parameter(torch.randn(3)), "c-d": nn.Parameter(torch.randn(3))})

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.layers["in/x"](x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = self.layers["in/x"](x)
        return y * self.scales["a b"] + z.float() * self.scales["c-d"]


@case
def modes() -> Case:
    return Modes(), (torch.randn(2, 3),), {}, None


@case
def attention() -> Case:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return layer, (torch.randn(1, 3, 8),), {}, ({1: Dim("tokens", min=2, max=64)},)


@case
def convolutions() -> Case:
    layers = (nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.GELU("tanh"), nn.Upsample(scale_factor=2, mode="bilinear"))
    sizes = {0: Dim("b", max=8), 2: Dim("h", min=8, max=64), 3: Dim("w", min=8, max=64)}
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2)), (torch.randn(2, 3, 16, 16),), {}, (sizes,)


@case
def recurrent() -> Case:
    return nn.LSTM(4, 5, 2, bidirectional=True), (torch.randn(3, 1, 4),), {}, None
