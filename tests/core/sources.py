"""Small modules to convert, named by the tests as ``file.py:callable``. Their weights are seeded."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal

import torch
from torch import Tensor, nn


class Conv(nn.Module):
    """Convolution, batch norm, relu, linear: scores of five classes from (1, 3, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Linear(4 * 36, 5)
        nn.init.uniform_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)

    def forward(self, image: Tensor) -> Tensor:
        return self.out(torch.relu(self.norm(self.conv(image))).flatten(1)).softmax(-1)


class Tokens(nn.Module):
    """Two inputs and a dictionary of three outputs, one of them integers, one absent."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 8)

    def forward(self, ids: Tensor, scale: float = 2.0, mask: Tensor | None = None) -> dict[str, Tensor | None]:
        hidden = self.table(ids) * mask.unsqueeze(-1) * scale
        return {"hidden": hidden, "pooled": hidden.mean(1), "best": hidden.argmax(-1), "attentions": None}


class Branch(nn.Module):
    """Computes another thing when its input's sum is not positive."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x * -3


class Unsupported(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x)


class PassesThrough(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x


class Twice(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x + 1
        return y, y.clone()


class Interrupted(nn.Module):
    """Sends its process the signal that TLKIT_TEST_SIGNAL names, and swallows what comes of it."""

    def forward(self, x: Tensor) -> Tensor:
        with contextlib.suppress(BaseException):
            signal.raise_signal(int(os.environ["TLKIT_TEST_SIGNAL"]))
        return x + 1


def encoder() -> nn.Module:
    """torch's own encoder layer, which runs as one fused op unless it is told not to."""
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1, enable_nested_tensor=False)


def nothing() -> None:
    """A callable that returns no module."""


def fails() -> nn.Module:
    raise ValueError("no such checkpoint")


@dataclasses.dataclass
class Found:
    scores: Tensor
    boxes: Tensor


class Detector(nn.Module):
    """Returns a dataclass."""

    def forward(self, x: Tensor) -> Found:
        return Found(x.softmax(-1), x.sigmoid() * 2)


class Casts(nn.Module):
    """Casts its input to the type that its weights had; they are f32 when it is converted."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4).half()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.half())


class Complex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x) * 0.5, n=x.shape[-1])


class Complains(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no such thing")
