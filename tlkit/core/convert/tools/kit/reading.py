"""What a node of coremltools' graph was given, by name and as plain values.

Importing this module does not import coremltools.
"""

from __future__ import annotations

import re
from typing import Any


def inputs_of(context: Any, node: Any, names: str) -> dict[str, Any]:
    """Return the node's inputs by name, None for those left out, however the graph passes them."""
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs, _get_kwinputs

    given = dict.fromkeys(names.split())
    given.update(zip(given, _get_inputs(context, node), strict=False))
    for name in given:
        if node.kwinputs and name in node.kwinputs:
            given[name] = _get_kwinputs(context, node, name, default=[None])[0]
    return given


def dtype_name(code: Any) -> str:
    """Return MIL's name of the type that torch's number ``code`` stands for; 64 bits become 32."""
    from coremltools.converters.mil.frontend.torch.utils import NUM_TO_DTYPE_STRING

    return str(NUM_TO_DTYPE_STRING[int(getattr(code, "val", code))])


def values_of(given: Any) -> list[Any]:
    """Return what a list of numbers, or a number, is when the model is converted; empty for None."""
    import numpy as np

    if given is None:
        return []
    if isinstance(given, list | tuple):
        return [value for item in given for value in values_of(item)]
    return list(np.ravel(getattr(given, "val", given))) if getattr(given, "val", given) is not None else []


def is_float(value: Any) -> bool:
    """Whether a value of coremltools' is real, and not an integer, a boolean or complex."""
    from coremltools.converters.mil.mil import types

    return bool(types.is_float(value.dtype))


def plain_name(name: str) -> str:
    """Return a value's name as the captured graph has it: coremltools prefixes numbers, and its casts have suffixes."""
    plain = re.sub(r"_cast_(?:fp16|fp32|u?int16)(?=_|$)", "", re.sub(r"\W", "_", name))
    return re.sub(r"^(?:op|var)_(?=\d)", "", plain)
