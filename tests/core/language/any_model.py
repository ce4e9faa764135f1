"""Tries random language models (:mod:`tests.core.language.configurations`) in every way, beside transformers in f32.

``python -m tests.core.language.any_model --seeds 0-300 --log found.jsonl``: a line for each seed, with the largest
difference of logits by way, what was refused and why, and what failed otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.core.language.configurations import Case, drawn, write
from tests.core.language.halves import Halves
from tlkit import convert_weights
from tlkit.core.language.model import open_language
from tlkit.core.language.package import open_language_package
from tlkit.core.language.packaging import convert_language
from tlkit.core.language.runner import Runner
from tlkit.errors import TlkitError

PROMPT = [1, 5, 9, 33, 90, 7, 60, *range(20, 33)]
STEPS = 44
ROOM = 64
Ways = dict[str, Callable[[], np.ndarray[Any, Any]]]


def greedy(model: Any, steps: int = STEPS) -> list[int]:
    """The prompt, and the likeliest tokens after it, all but the last."""
    ids = list(PROMPT)
    with torch.no_grad():
        for _ in range(steps):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids


def walked(runner: Runner, ids: list[int]) -> np.ndarray[Any, Any]:
    """The logits after each token: a prompt's at once, then of steps."""
    first = runner.scores(ids[: len(PROMPT)])
    return np.concatenate([first, *(runner.feed([token])[None] for token in ids[len(PROMPT) :])])


def ways(folder: Path, ids: list[int], packages: bool, encodes: bool, llama: bool) -> Ways:
    """What computes the logits of ``ids``, by name."""
    file, eight = folder.parent / "m.gguf", folder.parent / "m8.gguf"

    def made(path: Path, **options: Any) -> Path:
        if not path.exists():
            convert_weights(folder, path, **options)
        return path

    def run(path: Path, engine: str) -> np.ndarray[Any, Any]:
        model = open_language(path)
        if encodes:
            return model.encode(ids)
        return walked(model.runner(ROOM, engine, cache=False), ids)

    def package(source: Path, engine: str) -> np.ndarray[Any, Any]:
        goal = folder.parent / f"{source.name}.mlpackage"
        if not goal.exists():
            convert_language(source, goal, context=ROOM, prefill=None if encodes else 16, verify=False)
        model = open_language_package(goal)
        return model.encode(ids) if encodes else walked(model.runner(None, engine, cache=False), ids)

    engines = ["torch"] if encodes else ["openvino", "torch"]
    found: Ways = {}
    for engine in engines:
        found[f"folder {engine}"] = lambda engine=engine: run(folder, engine)
        found[f"gguf {engine}"] = lambda engine=engine: run(made(file), engine)
        found[f"gguf8 {engine}"] = lambda engine=engine: run(made(eight, quantize="q8_0"), engine)
    if llama and not encodes and not any("may not run" in note for note in convert_weights(folder, file).notes):
        # By its own account tlkit's file is what llama.cpp computes; its keys and values are f16, its GELU a table.
        return {"gguf llama.cpp": lambda: run(file, "llama.cpp")}
    if packages:
        for engine in engines:
            found[f"package {engine}"] = lambda engine=engine: package(folder, engine)
            found[f"gguf package {engine}"] = lambda engine=engine: package(made(file), engine)
    return found


def wanted(model: Any, ids: list[int], halves: bool, encodes: bool) -> np.ndarray[Any, Any]:
    """Transformers' logits after each token, or an encoder's vectors."""
    with torch.no_grad():
        if encodes:
            return np.asarray(model(torch.tensor([ids])).last_hidden_state[0].numpy())
        kept = {"past_key_values": Halves(config=model.config)} if halves else {"use_cache": False}
        return np.asarray(model(torch.tensor([ids]), **kept).logits[0].numpy())


def tried(case: Case, where: Path, packages: bool = True, llama: bool = False) -> dict[str, Any]:
    """Try a case in every way; return the largest difference by way (relative to the largest logit), or what was
    said."""
    found: dict[str, Any] = {"case": {**case.entries, "type": case.model_type, "dtype": case.dtype, "old": case.old}}
    try:
        model = write(where / "folder", case)
        ids = PROMPT if case.encodes else greedy(model)
        plain, halves = (wanted(model, ids, half, case.encodes) for half in (False, True))
        exact = wanted(model.double(), ids, False, case.encodes)
    except Exception as error:
        return {**found, "transformers": f"{type(error).__name__}: {error}"[:300]}
    if not np.isfinite(plain).all():
        return {**found, "transformers": "not finite"}
    scale = max(1.0, float(np.abs(plain).max()))
    # Some random models magnify each rounding: transformers' own distance from f64 says how much.
    found["f64"] = float(np.abs(plain - exact).max()) / scale
    kept: dict[str, Any] = {}
    for name, compute in ways(where / "folder", ids, packages, case.encodes, llama).items():
        try:
            kept[name] = got = compute()
            rows = got[:, : plain.shape[1]]
            near = halves if "package" in name and not case.encodes else plain
            found[name] = float(np.abs(rows - near).max()) / scale
        except TlkitError as error:
            found[name] = f"refused: {error.message} | {error.hint}"
        except Exception:
            found[name] = "failed: " + traceback.format_exc()[-700:]
    if all(isinstance(kept.get(f"gguf8 {engine}"), np.ndarray) for engine in ("openvino", "torch")):
        found["gguf8 apart"] = float(np.abs(kept["gguf8 openvino"] - kept["gguf8 torch"]).max()) / scale
    return found


def wrong(found: dict[str, Any]) -> dict[str, Any]:
    """What is neither right nor refused."""

    sparse = any("experts" in name for name in found["case"])

    def is_wrong(name: str, value: Any) -> bool:
        if name in ("case", "transformers", "seed", "s", "f64"):
            return False
        if isinstance(value, str):
            return not value.startswith("refused")
        if name in ("gguf8 openvino", "gguf8 torch"):
            # Rounding to 8 bits is that of f32 some 1e4 times; and it may choose another expert.
            return not (value < max(0.3, 1e4 * found["f64"]) or sparse)
        return not value < (3e-3 if "package" in name or "llama" in name else max(1e-4, 2 * found["f64"]))

    return {name: value for name, value in found.items() if is_wrong(name, value)}


def _seeds(text: str) -> Iterator[int]:
    first, _, last = text.partition("-")
    yield from range(int(first), int(last or first) + 1)


def main() -> None:
    """Go through seeds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0-100")
    parser.add_argument("--type", default="")
    parser.add_argument("--log", default="")
    parser.add_argument("--no-packages", action="store_true")
    parser.add_argument("--llama", action="store_true", help="beside llama.cpp, and nothing else")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for seed in _seeds(asked.seeds):
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as where:
            found = tried(drawn(seed, asked.type), Path(where), not asked.no_packages, asked.llama)
        found |= {"seed": seed, "s": round(time.monotonic() - start, 1)}
        if asked.log:
            with Path(asked.log).open("a") as log:
                log.write(json.dumps(found) + "\n")
        told = found.get("transformers", "")
        sys.stdout.write(f"{seed} {found['case']['type']} {found['s']} {told} {json.dumps(wrong(found))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
