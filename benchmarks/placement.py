"""How well placement is predicted: operations in context, as an M4 placed them under CPU_AND_NE, predicted anew.

``python benchmarks/placement.py [TABLE]``: TABLE has the published patterns, one graph per row (case, number of
operations, ``12A1C``: twelve on the Neural Engine, then one on the CPU). Each case is one operation between two
conv3x3 + relu (or linear + relu) layers on each input and two after it. Prints the share of operations and of whole
graphs that are predicted right, ties free, beside what two slogans score, and the graphs that are not.
"""

from __future__ import annotations

import csv
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
TABLE = ROOT.parent / "shared/coreml/context_m4_cpu_and_ne.csv"

Build = Callable[[Any, list[Any]], Any]
IMAGE, MATRIX, SEQUENCE = (1, 64, 32, 32), (1, 128, 256), (16, 1, 64)


def half(*shape: int) -> np.ndarray[Any, Any]:
    """A constant of ones in f16."""
    return np.ones(shape, np.float16)


def conv(size: int | tuple[int, int], **how: Any) -> Build:
    """A convolution of 64 channels to 64."""
    height, width = (size, size) if isinstance(size, int) else size
    groups = how.get("groups", 1)
    how = {"pad_type": "same"} | how
    return lambda mb, x: mb.conv(x=x[0], weight=half(64, 64 // groups, height, width), **how)


def one(name: str, **how: Any) -> Build:
    """An operation on ``x``."""
    return lambda mb, x: getattr(mb, name)(x=x[0], **how)


def two(name: str, **how: Any) -> Build:
    """An operation on ``x`` and ``y``."""
    return lambda mb, x: getattr(mb, name)(x=x[0], y=x[1], **how)


def compared(name: str) -> Build:
    """A comparison, and its answer as f16."""
    return lambda mb, x: mb.cast(x=getattr(mb, name)(x=x[0], y=x[1]), dtype="fp16")


def logic(mb: Any, x: list[Any]) -> Any:
    """Two comparisons, and whether both hold."""
    zero = np.float16(0)
    both = mb.logical_and(x=mb.greater(x=x[0], y=zero), y=mb.greater(x=x[1], y=zero))
    return mb.cast(x=both, dtype="fp16")


UNARY = ["abs", "acos", "cos", "exp", "exp2", "floor", "sin", "sinh", "tan", "tanh", "sigmoid", "silu", "softplus"]
UNARY += ["square", "sqrt", "sign", "round", "ceil", "erf", "asin", "cosh", "atan"]
CASES: dict[str, tuple[Build, tuple[tuple[int, ...], ...]]] = {
    **{name: (one(name), (IMAGE,)) for name in UNARY},
    **{name: (two(name), (IMAGE, IMAGE)) for name in ("add", "mul", "pow", "floor_div", "sub", "maximum", "real_div")},
    **{name: (compared(name), (IMAGE, IMAGE)) for name in ("equal", "not_equal", "greater", "less")},
    "add_bc_batch": (two("add"), (IMAGE, IMAGE)),
    "add_bc_ch": (two("add"), (IMAGE, (1, 64, 1, 1))),
    "add_bc_hw": (two("add"), (IMAGE, (1, 64, 1, 1))),
    "add_bc_w": (two("add"), (IMAGE, (1, 64, 32, 1))),
    "logical_and": (logic, (IMAGE, IMAGE)),
    "clip": (one("clip", alpha=np.float16(-1), beta=np.float16(1)), (IMAGE,)),
    "log": (one("log", epsilon=np.float16(1e-4)), (IMAGE,)),
    "rsqrt": (one("rsqrt", epsilon=np.float16(1e-4)), (IMAGE,)),
    "leaky_relu": (one("leaky_relu", alpha=np.float16(0.1)), (IMAGE,)),
    "prelu": (one("leaky_relu", alpha=np.float16(0.1)), (IMAGE,)),
    "scaled_tanh": (one("scaled_tanh", alpha=np.float16(1), beta=np.float16(1)), (IMAGE,)),
    "pow_const": (lambda mb, x: mb.pow(x=x[0], y=np.float16(3)), (IMAGE,)),
    "pow_half": (lambda mb, x: mb.pow(x=x[0], y=np.float16(0.5)), (IMAGE,)),
    "conv3x3": (conv(3), (IMAGE,)),
    "conv3x3_d2": (conv(3, dilations=[2, 2]), (IMAGE,)),
    "conv3x3_dw": (conv(3, groups=64), (IMAGE,)),
    "conv1x1": (conv(1), (IMAGE,)),
    "conv7x7_s2": (conv(7, strides=[2, 2]), (IMAGE,)),
    "conv_s5": (conv(5, strides=[5, 5]), (IMAGE,)),
    "conv_k17": (conv(17), (IMAGE,)),
    "conv_k1x31": (conv((1, 31)), (IMAGE,)),
    "conv_transpose": (
        lambda mb, x: mb.conv_transpose(x=x[0], weight=half(64, 64, 2, 2), strides=[2, 2]), (IMAGE,),
    ),
    "conv_transpose_k3s2": (
        lambda mb, x: mb.conv_transpose(x=x[0], weight=half(64, 64, 3, 3), strides=[2, 2]), (IMAGE,),
    ),
    "l2_norm": (one("l2_norm", epsilon=np.float16(1e-4)), (IMAGE,)),
    "layer_norm_c": (one("layer_norm", axes=[1], epsilon=np.float16(1e-4)), (IMAGE,)),
    "layer_norm_chw": (one("layer_norm", axes=[1, 2, 3], epsilon=np.float16(1e-4)), (IMAGE,)),
    "layer_norm_hw": (one("layer_norm", axes=[2, 3], epsilon=np.float16(1e-4)), (IMAGE,)),
    "log_softmax": (
        lambda mb, x: mb.sub(x=x[0], y=mb.reduce_log_sum_exp(x=x[0], axes=[1], keep_dims=True)), (IMAGE,),
    ),
    "lrn": (one("local_response_norm", size=5), (IMAGE,)),
    "max_pool": (one("max_pool", kernel_sizes=[3, 3], strides=[1, 1], pad_type="same"), (IMAGE,)),
    "max_pool_k15": (one("max_pool", kernel_sizes=[15, 15], strides=[1, 1], pad_type="same"), (IMAGE,)),
    "avg_pool": (one("avg_pool", kernel_sizes=[3, 3], strides=[1, 1], pad_type="same"), (IMAGE,)),
    "l2_pool": (one("l2_pool", kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid"), (IMAGE,)),
    "matmul_const": (lambda mb, x: mb.matmul(x=x[0], y=half(256, 256)), (MATRIX,)),
    "matmul_dyn": (two("matmul", transpose_y=True), (MATRIX, MATRIX)),
    "band_part": (one("band_part", lower=2, upper=2), (MATRIX,)),
    "pad_const": (one("pad", pad=[1, 1, 1, 1], mode="constant", constant_val=np.float16(0)), (IMAGE,)),
    "pad_reflect": (one("pad", pad=[1, 1, 1, 1], mode="reflect"), (IMAGE,)),
    "pad_replicate": (one("pad", pad=[1, 1, 1, 1], mode="replicate"), (IMAGE,)),
    "pad_c": (one("pad", pad=[0, 0, 8, 8, 0, 0, 0, 0], mode="constant", constant_val=np.float16(0)), (IMAGE,)),
    "cumsum_c": (one("cumsum", axis=1), (IMAGE,)),
    "cumsum_w": (one("cumsum", axis=3), (IMAGE,)),
    "depth_to_space": (one("depth_to_space", block_size=2), (IMAGE,)),
    "slice_c": (one("slice_by_index", begin=[0, 0, 0, 0], end=[1, 32, 32, 32]), (IMAGE,)),
    "slice_w_stride2": (
        one("slice_by_index", begin=[0, 0, 0, 0], end=[1, 64, 32, 32], stride=[1, 1, 1, 2]), (IMAGE,),
    ),
    "slice_by_size": (one("slice_by_size", begin=[0, 0, 0, 0], size=[1, 32, 32, 32]), (IMAGE,)),
    "split_c": (lambda mb, x: mb.split(x=x[0], num_splits=2, axis=1)[0], (IMAGE,)),
    "gather_c": (lambda mb, x: mb.gather(x=x[0], indices=np.arange(32), axis=1), (IMAGE,)),
    "gather_w": (lambda mb, x: mb.gather(x=x[0], indices=np.arange(16), axis=3), (IMAGE,)),
    "transpose_cw": (one("transpose", perm=[0, 3, 2, 1]), (IMAGE,)),
    "transpose_hw": (one("transpose", perm=[0, 1, 3, 2]), (IMAGE,)),
    "upsample_bilinear": (
        one("upsample_bilinear", scale_factor_height=2.0, scale_factor_width=2.0, align_corners=False), (IMAGE,),
    ),
    "upsample_bilinear_ac": (
        one("upsample_bilinear", scale_factor_height=2.0, scale_factor_width=2.0, align_corners=True), (IMAGE,),
    ),
    "upsample_nearest": (
        one("upsample_nearest_neighbor", scale_factor_height=2, scale_factor_width=2), (IMAGE,),
    ),
    "upsample_nearest_x3": (
        one("upsample_nearest_neighbor", scale_factor_height=3, scale_factor_width=3), (IMAGE,),
    ),
    "gru": (
        lambda mb, x: mb.gru(
            x=x[0], initial_h=half(1, 64), weight_ih=half(192, 64), weight_hh=half(192, 64)
        )[0],
        (SEQUENCE,),
    ),
    "rnn": (
        lambda mb, x: mb.rnn(x=x[0], initial_h=half(1, 64), weight_ih=half(64, 64), weight_hh=half(64, 64))[0],
        (SEQUENCE,),
    ),
}  # fmt: skip


def package(case: str, folder: Path) -> Path:
    """Build the graph of one case as an f16 mlprogram."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    build, shapes = CASES[case]

    def layers(x: Any) -> Any:
        for _ in range(2):
            if len(x.shape) == 4:
                x = mb.relu(x=mb.conv(x=x, weight=half(x.shape[1], x.shape[1], 3, 3), pad_type="same"))
            else:
                x = mb.relu(x=mb.linear(x=x, weight=half(x.shape[-1], x.shape[-1])))
        return x

    names = [f"x{index}" for index in range(len(shapes))]
    specs = [mb.TensorSpec(shape, dtype=types.fp16) for shape in shapes]
    code = f"lambda {', '.join(names)}: layers(build(mb, [layers(x) for x in [{', '.join(names)}]]))"
    program = mb.program(input_specs=specs, opset_version=ct.target.iOS18)(
        eval(code, {"layers": layers, "build": build, "mb": mb})
    )
    path = folder / f"{case}.mlpackage"
    how: dict[str, Any] = {"convert_to": "mlprogram", "minimum_deployment_target": ct.target.iOS18}
    ct.convert(program, skip_model_load=True, **how).save(str(path))
    return path


def published(table: Path) -> Iterator[tuple[str, str]]:
    """Yield each case and its units, a letter an operation."""
    with table.open() as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            yield row["case"], "".join(unit * int(count) for count, unit in re.findall(r"(\d+)([AC])", row["pattern"]))


def main() -> None:
    """Print the scores."""
    from tlkit.formats.coreml.open import open_package
    from tlkit.host.quiet import quiet
    from tlkit.mil.work import steps
    from tlkit.placement.predict import predict
    from tlkit.placement.rules import against_ane

    table = Path(sys.argv[1]) if len(sys.argv) > 1 else TABLE
    scores: dict[str, list[float]] = {"operations": [], "graphs": [], "always CPU": [], "wherever supported": []}
    lines = []
    with tempfile.TemporaryDirectory() as folder, quiet():
        for case, truth in published(table):
            if case not in CASES:
                continue
            program = open_package(package(case, Path(folder))).program
            assert program is not None
            found = predict(program.function()).operations
            guess = "".join("A" if placed.unit == "ane" else "C" for placed in found)
            if len(guess) != len(truth):
                lines.append(f"{case}: {len(guess)} operations here, {len(truth)} published")
                continue
            hits = [a == b or bool(placed.tied) for a, b, placed in zip(guess, truth, found, strict=True)]
            scores["operations"] += hits
            scores["graphs"].append(all(hits))
            scores["always CPU"] += [unit == "C" for unit in truth]
            able = ["C" if against_ane(step, 65536) else "A" for step in steps(program.function())]
            scores["wherever supported"] += [a == b for a, b in zip(able, truth, strict=True)]
            if not all(hits):
                lines.append(f"{case}: predicted {guess}, published {truth}")
    print("\n".join(lines))
    for name, values in scores.items():
        print(f"{name}: {sum(values) / len(values):.1%} of {len(values)}")


if __name__ == "__main__":
    main()
