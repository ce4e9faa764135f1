"""The built-in networks as f16 packages: each converted once, then kept in the user's cache folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tlkit import models
from tlkit.errors import UsageError
from tlkit.host.machine import cache_folder, versions


def known(name: str) -> bool:
    """Whether a built-in network has this name."""
    return name in models.BUILTINS


def package(name: str) -> Path:
    """Return the f16 package of the built-in ``name``, converted first if the cache does not have it.

    The cached name contains the versions that made the package and a hash of the network's source, so that it cannot go
    stale. It appears only when it is complete, even if several processes make it at once.
    """
    goal = cache_folder() / f"{name}-f16-{_key(name)}.mlpackage"
    if not goal.exists():
        from tlkit.core.convert.convert import convert

        goal.parent.mkdir(parents=True, exist_ok=True)
        try:
            convert(name, goal, precision="f16", verify=False)
        except UsageError:
            if not goal.exists():  # else another process was first, and its package is as good
                raise
    return goal


def _key(name: str) -> str:
    made_by = "-".join(f"{package}{version}" for package, version in versions().items() if package != "numpy")
    digest = hashlib.sha256()
    for source in sorted(Path(models.__file__).parent.glob("*.py")):
        if source.stem in ("models", "_resnet"):
            digest.update(source.read_bytes())
    return f"{made_by}-{digest.hexdigest()[:8]}"
