"""``--compress auto``: what is written keeps what was asked for, by other means than the search's own.

Covers tlkit/core/compress/maker.py, tlkit/core/compress/search.py, tlkit/core/compress/sensitivity.py,
tlkit/core/compress/sweep.py, tlkit/core/compress/variants.py, tlkit/core/compress/wish.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tlkit
from tests.core.compress.test_compress import same_weights
from tlkit.core.compare.difference import snr_db
from tlkit.core.compress.auto import compress_auto
from tlkit.core.compress.compress import compress, package_bytes
from tlkit.core.compress.wish import AutoCompressed
from tlkit.errors import UsageError


class Uneven(nn.Module):
    """Three products, of which the first matters most: its result is added to the others' a hundred times over."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.three = nn.Linear(64, 64), nn.Linear(64, 128), nn.Linear(128, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = 100 * self.one(x) + self.three(torch.relu(self.two(x)))
        return scores


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("uneven") / "uneven.mlpackage"
    tlkit.convert(Uneven(), path, inputs=["x=4x64"], verify=False)
    return path


def worst_db(package: Path, made: Path, seed: int) -> float:
    """The signal to noise of new inputs, by ``predict`` and a formula."""
    rng = np.random.default_rng(seed)
    worst = np.inf
    for _ in range(4):
        x = rng.normal(size=(4, 64)).astype(np.float32)
        (before,), (after,) = (tlkit.load_model(path).predict({"x": x}).values() for path in (package, made))
        worst = min(worst, snr_db(before, after))
    return float(worst)


