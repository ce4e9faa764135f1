"""Casts to f16 that OpenVINO keeps.

Where it computes in f32 it takes every f16 for f32, and a pair of casts for nothing. It leaves out an operation with a
certain mark (``ov::DisablePrecisionConversion``, in 2026), and then makes one loop of the pair, the minima and maxima
around it and other arithmetic: two instructions of the processor. The mark has no name in Python, but one in the files
that OpenVINO writes: so the model is written without its large constants, marked, and read. Whether it does what it
should is tested when the runtime is first used (``engines/onnx/selftest.py``).
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import openvino

from tlkit.engines.openvino.library import core
from tlkit.host.scratch import temporary_files

_MARK = {"name": "DisablePrecisionConversion", "version": "0", "value": "f16:f32"}


def keep_casts(model: Any) -> Any:
    """Return a model whose casts to f16 are marked; ``model`` itself where it has none."""
    if not any(_narrows(node) for node in model.get_ops()):
        return model
    with temporary_files("tlkit-openvino-") as folder:
        file = folder / "model.xml"
        openvino.serialize(model, file)
        tree = ElementTree.parse(file)
        for layer in tree.iterfind("layers/layer[@type='Convert']"):
            data = layer.find("data")
            if data is not None and data.get("destination_type") == "f16":
                found = layer.find("rt_info")
                info = ElementTree.SubElement(layer, "rt_info") if found is None else found
                ElementTree.SubElement(info, "attribute", _MARK)
        tree.write(file)
        return core().read_model(file)


def _narrows(node: Any) -> bool:
    return bool(node.get_type_name() == "Convert" and node.get_output_element_type(0) == openvino.Type.f16)
