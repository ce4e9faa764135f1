"""Tokens per second of language models: tlkit's engines beside transformers, and llama.cpp where it is installed.

    python benchmarks/language.py model.gguf [--folder HF_FOLDER] [--prompt 512] [--gen 64] [--rounds 3]
        [--peer-python VENV/bin/python] [--threads 1]

--peer-python is the Python that has llama-cpp-python, where that is not this one. Where other work runs, rates say
little, and processor time with one thread (which never waits for another) more: it is told beside them.

Each contestant runs in a process of its own, in turns, with as many threads. transformers gets the folder's weights
in f32 (it reads GGUF by expanding it). llama.cpp quantizes activations to 8 bits; tlkit does not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from typing import Any


def tlkit(args: argparse.Namespace, engine: str) -> dict[str, float]:
    """tlkit's runner, without the command line around it."""
    from tlkit.core.language.answer import decoder_of

    begin = time.perf_counter()
    runner = decoder_of(args.model).runner(args.prompt + args.gen + 64, engine)
    loaded = time.perf_counter() - begin
    return _timed(args, loaded, runner.feed, runner.rewind)


def llama(args: argparse.Namespace) -> dict[str, float]:
    """llama-cpp-python on the same file."""
    import numpy as np

    library: Any = import_module("llama_cpp")
    threads = len(os.sched_getaffinity(0))
    begin = time.perf_counter()
    model = library.Llama(
        args.model,
        n_ctx=args.prompt + args.gen + 64,
        n_batch=512,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    loaded = time.perf_counter() - begin

    def feed(tokens: list[int]) -> Any:
        model.eval(tokens)
        return np.array(model._ctx.get_logits_ith(-1)[: model.n_vocab()])

    return _timed(args, loaded, feed, lambda position: model.reset())


def transformers(args: argparse.Namespace) -> dict[str, float]:
    """transformers in f32, with its dynamic cache."""
    import torch
    from transformers import AutoModelForCausalLM

    begin = time.perf_counter()
    model: Any = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32)
    model.eval()
    loaded, held = time.perf_counter() - begin, {"cache": None}

    def feed(tokens: list[int]) -> Any:
        with torch.inference_mode():
            found = model(torch.tensor([tokens]), past_key_values=held["cache"], use_cache=True, logits_to_keep=1)
        held["cache"] = found.past_key_values
        return found.logits[0, -1].numpy()

    return _timed(args, loaded, feed, lambda position: held.update(cache=None))


def _timed(args: argparse.Namespace, loaded: float, feed: Any, rewind: Any) -> dict[str, float]:
    prompt = [(37 * place) % 200 + 5 for place in range(args.prompt)]
    feed(prompt)
    rewind(0)
    begin, busy = time.perf_counter(), time.process_time()
    logits = feed(prompt)
    read, prompt_busy = time.perf_counter() - begin, time.process_time() - busy
    steps, busy = [], time.process_time()
    for _ in range(args.gen):
        begin = time.perf_counter()
        logits = feed([int(logits.argmax())])
        steps.append(time.perf_counter() - begin)
    step_busy = (time.process_time() - busy) / args.gen
    rewind(0)
    logits, early = feed(prompt[:10]), []
    for _ in range(16):
        begin = time.perf_counter()
        logits = feed([int(logits.argmax())])
        early.append(time.perf_counter() - begin)
    rate = 1 / median(steps)
    found = {"load": loaded, "prompt": args.prompt / read, "generate": rate, "late": median(steps) / median(early)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return found | {"prompt_cpu": prompt_busy * 1e3, "step_cpu": step_busy * 1e3, "peak": peak}


def main() -> None:
    """Measure all that is installed, and print a table of medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--folder")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--gen", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only")
    parser.add_argument("--peer-python")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads and hasattr(os, "sched_setaffinity"):
        # Every contestant takes as many threads as it may use processors.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    if args.only:
        kinds = {"llama.cpp": llama, "transformers": transformers}
        found = kinds[args.only](args) if args.only in kinds else tlkit(args, args.only)
        print(json.dumps(found))
        return
    names = [name for name in ("openvino",) if find_spec(name)] + ["torch"]
    names += ["llama.cpp"] if args.peer_python or find_spec("llama_cpp") else []
    names += ["transformers"] if args.folder else []
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            python = args.peer_python if args.peer_python and name == "llama.cpp" else sys.executable
            command = [python, __file__, *sys.argv[1:], "--only", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    titles = ("load, s", "prompt/s", "gen/s", "late/early", "prompt CPU ms", "step CPU ms", "peak MB")
    keys = ("load", "prompt", "generate", "late", "prompt_cpu", "step_cpu", "peak")
    print(" " * 14 + "".join(f"{title:>15}" for title in titles))
    for name, runs in results.items():
        print(f"{name:14}" + "".join(f"{median(run[key] for run in runs):15.2f}" for key in keys))


if __name__ == "__main__":
    main()
