"""What the networks of ``latency.csv`` have to do, operation by operation, without converting them.

``python benchmarks/latency_networks.py > FILE``, then FILE is the new ``latency_networks.csv``. Needs timm (not a
dependency of tlkit). Networks are built on PyTorch's meta device, without weights, and each call of a torch function is
counted as the operation that coremltools makes of it; batch norms count as folded. Of the eight that were converted as
well, multiply-accumulates are equal and bytes of values within a quarter. GPT-2's layers are counted once and
multiplied; CenterNet's head and CLIP's text encoder are written out here. Depth Anything's rows are kept from the file:
they were counted in the same way of a network written after its paper.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
FREE = {"relu", "relu_", "hardtanh", "reshape", "view", "flatten", "squeeze", "unsqueeze"}
NOTHING = {"batch_norm", "dropout", "contiguous", "size", "dim", "__get__", "__set__", "to", "float", "detach"}
NOTHING |= {"identity", "clone", "expand", "expand_as", "stride", "type_as", "is_contiguous", "numel"}
Row = tuple[str, int, int, int]
"""The rate that an operation goes by, multiply-accumulates, bytes of values and of weights, all in f16."""


class Counted(TorchFunctionMode):
    """Counts what torch functions are called for."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        leaves = torch.utils._pytree.tree_leaves
        made = [item for item in leaves(out) if isinstance(item, torch.Tensor)]
        if made and name not in NOTHING:
            given = [item for item in leaves((args, kwargs)) if isinstance(item, torch.Tensor)]
            self.rows += _rows(name, args, given, made)
        return out


def _rows(name: str, args: Any, given: list[Any], made: list[Any]) -> list[Row]:
    fixed = [item for item in given if isinstance(item, nn.Parameter)]
    nbytes = 2 * sum(item.numel() for item in given + made) - 2 * sum(item.numel() for item in fixed)
    weights = 2 * sum(item.numel() for item in fixed if item.numel() > 16)
    if name in ("conv1d", "conv2d"):
        kernel = args[1].shape
        depthwise = kernel[1] == 1 and kernel[0] != 1
        return [("depthwise" if depthwise else "conv", made[0].numel() * math.prod(kernel[1:]), nbytes, weights)]
    if name == "conv_transpose2d":
        return [("conv", args[0].numel() * math.prod(args[1].shape[1:]), nbytes, weights)]
    if name == "linear":
        return [("linear", made[0].numel() * args[1].shape[1], nbytes, weights)]
    if name in ("matmul", "bmm", "__matmul__"):
        return [("matmul", made[0].numel() * args[0].shape[-1], nbytes, weights)]
    if name == "scaled_dot_product_attention":
        return [("matmul", 2 * args[0].numel() * args[1].shape[-2], nbytes, weights)]
    if name == "embedding":
        return [("values", 0, 4 * made[0].numel(), weights)]
    if name == "hardswish":  # an addition, a clip, a product
        return [("values", 0, nbytes, 0), ("free", 0, nbytes, 0), ("values", 0, nbytes, 0)]
    return [("free" if name in FREE else "values", 0, nbytes, weights)]


class Layer(nn.Module):
    """A transformer's, of GPT-2's kind."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any, mask: Any) -> Any:
        """Attention and two linear layers."""
        _, length, width = x.shape
        parts = self.qkv(self.before(x)).split(width, 2)
        q, k, v = (part.reshape(1, length, self.heads, width // self.heads).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(2, 3) * (width // self.heads) ** -0.5 + mask
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(1, length, width)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.between(x)), approximate="tanh"))


class Text(nn.Module):
    """Layers with an embedding or without, and a head over the vocabulary."""

    def __init__(self, width: int, heads: int, layers: int, words: int, length: int, embeds: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width) if embeds else None
        self.place = nn.Parameter(torch.empty(1, length, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = None if embeds else nn.Linear(width, words, bias=False)
        self.mask = nn.Buffer(torch.empty(1, 1, length, length))

    def forward(self, x: Any) -> Any:
        """Return what the head makes of the last layer."""
        x = (x if self.embed is None else self.embed(x)) + self.place
        for layer in self.layers:
            x = layer(x, self.mask)
        return self.norm(x) if self.head is None else self.head(self.norm(x))


class CenterNet(nn.Module):
    """ResNet-34, three transposed convolutions, three heads."""

    def __init__(self) -> None:
        super().__init__()
        import timm

        self.body = timm.create_model("resnet34", pretrained=False, features_only=True, out_indices=(4,))
        sizes = ((512, 256), (256, 128), (128, 64))
        self.up = nn.ModuleList(nn.ConvTranspose2d(*size, 4, 2, 1) for size in sizes)
        self.first = nn.ModuleList(nn.Conv2d(64, 64, 3, 1, 1) for _ in range(3))
        self.last = nn.ModuleList(nn.Conv2d(64, size, 1) for size in (80, 2, 2))

    def forward(self, x: Any) -> Any:
        """Return the heads' maps."""
        x = self.body(x)[0]
        for up in self.up:
            x = F.relu(up(x))
        return [last(F.relu(first(x))) for first, last in zip(self.first, self.last, strict=True)]


