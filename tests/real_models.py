"""Where the collection of other people's model files lies, for tests that skip where it is absent (a user's clone)."""

from __future__ import annotations

from pathlib import Path

import pytest

MODELS = Path(__file__).resolve().parents[2] / "shared/models"

needs_models = pytest.mark.skipif(not MODELS.is_dir(), reason="the collection of real models is not here")
