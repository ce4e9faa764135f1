"""Language models on OpenVINO: blocks, caches that grow and shrink, memory in files.

Covers tlkit/engines/openvino/growing.py, tlkit/engines/openvino/weights.py, tlkit/engines/openvino/arena.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.gguf.model.folders import build
from tlkit import convert_weights
from tlkit.core.language.model import open_language
from tlkit.formats.gguf.quants import dequantize, quantize

pytest.importorskip("openvino")

IDS = [1, 5, 9, 33, 200, 7, 60, *range(20, 40)]


def logits(path: Path, engine: str) -> np.ndarray[Any, Any]:
    runner = open_language(path).runner(64, engine)
    return np.concatenate([runner.scores(IDS[:16]), *(runner.feed([token])[None] for token in IDS[16:])])


@pytest.mark.parametrize(
    "kind", ["q8_0", "q4_1", "f16", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("q4_0", "q5_1"))]
)
def test_weights_as_stored_give_what_dense_ones_give(tmp_path: Path, kind: str) -> None:
    folder, file = build(tmp_path / "folder", "qwen2"), tmp_path / "model.gguf"
    convert_weights(folder, file, **({"dtype": "f16"} if kind == "f16" else {"quantize": kind}))
    assert np.abs(logits(file, "openvino") - logits(file, "torch")).max() < 2e-5


def test_blocks_without_a_scale_are_their_minimum() -> None:
    import openvino
    from openvino import opset13 as ov

    from tests.frontends.gguf.kit.test_blocks import Raw
    from tlkit.engines.openvino.weights import GraphWeights
    from tlkit.frontends.gguf.kit.blocks import BlockPart
    from tlkit.frontends.gguf.kit.source import StoredTensor
    from tlkit.mil.program import TensorType, Value
    from tlkit.mil.types import DType

    raw = Raw("Q4_1", 4, 0)
    raw.blocks = quantize(np.repeat(np.float32([[3.0], [-2.5], [0.0], [1.0]]), 256, 1).reshape(-1), "Q4_1")
    raw.blocks[-1, 16:] = 7  # codes differ where the scale is 0
    tensor = StoredTensor(raw.entry.name, raw, (raw.entry,))  # type: ignore[arg-type]
    shapes: Any = {"codes": (DType.UINT8, (4, 256)), "scales": (DType.FP32, (4, 8)), "minima": (DType.FP32, (4, 8))}
    parts = [Value(TensorType(*kind), BlockPart(tensor, name, kind[0])) for name, kind in shapes.items()]
    x = ov.parameter([256, 256], openvino.Type.f32)
    weights = GraphWeights()
    made = ov.matmul(x, weights.blocks(*parts), False, True)
    graph = openvino.Model([made], [x], "products")
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(np.eye(256, dtype=np.float32))[0]
    assert np.array_equal(found.T, dequantize(raw.blocks, "Q4_1", (4, 256)))


def test_what_was_said_is_forgotten_and_said_again(tmp_path: Path) -> None:
    runner = open_language(build(tmp_path / "folder", "gemma3")).runner(64, "openvino")
    whole = runner.scores(IDS)
    runner.rewind(9)
    assert np.abs(runner.feed(IDS[9:]) - whole[-1]).max() < 1e-5
    runner.rewind(0)
    assert np.abs(runner.feed(IDS[:1]) - whole[0]).max() < 1e-5


def test_a_cast_to_f16_rounds_though_openvino_computes_in_f32() -> None:
    import openvino
    from openvino import opset13 as ov

    from tlkit.engines.openvino.operations import OPERATIONS

    class Graph:
        def node(self, item: Any) -> Any:
            return item

        def known(self, item: str) -> str:
            return item

        def number(self, value: float) -> Any:
            return ov.constant(np.float32(value))

    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    halves = np.sort(halves[np.isfinite(halves)])
    middles = np.float32((halves[1:].astype(np.float64) + halves[:-1]) / 2)
    around = [np.nextafter(middles, np.float32(way), dtype=np.float32) for way in (-np.inf, np.inf)]
    values = np.concatenate([halves, middles, *around, np.float32([65519.9, 65520, -65520, 1e30, np.inf])])
    x = ov.parameter([len(values)], openvino.Type.f32)
    made = OPERATIONS["cast"](Graph(), {"x": (x,), "dtype": ("fp16",)})  # type: ignore[dict-item, arg-type]
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino.Core().compile_model(openvino.Model([made], [x], "cast"), "CPU", settings)(values)[0]
    with np.errstate(over="ignore"):
        assert np.array_equal(found, values.astype(np.float16).astype(np.float32))


def test_cut_and_padded_prompts_give_what_whole_ones_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_language(build(tmp_path / "folder", "gemma3"))
    runner, reference = model.runner(128, "openvino"), model.runner(128, "torch")
    ids = [(37 * place) % 200 + 5 for place in range(120)]
    whole = reference.scores(ids)
    # By fours, padded, one again, padded; back to amid what was padded; and as a whole.
    for start, end in ((0, 20), (20, 60), (60, 61), (61, 120), (35, 75), (70, 71), (0, 100)):
        runner.rewind(start)
        assert np.abs(runner.scores(ids[start:end]) - whole[start:end]).max() < 2e-5
    assert runner.position == 100
    assert np.abs(runner.feed(ids[100:]) - whole[-1]).max() < 2e-5
    monkeypatch.setattr("tlkit.core.language.by_openvino._CHUNK", 100)
    runner.rewind(0)
    assert np.abs(runner.scores(ids) - whole).max() < 2e-5


@pytest.mark.slow
def test_what_was_compiled_is_mapped_and_believed_only_if_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TLKIT_NO_CACHE", raising=False)
    file = tmp_path / "model.gguf"
    convert_weights(build(tmp_path / "folder", "gemma3"), file, quantize="q8_0")
    first = logits(file, "openvino")
    (kept,) = (tmp_path / "cache" / "tlkit" / "compiled").iterdir()
    whole = kept.read_bytes()
    monkeypatch.setattr("tlkit.engines.openvino.growing.graph_of", None)  # nothing is built of the file's blocks
    assert np.array_equal(logits(file, "openvino"), first)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = whole.index(open_language(file).source.tensor("blk.0.ffn_norm.weight").array().tobytes())
    damaged = whole[:place] + bytes(8) + whole[place + 8 :]
    kept.write_bytes(damaged)
    assert np.array_equal(logits(file, "openvino"), first)
    assert kept.read_bytes() != damaged  # it was made again
    file.touch()
    assert np.array_equal(logits(file, "openvino"), first)
    assert len(list(kept.parent.iterdir())) == 2


def test_an_answer_needs_no_pytorch(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    convert_weights(build(tmp_path / "folder", "llama31"), file)
    said = "import sys; from tlkit.core.language.answer import answer; "
    said += f"found = answer({str(file)!r}, 'The quick', most=4); print(found.engine[:8], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["OpenVINO", "False"]
