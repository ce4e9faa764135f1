"""What every test may count on."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import hypothesis
import pytest

# No test depends on how busy the machine is: hypothesis would let one fail that takes longer than 200 ms.
hypothesis.settings.register_profile("tlkit", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tlkit")


def pytest_configure() -> None:
    """Take Ctrl-C even where the suite runs in the background: a shell lets its background jobs ignore SIGINT, and
    what they start inherits that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need Apple's Core ML where there is none."""
    if sys.platform == "darwin":
        return
    for item in items:
        if item.get_closest_marker("macos"):
            item.add_marker(pytest.mark.skip(reason="needs macOS: Apple's Core ML runs nowhere else"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout's top folder."""
    return Path(__file__).resolve().parent.parent
