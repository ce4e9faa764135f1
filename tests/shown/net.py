"""The networks that the documents convert: small ones under the names that the examples use."""

from __future__ import annotations

from torch import Tensor, nn


class Net(nn.Module):
    """A small image network for 3 channels: 1x3xHxW to 1x4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(x).relu().mean((2, 3)))
