"""A small image classifier."""

from __future__ import annotations

from torch import Tensor, nn


class Net(nn.Module):
    """Three classes of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 7, stride=4)
        self.out = nn.Linear(4, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.out(self.conv(image).relu().mean((2, 3))).softmax(1)
