"""The built-in networks: ``bench`` measures one when no model is named, and ``convert`` takes them by name.

They are plain PyTorch with seeded random weights, so nothing is downloaded and every machine measures the same network.
Importing this module imports neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Builtin:
    """A network that users can name: how to build it, and its one input.

    ``build`` returns the module in eval mode; ``shape`` is the example's (batch, channels, height, width), float32.
    """

    name: str
    build: Callable[[], nn.Module]
    input_name: str
    shape: tuple[int, ...]
    description: str = ""


def resnet50() -> nn.Module:
    """Return ResNet-50 v1.5 in eval mode: float32 (N, 3, H, W) in, (N, 1000) logits out, 25,557,032 parameters.

    The architecture is that of He et al. 2015 (arXiv:1512.03385) with the stride of a downsampling block on its 3x3
    convolution ("v1.5"); parameters have torchvision's names, so its checkpoints load with ``load_state_dict``. Weights
    are random (He et al. 2015, arXiv:1502.01852) but the same at every call, and batch-norm statistics come from a
    seeded forward pass, so activations keep unit scale and fit f16. The global random state is not touched. Inputs are
    expected at about zero mean and unit variance, as after ImageNet normalization.
    """
    from tlkit._resnet import build_resnet50

    return build_resnet50()


BUILTINS: dict[str, Builtin] = {
    "resnet50": Builtin(
        "resnet50", resnet50, "image", (1, 3, 224, 224), "ResNet-50 v1.5, 1000 classes, seeded random weights"
    ),
}
"""Built-in networks by name, as ``tlkit convert`` and ``tlkit bench`` take them."""
