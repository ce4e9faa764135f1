"""Faults of many kinds among 150 operations: bisect names the first, and precision auto keeps those and little else.

PyTorch's own f16 says which faults do harm, and PyTorch in f32 what the outputs should be.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tlkit
from fixtures.signals import CHANNELS, INPUTS, LENGTH, Signals
from tlkit.core.compare.difference import snr_db
from tlkit.core.inspect.places import recorded
from tlkit.core.precision.mixed import mixed_precision
from tlkit.formats.coreml.open import open_package
from tlkit.mil.program import walk

HARMFUL, DOUBTFUL = 35.0, 45.0
"""Signal to noise in dB below which a fault does harm; up to the second it may count or not."""


def signal(seed: int) -> torch.Tensor:
    return torch.randn(1, CHANNELS, LENGTH, generator=torch.Generator().manual_seed(seed))


def planted(path: Path, truth: tuple[str, ...]) -> int:
    """How many operations of a package the faulty modules became."""
    package = open_package(path)
    assert package.program is not None
    where = recorded(package)
    operations = (item.name for item in walk(package.program.function().block.operations) if item.type != "const")
    return sum(name in where and where[name].module in truth for name in operations)


def firsts(net: Signals) -> tuple[str, ...]:
    """The modules of which the first fault may be: the first that does harm, and doubtful ones before it."""
    harm = {name: net.harm(name, signal(1)) for name in net.truth}
    may = [name for name in net.truth if harm[name] < DOUBTFUL]
    harmful = [name for name in may if harm[name] < HARMFUL]
    return tuple(may[: may.index(harmful[0]) + 1] if harmful else ("", *may))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_the_first_fault_is_named_and_few_operations_stay_in_f32(tmp_path: Path, seed: int) -> None:
    net = Signals(seed).eval()
    tlkit.convert(net, tmp_path / "half.mlpackage", inputs=INPUTS, verify=False, auto=False)
    found = tlkit.compare(net, tmp_path / "half.mlpackage", bisect=True, count=1).bisection
    assert found is not None
    assert ("" if found.first is None else found.first.place.partition(",")[0]) in firsts(net), found.first

    wide = tmp_path / "wide.mlpackage"
    tlkit.convert(net, wide, inputs=INPUTS, verify=False, auto=False, precision="f32")
    mixed = mixed_precision(wide, tmp_path / "mixed.mlpackage", precision="auto", min_snr=40)
    assert mixed.ok and len(mixed.kept) <= 2 * planted(wide, net.truth), mixed
    with torch.no_grad():
        want = net(signal(2)).numpy()
    (got,) = tlkit.load_model(tmp_path / "mixed.mlpackage").predict({"x": signal(2).numpy()}).values()
    assert snr_db(want, got) >= 38