class Convolutions(nn.Module):
    """Four convolutions of 256 channels with a rectifier in the middle, as published for an M4."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(256, 256, 3, 1, 1, bias=False) for _ in range(4))

    def forward(self, x: Any) -> Any:
        """Return the last map."""
        for index, layer in enumerate(self.layers):
            x = F.relu(layer(x))
            x = F.relu(x) if index == 1 else x
        return x


def _timm(name: str, *size: int, fused: bool = False) -> Callable[[], tuple[nn.Module, Any]]:
    def make() -> tuple[nn.Module, Any]:
        import timm
        from timm.utils.model import reparameterize_model

        model = timm.create_model(name, pretrained=False).eval()
        model = reparameterize_model(model) if fused else model
        if fused and hasattr(model, "fuse"):
            model.fuse()
        return model, torch.empty(1, 3, *size)

    return make


def _text(width: int, heads: int, layers: int, words: int, length: int, embeds: bool) -> Any:
    x = torch.empty(1, length, dtype=torch.int32) if embeds else torch.empty(1, length, width)
    return Text(width, heads, layers, words, length, embeds).eval(), x


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "mobilenetv2": _timm("mobilenetv2_100", 224, 224),
    "mobilevitv2": _timm("mobilevitv2_100", 256, 256),
    "mobilenetv3s": _timm("mobilenetv3_small_100", 224, 224),
    "densenet121": _timm("densenet121", 224, 224),
    "efficientformer_l1": _timm("efficientformer_l1", 224, 224),
    "efficientformer_l7": _timm("efficientformer_l7", 224, 224),
    "repvit_m1": _timm("repvit_m1_0", 224, 224, fused=True),
    "repvit_m2": _timm("repvit_m2_3", 224, 224, fused=True),
    "mci1": _timm("fastvit_mci1", 256, 256, fused=True),
    "vit_mci": _timm("vit_base_mci_224", 224, 224),
    "swiftformer_xs": _timm("swiftformer_xs", 224, 224),
    "swiftformer_l3": _timm("swiftformer_l3", 224, 224),
    **{
        name: _timm(name, 256, 256, fused=True)
        for name in ("fastvit_t8", "fastvit_ma36", "fastvit_s12", "fastvit_sa36")
    },
    **{name: _timm(name, 224, 224) for name in ("resnet50", "resnet101", "resnet152")},
    "centernet": lambda: (CenterNet().eval(), torch.empty(1, 3, 512, 512)),
    "convs": lambda: (Convolutions(), torch.empty(1, 256, 64, 64)),
    "text12": lambda: _text(512, 8, 12, 49408, 77, True),
    "text6": lambda: _text(512, 8, 6, 49408, 77, True),
}


def counted(make: Callable[[], tuple[nn.Module, Any]]) -> Counter[Row]:
    """Build the network without memory, run it, and return its operations, those alike together."""
    with torch.device("meta"):
        model, x = make()
    with torch.no_grad(), Counted() as found:
        model(x)
    return Counter(found.rows)


def gpt2(layers: int, length: int) -> Counter[Row]:
    """GPT-2 of 12 or 36 layers: one layer, and what a second one adds as often as is needed."""
    width, heads = {12: (768, 12), 36: (1280, 20)}[layers]
    one, two = (counted(lambda n=n: _text(width, heads, n, 50257, length, False)) for n in (1, 2))  # type: ignore[misc]
    return Counter({row: one[row] + (layers - 1) * (two[row] - one[row]) for row in two})


def main() -> None:
    """Print the table for the networks that are named in ``latency.csv``, in that order."""
    from benchmarks.latency import figures

    kept = (ROOT / "benchmarks/latency_networks.csv").read_text().splitlines()
    print(kept[0])
    print("network,rate,macs,nbytes,weights,count")
    for name in dict.fromkeys(figure.network for figure in figures()):
        if name.startswith("gpt2"):
            layers, _, length = name.removeprefix("gpt2").lstrip("_L").partition("x")
            rows = gpt2(int(layers.lstrip("_")), int(length))
        elif name in NETWORKS:
            rows = counted(NETWORKS[name])
        else:
            print("\n".join(line for line in kept if line.startswith(f"{name},")))
            continue
        for row, count in rows.items():
            print(f"{name},{','.join(map(str, row))},{count}")


if __name__ == "__main__":
    main()
