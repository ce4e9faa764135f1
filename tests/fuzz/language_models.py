"""Language models as GGUF, folders and packages: small sound ones, hostile hyperparameters and vocabularies, and what
reads them."""

from __future__ import annotations

import json
import random
import re
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.target import pack

_HOSTILE = (0, 1, 2, 3, 7, 255, 1 << 16, 1 << 20, (1 << 31) - 1, 1 << 31, 0xFFFFFFFF, 0x7FC00000)
_KEY = re.compile(rb"(?:llama|gpt2|tokenizer\.ggml|tokenizer\.chat_template)[a-z_.]*")
_LOOPS = b"{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"


def language_models() -> list[bytes]:
    """A model with SentencePiece's vocabulary and one with merges, of one layer each."""
    return [_written("llama"), _written("gpt2")]


def _written(kind: str) -> bytes:
    import gguf
    import numpy as np

    draw = np.random.default_rng(0)
    words = [chr(97 + place) for place in range(8)]
    tokens = [*(f"<0x{byte:02X}>" for byte in range(256)), *words, "ab", "cd"] if kind == "llama" else [*words, "ab"]
    tokens = ["<unk>", "<s>", "</s>", *tokens]
    tensors: dict[str, Any] = {"token_embd": (len(tokens), 32), "output_norm": (32,)}
    block = {"attn_norm": (32,), "ffn_norm": (32,), "attn_output": (32, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}
    if kind == "llama":
        block |= {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "ffn_gate": (64, 32)}
    else:
        block |= {"attn_qkv": (96, 32)}
        tensors["position_embd"] = (32, 32)
    tensors |= {f"blk.0.{name}": shape for name, shape in block.items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        writer = gguf.GGUFWriter(file, kind)
        for key, count in (("context_length", 32), ("embedding_length", 32), ("block_count", 1)):
            writer.add_uint32(f"{kind}.{key}", count)
        for key, count in (("feed_forward_length", 64), ("attention.head_count", 4), ("attention.head_count_kv", 2)):
            writer.add_uint32(f"{kind}.{key}", count if kind == "llama" or "kv" not in key else 4)
        writer.add_float32(f"{kind}.attention.layer_norm_epsilon", 1e-5)
        writer.add_tokenizer_model(kind)
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3, 3, *(6 if token.startswith("<0x") else 1 for token in tokens[3:])])
        if kind == "llama":
            writer.add_token_scores([-float(place) for place in range(len(tokens))])
        else:
            writer.add_token_merges(["a b"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}" + " " * 40)
        for name, shape in tensors.items():
            values = draw.normal(0, 0.1, shape).astype(np.float32)
            if kind == "gpt2" and not name.endswith("_embd"):
                writer.add_tensor(f"{name}.bias", np.zeros(shape[0], np.float32))
            q = len(shape) > 1 and name.endswith(("ffn_up", "attn_output"))
            if q:
                blocks = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
                writer.add_tensor(f"{name}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
            else:
                writer.add_tensor(f"{name}.weight", values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return file.read_bytes()


def damage_language(case: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Give a key another value, bend its template into a loop, or change bytes anywhere."""
    found = bytearray(case)
    places = [match.end() for match in _KEY.finditer(case[:40_000])]
    for _ in range(rng.choice((1, 1, 2))):
        way = rng.random()
        if places and way < 0.6:
            at = rng.choice(places)
            (kind,) = struct.unpack_from("<I", found, at)
            if kind in (4, 5, 6):
                struct.pack_into("<I", found, at + 4, rng.choice(_HOSTILE))
            else:
                found[at + rng.randrange(24)] = rng.randrange(256)
        elif way < 0.65:
            at = found.find(b"{% for m in")
            if at >= 0:
                found[at : at + len(_LOOPS)] = _LOOPS
        else:
            found[rng.randrange(len(found))] = rng.randrange(256)
    return bytes(found)


def families() -> list[bytes]:
    """Models of several families as GGUF, of one layer each (Gemma's two)."""
    with tempfile.TemporaryDirectory() as root:
        return [_built(Path(root), case)[1].read_bytes() for case in _CASES]


def folders() -> list[bytes]:
    """The same as folders; the first has two shards, too."""
    with tempfile.TemporaryDirectory() as root:
        found = [_built(Path(root), case)[0] for case in _CASES]
        files = [{f"m/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())} for folder in found]
    return [pack(item) for item in (*files, _sharded(files[0]))]


def language_packages() -> list[bytes]:
    """Packages of a decoder in f32 with blocks, of one in f16 that returns tokens, and of an encoder."""
    from tlkit.core.language.packaging import convert_language

    wanted: list[tuple[str, dict[str, Any]]] = [
        ("llama", {"nested": True, "prefill": "4,8"}),
        ("phi3_long", {"precision": "f16", "returns": "argmax", "weights": "int8"}),
        ("bert", {}),
    ]
    found = []
    with tempfile.TemporaryDirectory() as root:
        for case, options in wanted:
            made = Path(root) / f"{case}.mlpackage"
            convert_language(_built(Path(root), case)[1], made, context=16, verify=False, **options)
            files = [path for path in sorted(made.rglob("*")) if path.is_file()]
            found.append(pack({f"model.mlpackage/{path.relative_to(made)}": path.read_bytes() for path in files}))
    return found


_CASES = ("llama", "gemma3", "qwen2_moe", "phi3_long", "gpt2", "bert")


def _built(root: Path, case: str) -> tuple[Path, Path]:
    """Make a small folder, and a file of it with blocks in Q8_0."""
    from tests.formats.gguf.model.folders import build
    from tlkit import convert_weights

    changes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    changes |= {"gemma3": {"num_hidden_layers": 2, "head_dim": 8}}.get(case, {})
    changes |= {"num_attention_heads": 2, "num_key_value_heads": 1} if case == "phi3_long" else {}
    folder = build(root / case, case, **({"n_embd": 32, "n_layer": 1} if case == "gpt2" else changes))
    convert_weights(folder, root / f"{case}.gguf", quantize="q8_0")
    return folder, root / f"{case}.gguf"


def _sharded(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return a folder's files with its weights in two shards and an index."""
    from safetensors.numpy import load, save

    found = dict(files)
    tensors = load(found.pop("m/model.safetensors"))
    names = sorted(tensors)
    places = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(names)}
    for file in sorted(set(places.values())):
        found[f"m/{file}"] = save({name: tensors[name] for name in names if places[name] == file})
    total = sum(value.nbytes for value in tensors.values())
    found["m/model.safetensors.index.json"] = json.dumps(
        {"metadata": {"total_size": total}, "weight_map": places}
    ).encode()
    return found


def _encodes(path: Path) -> bool:
    from tlkit.core.language.answer import decoder_of
    from tlkit.errors import UsageError

    try:
        decoder_of(path)
    except UsageError as error:
        return "encoder" in error.message
    return False


def read_language(case: Path, out: Path, rng: random.Random) -> None:
    """Open a model and let it say two tokens, make a vector, or a package."""
    from tlkit import inspect
    from tlkit.core.language.answer import answer, embed, perplexity
    from tlkit.core.language.packaging import convert_language

    (path,) = case.iterdir()
    engine = rng.choice(("torch", "torch", "openvino"))
    way = rng.random()
    if way < 0.75 and _encodes(path):
        embed(path, "abc cd")
    elif way < 0.6:
        found = answer(path, "abc cd", most=2, context=rng.choice((None, 16)), engine=engine, cache=False)
        assert len(found.tokens) <= 2
    elif way < 0.75:
        (out / "text").write_text("The capital of France is Paris. " * 9)
        perplexity(path, out / "text", context=8, engine=engine, cache=False)
    elif way < 0.8 or path.suffix == ".mlpackage":
        inspect(path)
    else:
        options: dict[str, Any] = rng.choice(
            ({}, {"nested": True}, {"requantize": True}, {"weights": "int8"}, {"weights": "f16"})
        )
        precision = "f16" if rng.random() < 0.3 else "f32"
        convert_language(
            path, out / "made.mlpackage", context=8, precision=precision, verify=rng.random() < 0.5, **options
        )
