"""A stateful decoder, step by step: the text it generates beside PyTorch's, and what a step costs early and late.

    python benchmarks/decoder.py [--precision f32] [--tokens 512] [--width 512] [--layers 4] [--rounds 200]

The model is fixtures/decoders.py's Llama with its keys and values in states, converted here. It generates greedily from
token 1, as PyTorch's module does from zeroed buffers, and each goes on with its own tokens; Core ML keeps states in
f16, so PyTorch does it a second time with such a cache. Then the steps at 10 and at
500 take turns, so that a drift of the machine hits both; the aim is a ratio of 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

Step = Callable[[int, int], Any]
"""(token, position) to the next token's scores."""


def main() -> None:
    """Print how far the texts agree, then the median step at the two places and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--precision", default="f32", choices=["f16", "f32"])
    for name, default in (("tokens", 512), ("width", 512), ("layers", 4), ("rounds", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    from fixtures.decoders import LlamaStep

    sizes = {"context": options.tokens, "width": options.width, "layers": options.layers, "heads": options.width // 64}
    module, half = LlamaStep(**sizes).eval(), LlamaStep(**sizes, half=True).eval()
    steps = {"torch": torch_step(module), "torch, f16 cache": torch_step(half)}
    steps["tlkit"] = tlkit_step(module, options.precision)
    texts = {name: generate(step, options.tokens) for name, step in steps.items()}
    for name in list(texts)[:2]:
        pairs = enumerate(zip(texts[name], texts["tlkit"], strict=True))
        same = next((at for at, (expected, found) in pairs if expected != found), options.tokens)
        print(f"text: {same} of {options.tokens} tokens as by {name}, {len({*texts[name]})} different ones")
    for name, step in steps.items():
        early, late = cost(step, 10, options.rounds, min(500, options.tokens - 1))
        print(f"{name}: {early:.2f} ms at token 10, {late:.2f} ms at token 500, ratio {late / early:.3f}")


def torch_step(module: Any) -> Step:
    """Return a step of ``module`` itself, from buffers of zeros."""
    import torch

    def step(token: int, position: int) -> Any:
        with torch.inference_mode():
            return module(torch.tensor([[token]]), torch.tensor([position])).numpy()

    return step


def tlkit_step(module: Any, precision: str) -> Step:
    """Return a step of the package that ``module`` converts to."""
    import tlkit
    from tlkit.core.convert.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        inputs = ["token=1x1:i32", "position=1:i32"]
        result = convert(module, Path(folder) / "d.mlpackage", inputs=inputs, precision=precision)
        assert result.ok
        model = tlkit.load_model(result.path)
        model.prepare()  # reads the weights
    state = model.make_state()

    def step(token: int, position: int) -> Any:
        inputs = {"token": np.array([[token]], np.int32), "position": np.array([position], np.int32)}
        return model.predict(inputs, state=state)["output"]

    return step


def generate(step: Step, tokens: int) -> list[int]:
    """Return the likeliest tokens, each given to the next step, after token 1."""
    text = [1]
    for position in range(tokens):
        text.append(int(np.argmax(step(text[-1], position))))
    return text[1:]


def cost(step: Step, early: int, rounds: int, late: int) -> tuple[float, float]:
    """Return the median milliseconds of a step at ``early`` and at ``late``, taken in turn."""
    times: dict[int, list[float]] = {early: [], late: []}
    for index in range(2 * rounds):
        for position in (early, late) if index % 2 else (late, early):
            start = time.perf_counter()
            step(1, position)
            times[position].append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[early]), statistics.median(times[late])


if __name__ == "__main__":
    main()
