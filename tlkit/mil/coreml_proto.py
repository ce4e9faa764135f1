"""Core ML's generated protobuf modules, without importing coremltools.

coremltools ships them as ``coremltools/proto/*_pb2.py``; they need only protobuf, but ``import coremltools.proto``
would first run coremltools' own ``__init__`` (seconds, and warnings). So the folder is mounted here under another
package name. The descriptors are the same: coremltools accepts messages made here as its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from tlkit.errors import UnavailableError

_MOUNT = "tlkit._coremltools_proto"


def module(name: str) -> Any:
    """Return the generated module ``name`` (``"MIL_pb2"``, ``"Model_pb2"``)."""
    if _MOUNT not in sys.modules:
        spec = importlib.util.find_spec("coremltools")
        if spec is None or not spec.submodule_search_locations:
            raise UnavailableError("coremltools is not installed", "pip install 'coremltools>=9,<10'")
        mount = ModuleType(_MOUNT)
        # A module with a __path__ is a package to importlib; nothing of coremltools' own __init__ runs.
        mount.__path__ = [f"{spec.submodule_search_locations[0]}/proto"]
        sys.modules[_MOUNT] = mount
    return importlib.import_module(f"{_MOUNT}.{name}")
