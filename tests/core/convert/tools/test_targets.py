"""Our table of targets against coremltools' own."""

from __future__ import annotations

import pytest

from tlkit.core.convert.tools.targets import _RELEASES, choose_target


@pytest.mark.slow
def test_every_target_is_coremltools_own() -> None:
    import coremltools as ct

    for version, names in _RELEASES.items():
        for name in names:
            assert ct.target[name].value == version
            assert choose_target(name).name == name