@pytest.mark.slow
def test_what_matters_most_keeps_the_most_bits(package: Path, tmp_path: Path) -> None:
    goal, journal = tmp_path / "auto.mlpackage", tmp_path / "sweep"
    found = compress_auto(package, goal, min_snr=32, resume=journal)
    assert found.ok and found.compressed is not None and found.before == package_bytes(package)
    assert found.compressed.after == package_bytes(goal) == found.best.nbytes < found.before / 2
    assert worst_db(package, goal, 77) > 30
    bits = {"as it is": 16, "int8": 8, "palette6": 6, "palette4": 4, "palette2": 2}
    by_weight = {name: bits[text] for name, text in found.choices.items()}
    first = min(found.sensitivity, key=lambda row: row.snr_db).weight
    assert by_weight[first] > max(kept for name, kept in by_weight.items() if name != first)
    assert same_weights(goal, tmp_path / "plain.mlpackage") == 3
    # Smaller than any uniform choice that is as good, and than what keeps more.
    for text in ("8", "6"):
        uniform = compress(package, tmp_path / f"{text}.mlpackage", palettize=text, min_snr=0)
        assert uniform.after > found.compressed.after or worst_db(package, uniform.path, 77) < 32
    # What was measured is not measured again, and says the same.
    lines = journal.read_bytes()
    again = compress_auto(package, tmp_path / "again.mlpackage", min_snr=32, resume=journal)
    assert again.choices == found.choices and again.runs < found.runs and journal.read_bytes() == lines
    # Half of it is lost, and only that is measured again.
    kept = lines.splitlines(keepends=True)
    journal.write_bytes(b"".join(kept[: len(kept) // 2]) + b"0123")
    third = compress_auto(package, tmp_path / "third.mlpackage", min_snr=32, resume=journal)
    assert third.choices == found.choices and again.runs < third.runs < found.runs
    with pytest.raises(UsageError, match="a sweep of another samples"):
        compress_auto(package, tmp_path / "other.mlpackage", min_snr=32, resume=journal, seed=5)


def test_a_size_is_kept_and_one_that_cannot_be_writes_nothing(package: Path, tmp_path: Path) -> None:
    limit = int(package_bytes(package) * 0.4)
    found = tlkit.edit(package, tmp_path / "small.mlpackage", compress="auto", max_size=limit)
    assert isinstance(found, AutoCompressed) and found.ok and package_bytes(tmp_path / "small.mlpackage") <= limit
    missed = compress_auto(package, tmp_path / "none.mlpackage", max_size=limit // 20)
    assert not missed.ok and missed.compressed is None and not (tmp_path / "none.mlpackage").exists()
    assert missed.best.nbytes == min(point.nbytes for point in missed.frontier)
    with pytest.raises(UsageError, match="what is it to reach"):
        compress_auto(package, tmp_path / "none.mlpackage")
    with pytest.raises(UsageError, match="--max-size goes with --compress auto"):
        tlkit.edit(package, tmp_path / "none.mlpackage", max_size="5MB", quantize="int8")
    with pytest.raises(UsageError, match="'nothing' matches no weight"):
        compress_auto(package, tmp_path / "none.mlpackage", max_size=limit, skip=["nothing"])


@pytest.mark.slow
def test_labels_are_what_top1_is_about(package: Path, tmp_path: Path) -> None:
    goal, table = tmp_path / "one.mlpackage", tmp_path / "labels.csv"
    tlkit.convert(Uneven(), tmp_path / "row.mlpackage", inputs=["x=1x64"], verify=False)
    rng, net, rows = np.random.default_rng(0), Uneven().eval(), ["path,label"]
    for place in range(24):
        x = rng.standard_normal((1, 64)).astype(np.float32)
        np.save(tmp_path / f"{place}.npy", x)
        with torch.no_grad():
            right = int(net(torch.from_numpy(x)).argmax())
        # A third of the labels is wrong, so that no package can be right on more.
        rows.append(f"{place}.npy,{right if place % 3 else (right + 1) % 64}")
    table.write_text("\n".join(rows) + "\n")
    found = compress_auto(tmp_path / "row.mlpackage", goal, labels=table, min_top1=0.6, resume=tmp_path / "sweep")
    assert found.ok and found.best.top1 is not None and "accuracy" in found.target and len(found.seen) == 12
    measured = tlkit.accuracy(goal, table)
    assert 0.6 <= measured.top1 <= 0.67
    missed = compress_auto(tmp_path / "row.mlpackage", tmp_path / "no.mlpackage", labels=table, min_top1=0.9)
    assert not missed.ok and missed.compressed is None and not (tmp_path / "no.mlpackage").exists()
    table.write_text("\n".join(rows[:-1]) + "\n")
    with pytest.raises(UsageError, match="another samples"):
        compress_auto(
            tmp_path / "row.mlpackage", goal, labels=table, min_top1=0.6, resume=tmp_path / "sweep", force=True
        )


def test_labels_need_a_share_and_exclude_samples(package: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="how often is it to be right"):
        compress_auto(package, tmp_path / "a.mlpackage", labels=tmp_path, min_snr=30)
    with pytest.raises(UsageError, match="both say what to run on"):
        compress_auto(package, tmp_path / "a.mlpackage", labels=tmp_path, samples=tmp_path, min_top1=0.5)
    (tmp_path / "cat").mkdir()
    np.save(tmp_path / "cat" / "0.npy", np.zeros((4, 64), np.float32))
    with pytest.raises(UsageError, match="no output has a class"):
        compress_auto(package, tmp_path / "a.mlpackage", labels=tmp_path, min_top1=0.5)
    assert not (tmp_path / "a.mlpackage").exists()


@pytest.mark.slow
def test_several_processes_measure_the_same(package: Path, tmp_path: Path) -> None:
    one = compress_auto(package, tmp_path / "one.mlpackage", min_snr=32)
    two = compress_auto(package, tmp_path / "two.mlpackage", min_snr=32, jobs=2, target="iOS17")
    assert two.ok and one.choices == two.choices
    for row, other in zip(one.sensitivity, two.sensitivity, strict=True):
        assert row.snr_db == pytest.approx(other.snr_db, abs=1e-3)


@pytest.mark.slow
def test_ios18_has_groups_and_blocks_and_what_no_candidate_meets_is_forced(package: Path, tmp_path: Path) -> None:
    found = compress_auto(package, tmp_path / "new.mlpackage", min_snr=32, target="iOS18")
    assert found.ok and found.compressed is not None and found.compressed.target == "iOS18"
    assert any("group" in text or "block" in text for text in found.choices.values())
    assert worst_db(package, tmp_path / "new.mlpackage", 78) > 30
    forced = compress_auto(package, tmp_path / "new.mlpackage", min_snr=500, force=True)
    assert not forced.ok and forced.compressed is not None and (tmp_path / "new.mlpackage").is_dir()
