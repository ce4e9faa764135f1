"""What OpenVINO does otherwise where an operation has a mark: it keeps casts to f16, and takes other kernels.

Where it computes in f32 it takes every f16 for f32, and a pair of casts for nothing. It leaves out an operation with a
certain mark (``ov::DisablePrecisionConversion``, in 2026), and then makes one loop of the pair, the minima and maxima
around it and other arithmetic: two instructions of the processor. Another mark (``ov::PrimitivesPriority``) says which
kernels of convolutions come first. Marks have no names in Python, but in the files that OpenVINO writes: so the model
is written without its large constants, marked, and read. Whether casts are kept is tested when the runtime is first
used (``engines/onnx/selftest.py``); which kernels are faster, by a trial (``kernels.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from tlkit.engines.openvino.library import core, openvino
from tlkit.host.scratch import temporary_files

_KEEP = {"name": "DisablePrecisionConversion", "version": "0", "value": "f16:f32"}
_BLOCKED = {
    "name": "primitives_priority",
    "version": "0",
    "value": "cpu:jit_avx2_1x1,cpu:jit_avx2_dw,cpu:jit_avx2",
}
_CONVOLUTIONS = ("Convolution", "GroupConvolution")


def marked(model: Any, *, blocked: bool) -> Any:
    """Return a model whose casts to f16 are kept, and whose convolutions take kernels for blocks of 8 channels where
    ``blocked`` says so; ``model`` itself where there is nothing to mark."""
    if not blocked and not any(_narrows(node) for node in model.get_ops()):
        return model
    with temporary_files("tlkit-openvino-") as folder:
        file = folder / "model.xml"
        openvino.serialize(model, file)
        tree = ElementTree.parse(file)
        for layer, mark in _marks(tree, blocked):
            info = layer.find("rt_info")
            info = ElementTree.SubElement(layer, "rt_info") if info is None else info
            ElementTree.SubElement(info, "attribute", mark)
        tree.write(file)
        return core().read_model(file)


def _narrows(node: Any) -> bool:
    return bool(node.get_type_name() == "Convert" and node.get_output_element_type(0) == openvino.Type.f16)


def _marks(tree: Any, blocked: bool) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yield the layers that get a mark, and which."""
    for layer in tree.iterfind("layers/layer"):
        data = layer.find("data")
        if layer.get("type") == "Convert" and data is not None and data.get("destination_type") == "f16":
            yield layer, _KEEP
        elif blocked and layer.get("type") in _CONVOLUTIONS:
            yield layer, _BLOCKED
