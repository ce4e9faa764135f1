"""ResNet-50 v1.5 in plain PyTorch, with seeded weights and calibrated batch norms; public as ``tlkit.models.resnet50``.

Attribute names are chosen so that the ``state_dict`` has torchvision's keys: conv1, bn1, layer1.0.conv1, ..., fc.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_SEED = 20240229
# A batch that calibrates in well under a second and still gives the last stage's norms 64 positions to average over.
_CALIBRATION_SHAPE = (4, 3, 128, 128)
# Images are mostly smooth: noise at these resolutions, enlarged and summed, spreads the norms' statistics as they do,
# where white noise by itself would make every picture look the same to the network.
_CALIBRATION_SCALES = (1, 4, 16, 128)
_EXPANSION = 4
_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""The four stages: (width of the 3x3 convolutions, blocks, stride of the first block)."""


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3, 1x1 expand, added to the input: (N, C, H, W) to (N, 4*width, H/stride, W/stride)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * _EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for ``x``."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(y + shortcut)  # type: ignore[no-any-return]


class ResNet50(nn.Module):
    """The network: float32 (N, 3, H, W) to (N, 1000) logits, for H and W of at least 32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = 64
        for index, (width, blocks, stride) in enumerate(_STAGES, start=1):
            self.add_module(f"layer{index}", _stage(channels, width, blocks, stride))
            channels = width * _EXPANSION
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 1000)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for index in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"layer{index}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(channels, width, stride)
    return nn.Sequential(first, *(Bottleneck(width * _EXPANSION, width, 1) for _ in range(blocks - 1)))


def build_resnet50() -> nn.Module:
    """Return the network in eval mode with its seeded weights; leave torch's global random state as it was."""
    with torch.device("meta"):  # the modules' own initialisation would draw from the global generator
        model = ResNet50()
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(_SEED)
    _initialise(model, generator)
    _calibrate(model, _pictures(generator))
    return model.eval()


@torch.no_grad()
def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Fill every parameter and buffer: He-normal convolutions, a unit-gain classifier, identity batch norms."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            module.weight.normal_(0.0, 1 / math.sqrt(module.in_features), generator=generator)
            module.bias.zero_()


def _pictures(generator: torch.Generator) -> Tensor:
    """Return random pictures of zero mean and unit variance, float32 ``_CALIBRATION_SHAPE``."""
    batch, channels, *size = _CALIBRATION_SHAPE
    total = torch.zeros(_CALIBRATION_SHAPE)
    for scale in _CALIBRATION_SCALES:
        noise = torch.randn(batch, channels, scale, scale, generator=generator)
        total += nn.functional.interpolate(noise, size=size, mode="bilinear")
    return total / total.std()


@torch.no_grad()
def _calibrate(model: nn.Module, images: Tensor) -> None:
    """Set the batch norms' running statistics to those of one forward pass over ``images``."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # one pass replaces the statistics outright
    model.train()(images)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
