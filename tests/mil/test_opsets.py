"""Our table of releases against coremltools' own; covers tlkit/core/convert/tools/targets.py, which chooses from it."""

from __future__ import annotations

import pytest

from tlkit.core.convert.tools.targets import choose_target, target_of_version
from tlkit.mil.opsets import NEWEST, OPSETS, RELEASES, system_of, version_of


@pytest.mark.slow
def test_every_release_is_coremltools_own() -> None:
    import coremltools as ct
    from coremltools import _OPSET

    ours = {name: release.version for release in RELEASES for name in release.systems}
    theirs = {name.replace("_", "."): target.value for name, target in ct.target.__members__.items()}
    theirs.pop("macOS10.16")  # macOS 11 under the name that it had in beta
    assert {name: ours[name] for name in theirs} == theirs
    opsets = {version: opset for version, opset in _OPSET.items() if version >= ct.target.iOS15.value}
    assert {release.version: opset for opset, release in OPSETS.items()} == opsets


def test_targets_are_the_releases_that_mlprograms_run_on() -> None:
    for release in OPSETS.values():
        for name in release.systems:
            assert (choose_target(name).name, choose_target(name).version) == (name, release.version)
    assert [target_of_version(version).name for version in (1, 5, 6, 8, 10, 12)] == [
        "iOS15", "iOS15", "iOS15", "iOS17", "iOS26", "iOS26",
    ]  # fmt: skip


def test_an_unknown_opset_keeps_its_name_and_needs_the_newest_version() -> None:
    assert (system_of("CoreML7"), version_of("CoreML7")) == ("iOS17", 8)
    assert (system_of("CoreML99"), version_of("CoreML99")) == ("CoreML99", NEWEST.version)
