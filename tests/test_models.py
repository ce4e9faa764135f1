"""The built-in networks: the usual ResNet-50, the same on every build, and at home in f16.

Covers tlkit/_resnet.py, tlkit/types.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tlkit.models import BUILTINS, resnet50

F16_MAX = 65504.0


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return resnet50()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(2, 3, 224, 224, generator=generator)
    waves = torch.sin(torch.linspace(0, 40, 224))[None, None, :, None] + torch.linspace(-1, 1, 224)
    return torch.cat([noise, waves.expand(1, 3, 224, 224)])


def usual_names() -> Iterator[str]:
    """The keys of the published ResNet-50 checkpoints, from the paper's table: blocks a stage, layers a block."""

    def norm(name: str) -> Iterator[str]:
        return (f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))

    yield "conv1.weight"
    yield from norm("bn1")
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            for index in (1, 2, 3):
                yield f"layer{layer}.{block}.conv{index}.weight"
                yield from norm(f"layer{layer}.{block}.bn{index}")
            if block == 0:
                yield f"layer{layer}.0.downsample.0.weight"
                yield from norm(f"layer{layer}.0.downsample.1")
    yield from ("fc.weight", "fc.bias")


def test_is_the_usual_resnet50(model: nn.Module) -> None:
    assert sum(p.numel() for p in model.parameters()) == 25_557_032
    state = model.state_dict()
    assert list(state) == list(usual_names())
    assert state["layer4.0.downsample.0.weight"].shape == (2048, 1024, 1, 1)
    assert state["fc.weight"].shape == (1000, 2048)
    # v1.5: the 3x3 convolution carries the stride of a stage's first block, not the 1x1 before it.
    strides = {name: m.stride for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)}
    assert sorted(strides) == ["conv1"] + [
        f"layer{n}.0.{part}" for n in (2, 3, 4) for part in ("conv2", "downsample.0")
    ]
    assert not any(module.training for module in model.modules())


def test_costs_4_1_gmacs(model: nn.Module) -> None:
    """The multiply-accumulates of ResNet-50 v1.5 at 224x224 are 4.09 G: one per weight use."""
    macs = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        positions = output[0, 0].numel() if isinstance(module, nn.Conv2d) else 1
        macs += positions * sum(p.numel() for name, p in module.named_parameters() if name == "weight")

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    for handle in handles:
        handle.remove()
    assert macs == pytest.approx(4.09e9, rel=0.002)


def test_is_the_same_at_every_build_and_leaves_the_random_state_alone(model: nn.Module) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    again = resnet50()
    assert torch.equal(torch.get_rng_state(), before)
    first, second = model.state_dict(), again.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_stays_within_f16(model: nn.Module, images: torch.Tensor) -> None:
    """No activation comes near f16's maximum, and rounding weights and activations to f16 hardly moves the logits."""
    peaks: list[float] = []

    def note(module: nn.Module, _: object, output: torch.Tensor) -> None:
        peaks.append(output.abs().max().item())

    def store_as_f16(module: nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
        return output.half().float()

    handles = [module.register_forward_hook(note) for module in model.modules()]
    with torch.no_grad():
        expected = model(images)
        for handle in handles:
            handle.remove()
        assert 0.1 < max(peaks) < F16_MAX / 8

        rounded = resnet50()
        for parameter in rounded.parameters():
            parameter.copy_(parameter.half().float())
        for module in rounded.modules():
            module.register_forward_hook(store_as_f16)
        actual = rounded(images.half().float())
    assert torch.isfinite(actual).all()
    assert torch.cosine_similarity(expected, actual).min() > 0.999


def test_tells_pictures_apart(model: nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        logits = model(images)
    assert logits.std(dim=1).min() > 0.1
    assert torch.cosine_similarity(logits[0], logits[2], dim=0) < 0.95
    assert not torch.equal(logits[0], logits[1])


def test_builtins_build_what_they_say() -> None:
    for name, builtin in BUILTINS.items():
        assert builtin.name == name
        with torch.no_grad():
            output = builtin.build()(torch.zeros(builtin.shape))
        assert torch.isfinite(output).all()
    assert BUILTINS["resnet50"].input_name == "image"
    assert BUILTINS["resnet50"].shape == (1, 3, 224, 224)


def test_naming_the_builtins_costs_no_torch() -> None:
    code = "import sys, tlkit.models as m; assert m.BUILTINS; print({'torch', 'numpy', 'coremltools'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
