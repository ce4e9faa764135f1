"""Makes packed.json: weights packed by the libraries that define the layouts, and the values that they stand for.

MLX's by ``mlx`` (0.32.4: ``mx.quantize`` and ``mx.dequantize``), run by ``python make_packed.py mlx``. GPTQ's and AWQ's
by the packing code of ``auto-gptq`` 0.7.1 (``qlinear_cuda_old.QuantLinear.pack``) and ``autoawq`` 0.2.9
(``WQLinear_GEMM.from_linear``), in an environment that has them: ``python make_packed.py gptq``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).with_name("packed.json")


def main(kind: str) -> None:
    """Put the fixtures of ``kind`` into the file."""
    found = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name, case in (of_mlx() if kind == "mlx" else of_gptq()).items():
        tensors = {key: [str(array.dtype), list(array.shape), array.ravel().tolist()] for key, array in case[1].items()}
        found[name] = {"config": case[0], "tensors": tensors, "values": case[2].tolist()}
    lines = (f" {json.dumps(name)}: {json.dumps(case)}" for name, case in sorted(found.items()))
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def of_mlx() -> dict[str, Any]:
    """Return configs, tensors and values by the case's name."""
    import mlx.core as mx

    found = {}
    for bits in (2, 3, 4, 5, 6, 8):
        weights = np.random.default_rng(bits).normal(size=(2, 64)).astype(np.float32)
        parts = mx.quantize(mx.array(weights).astype(mx.float16), group_size=32, bits=bits)
        wide = [parts[0], *(part.astype(mx.float32) for part in parts[1:])]
        values = np.array(mx.dequantize(*wide, group_size=32, bits=bits))
        tensors = dict(zip(("weight", "scales", "biases"), map(np.array, parts), strict=True))
        found[f"mlx {bits}"] = ({"quantization": {"group_size": 32, "bits": bits}}, tensors, values)
    return found


def of_gptq() -> dict[str, Any]:
    """Return configs, tensors and values by the case's name."""
    import torch
    from auto_gptq.nn_modules.qlinear.qlinear_cuda_old import QuantLinear
    from awq.modules.linear.gemm import WQLinear_GEMM

    found = {}
    for method, bits in (("gptq", 2), ("gptq", 3), ("gptq", 4), ("gptq", 8), ("awq", 4)):
        torch.manual_seed(bits)
        inputs, outputs, group, most = 32, 32, 16, 2**bits - 1
        weights = torch.randn(outputs, inputs)
        grouped = weights.reshape(outputs, -1, group)
        low, high = grouped.amin(2).clamp(max=0), grouped.amax(2).clamp(min=0)
        scales = ((high - low) / most).half().float()
        zeros = torch.round(-low / scales).clamp(1, most)
        each, zero = scales.repeat_interleave(group, 1), zeros.repeat_interleave(group, 1)
        values = (torch.clamp(torch.round(weights / each) + zero, 0, most) - zero) * each
        linear = torch.nn.Linear(inputs, outputs, bias=False)
        linear.weight.data = values.clone()
        if method == "gptq":
            layer = QuantLinear(bits, group, inputs, outputs, False, weight_dtype=torch.float32)
            layer.pack(linear, scales.clone(), zeros.clone(), None)
        else:
            layer = WQLinear_GEMM.from_linear(
                linear, bits, group, scales=scales.t().contiguous(), zeros=zeros.t().contiguous()
            )
        tensors = {name: getattr(layer, name).numpy() for name in ("qweight", "qzeros", "scales")}
        tensors["scales"] = tensors["scales"].astype(np.float16)
        config = {"quantization_config": {"quant_method": method, "bits": bits, "group_size": group}}
        found[f"{method} {bits}"] = (config, tensors, values.numpy())
    return found


if __name__ == "__main__":
    main(sys.argv[1])
