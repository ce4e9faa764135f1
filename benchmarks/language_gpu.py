"""Tokens per second of a language model of random weights on a CUDA GPU: tlkit beside transformers.

    python benchmarks/language_gpu.py FOLDER [--layers 16] [--width 2048] [--gen 128] [--quantize q4_k_m] [--only NAME]

FOLDER is made where it is not there: Llama of some 1.2 billion weights in bf16 (the sizes of Llama 3.2 1B), and a
tokenizer of words. Each contestant runs in a process of its own and generates after the same prompt, greedily:

* ``generate``   transformers in bf16: ``generate`` with a static cache, which compiles the model; the rate of tokens
                 between two lengths
* ``static``     transformers in bf16: a loop over ``torch.compile(mode="reduce-overhead")`` with a static cache and
                 nothing else; the yardstick where it is the faster of the two
* ``tlkit``      ``--units gpu``: weights in bf16, everything else in f32; with ``--quantize`` a GGUF file of the
                 model (made beside it), whose blocks stay blocks

Said beside the rates: the memory of the GPU at most, and by the bytes of the weights' files; at how many places tlkit
takes the token that transformers takes with the same weights in f32, given the same text, and the largest difference of
their logits, and of all logits.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PROMPT = 64


def made(args: argparse.Namespace) -> None:
    """Make the model, unless it is there."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    if (args.folder / "config.json").exists():
        return
    torch.manual_seed(0)
    heads = args.width // 64
    config = LlamaConfig(
        vocab_size=args.vocabulary,
        hidden_size=args.width,
        intermediate_size=4 * args.width,
        num_hidden_layers=args.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 4, 1),
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(args.folder)
    words = {f"w{place}": place for place in range(args.vocabulary)}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.save(str(args.folder / "tokenizer.json"))


def quantized(args: argparse.Namespace) -> None:
    """Make the GGUF file, unless it is there or none is wanted."""
    from tlkit import convert_weights

    if args.quantize and not stored(args).exists():
        convert_weights(args.folder, stored(args), quantize=args.quantize)


def stored(args: argparse.Namespace) -> Path:
    """Return the file of the weights that tlkit runs."""
    folder: Path = args.folder
    return folder.with_name(f"{folder.name}-{args.quantize}.gguf") if args.quantize else folder / "model.safetensors"


def prompt() -> list[int]:
    """The tokens that all begin with."""
    return [(37 * place) % 200 + 5 for place in range(PROMPT)]


def opened(folder: Path, dtype: str) -> Any:
    """transformers' model on the GPU."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.generation_config.eos_token_id = None
    return model.to("cuda").eval()


def decoded(model: Any, file: Path) -> Any:
    """transformers' model with a GGUF file's weights, decoded."""
    import torch

    from tlkit.core.language.model import open_language
    from tlkit.formats.gguf.model.changes import Change

    opened_file = open_language(file)
    tensors, sizes = opened_file.source.tensors, opened_file.sizes
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
    names |= {"attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    names |= {f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    whole = {"token_embd": "embed_tokens", "output_norm": "norm"}
    with torch.no_grad():
        for name, tensor in tensors.items():
            parts = name.split(".")
            if parts[0] == "rope_freqs":
                continue
            if parts[-2] in ("attn_q", "attn_k"):
                query = parts[-2] == "attn_q"
                back = Change("q rows", sizes.heads, back=True) if query else Change("k rows", sizes.groups, back=True)
                tensor = tensor.changed(back)
            place = f"layers.{parts[1]}.{names[parts[2]]}" if parts[0] == "blk" else whole[parts[0]]
            model.model.get_parameter(f"{place}.weight").copy_(torch.from_numpy(tensor.array()))
    return model


def generate(args: argparse.Namespace) -> dict[str, Any]:
    """transformers' own loop."""
    import torch

    model = opened(args.folder, "bfloat16")
    ids = torch.tensor([prompt()], device="cuda")
    how: dict[str, Any] = {"do_sample": False, "cache_implementation": "static", "max_length": None}

    def run(count: int) -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        model.generate(ids, attention_mask=torch.ones_like(ids), min_new_tokens=count, max_new_tokens=count, **how)
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    for _ in range(3):
        run(args.gen)
    short = 8
    taken = [run(args.gen) - run(short) for _ in range(args.rounds)]
    return {"generate": (args.gen - short) / median(taken)}


