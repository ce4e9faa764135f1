"""The samples of torch_families.py as modules; run as a program, this says what bare coremltools makes of each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.core.torch_families import FAMILIES, Family


class Together(nn.Module):
    """All samples of a family, or one of them: results by the sample's name."""

    def __init__(self, family: str, only: str | None = None) -> None:
        super().__init__()
        self.names = [name for name in FAMILIES[family].samples if only in (None, name)]
        self.calls = [FAMILIES[family].samples[name] for name in self.names]
        self.layers = nn.ModuleList([call for call in self.calls if isinstance(call, nn.Module)])

    def forward(self, *tensors: Tensor) -> dict[str, Any]:
        return {f"s{index}": call(*tensors) for index, call in enumerate(self.calls)}


def ports(family: Family) -> list[str]:
    """Return what tlkit's ``--input`` says of the family's inputs."""
    made = []
    for index, tensor in enumerate(family.inputs):
        spans = family.spans.get(index, {})
        sizes = [
            f"{spans[axis][0]}..{spans[axis][1]}" if axis in spans else str(n) for axis, n in enumerate(tensor.shape)
        ]
        made.append(f"x{index}={'x'.join(sizes)}" + ("" if tensor.is_floating_point() else ":i32"))
    return made


def flat(result: Any) -> list[Tensor]:
    """Return the tensors of a result, in order."""
    if isinstance(result, Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result
    return [tensor for part in parts for tensor in flat(part)]


def bare(name: str, sample: str, export: bool, folder: Path) -> str:
    """Return what is wrong with bare coremltools' translation of the sample; empty where nothing is."""
    import coremltools as ct
    import numpy as np

    import tlkit

    family = FAMILIES[name]
    module = Together(name, sample).eval()
    shapes = [
        [
            ct.RangeDim(*family.spans[index][axis], default=n) if axis in family.spans.get(index, {}) else n
            for axis, n in enumerate(tensor.shape)
        ]
        for index, tensor in enumerate(family.inputs)
    ]
    types = [np.float32 if tensor.is_floating_point() else np.int32 for tensor in family.inputs]

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *tensors: Tensor) -> Any:
            return tuple(part * 1 for part in flat(self.inner(*tensors)))

    try:
        inputs = [
            ct.TensorType(name=f"x{i}", shape=tuple(s), dtype=t)
            for i, (s, t) in enumerate(zip(shapes, types, strict=True))
        ]
        if export:
            dims = tuple(
                dict.fromkeys(family.spans.get(i, {}), torch.export.Dim.AUTO) for i in range(len(family.inputs))
            )
            program = torch.export.export(Flat(), family.inputs, dynamic_shapes=(dims,)).run_decompositions({})
        else:
            program = torch.jit.trace(Flat(), family.inputs, check_trace=False)
        path = folder / "bare.mlpackage"
        model = ct.convert(
            program,
            inputs=inputs,
            skip_model_load=True,
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS17,
        )
        model.save(str(path))
        for given in (family.inputs, *([family.others] if family.others else [])):
            feed = {
                f"x{i}": tensor.numpy().astype(kind) for i, (tensor, kind) in enumerate(zip(given, types, strict=True))
            }
            got = list(tlkit.load_model(path).predict(feed).values())
            for mine, yours in zip(got, flat(module(*given)), strict=True):
                if mine.size != yours.numel():
                    return "another shape"
                if not np.allclose(
                    mine.reshape(yours.shape), yours.detach().numpy(), rtol=1e-4, atol=1e-4, equal_nan=True
                ):
                    return "other values"
    except Exception as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    return ""


if __name__ == "__main__":
    import tempfile

    for family_name, every in FAMILIES.items():
        for sample_name in every.samples:
            for exported in (False, True):
                with tempfile.TemporaryDirectory() as place:
                    reason = bare(family_name, sample_name, exported, Path(place))
                way = "export" if exported else "trace"
                sys.stdout.write(f"{family_name}\t{sample_name}\t{way}\t{reason}\n")
                sys.stdout.flush()