def static(args: argparse.Namespace) -> dict[str, Any]:
    """The compiled model in the plainest loop."""
    import torch
    from transformers import StaticCache

    model = opened(args.folder, "bfloat16")
    length = PROMPT + args.gen + 8
    step = torch.compile(lambda **given: model(**given).logits[:, -1], mode="reduce-overhead", fullgraph=True)
    rates = []
    with torch.inference_mode():
        cache: Any = StaticCache(config=model.config, max_cache_len=length)
        for _ in range(2 + args.rounds):
            cache.reset()
            ids = torch.tensor([prompt()], device="cuda")
            places = torch.arange(PROMPT, device="cuda")
            logits = model(
                input_ids=ids, past_key_values=cache, cache_position=places, position_ids=places[None], use_cache=True
            ).logits[:, -1]
            times = []
            for place in range(PROMPT, PROMPT + args.gen):
                begin = time.perf_counter()
                token = logits.argmax(-1, keepdim=True).clone()
                at = torch.tensor([place], device="cuda")
                torch.compiler.cudagraph_mark_step_begin()
                logits = step(
                    input_ids=token, past_key_values=cache, cache_position=at, position_ids=at[None], use_cache=True
                )
                torch.cuda.synchronize()
                times.append(time.perf_counter() - begin)
            rates.append(1 / median(times))
    return {"generate": median(rates[2:])}


def tlkit(args: argparse.Namespace) -> dict[str, Any]:
    """tlkit's runner."""
    import torch

    from tlkit.core.language.answer import decoder_of
    from tlkit.types import Unit

    file = stored(args)
    begin = time.perf_counter()
    runner = decoder_of(file if args.quantize else args.folder).runner(PROMPT + args.gen + 8, unit=Unit.GPU)
    logits = runner.feed(prompt())
    runner.feed([int(logits.argmax())])
    loaded = time.perf_counter() - begin
    rates, all_logits = [], []
    tokens: list[int] = []
    for _ in range(1 + args.rounds):
        runner.rewind(0)
        logits = runner.feed(prompt())
        times, tokens, all_logits = [], [], [logits]
        for _ in range(args.gen):
            begin = time.perf_counter()
            tokens.append(int(logits.argmax()))
            logits = runner.feed(tokens[-1:])
            times.append(time.perf_counter() - begin)
            all_logits.append(logits)
        rates.append(1 / median(times))
    memory = torch.cuda.max_memory_allocated()
    free = time.perf_counter()
    runner.rewind(0)
    runner.feed(prompt() * (args.gen // PROMPT or 1))
    read = (args.gen // PROMPT or 1) * PROMPT / (time.perf_counter() - free)
    del runner
    torch.cuda.empty_cache()
    reference = opened(args.folder, "float32")
    if args.quantize:
        decoded(reference, file)
    with torch.inference_mode():
        ids = torch.tensor([[*prompt(), *tokens]], device="cuda")
        exact = reference(ids).logits[0, PROMPT - 1 : -1].cpu().numpy()
    found = {"generate": median(rates[1:]), "load": loaded, "GB": memory / 1e9, "prompt": read}
    found["of the file"] = memory / file.stat().st_size
    found["same"] = sum(int(a.argmax()) == b for a, b in zip(exact, tokens, strict=True)) / len(tokens)
    found["off"] = max(float(abs(a - b).max()) for a, b in zip(exact, all_logits, strict=False))
    found["of logits"] = found["off"] / float(abs(exact).max())
    return found


def main() -> None:
    """Measure all, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=128256)
    parser.add_argument("--gen", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quantize", help="a type or a mixture that tlkit convert writes")
    parser.add_argument("--only")
    args = parser.parse_args()
    if args.only:
        kinds = {"generate": generate, "static": static, "tlkit": tlkit}
        print(json.dumps(kinds[args.only](args)))
        return
    made(args)
    quantized(args)
    for name in ("generate", "static", "tlkit"):
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name:10} failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:10}" + "  ".join(f"{key} {value:.4g}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
