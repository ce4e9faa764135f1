"""Encoders against transformers, and Jina's against its twin: from folders and from the GGUF files made of them.

Covers tlkit/frontends/gguf/families/bert.py.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.formats.gguf.model.folders import build, trained
from tlkit import convert_weights
from tlkit.core.language.model import open_language
from tlkit.formats.gguf.read import GGUFFile

IDS = [2, 5, 9, 33, 100, 7, 60, 3]
NOMIC = {
    "token_embd": "embeddings.word_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
}
NOMIC_BLOCK = {
    "attn_output": "self_attn.o_proj",
    "attn_output_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "layer_output_norm": "post_mlp_layernorm",
}


def test_bert_is_that_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = build(tmp_path / "folder", "bert")
    with torch.no_grad():
        wanted = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()(torch.tensor([IDS])).last_hidden_state
    found = open_language(folder).encode(IDS)
    assert np.abs(found - wanted[0].numpy()).max() < 1e-4


def test_nomic_is_that_of_transformers(tmp_path: Path) -> None:
    """From the folder, from the GGUF file that convert makes of it, and from one that the gguf package writes, as
    llama.cpp names and joins the tensors of this model."""
    folder, model = nomic_folder(tmp_path / "folder")
    with torch.no_grad():
        wanted = model(torch.tensor([IDS])).last_hidden_state[0].numpy()
    convert_weights(folder, tmp_path / "ours.gguf")
    for path in (folder, tmp_path / "ours.gguf", nomic(tmp_path / "theirs.gguf", model, model.config)):
        assert np.abs(open_language(path).encode(IDS) - wanted).max() < 1e-4
    shapes = {entry.name: entry.shape for entry in GGUFFile(tmp_path / "ours.gguf").entries()}
    assert shapes["blk.0.attn_qkv.weight"] == (192, 64)


def nomic_folder(folder: Path) -> tuple[Path, Any]:
    """Write a small random Nomic model, with the tokenizer of BERT's case."""
    from transformers import NomicBertConfig, NomicBertModel

    torch.manual_seed(3)
    tokenizer = trained("words")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = NomicBertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    model: Any = NomicBertModel(config, add_pooling_layer=False).float().eval()
    randomize(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model


def randomize(model: torch.nn.Module) -> None:
    """Give a model weights that matter, norms around 1."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(torch.randn(value.shape) * 0.2 + (1 if "norm" in name.lower() and value.ndim == 1 else 0))


class Jina(torch.nn.Module):
    """JinaBertModel in plain PyTorch: its published modeling_bert.py is code of the model's repository, and not in
    transformers. ``normed`` has what its models of code have: norms of q and k, a second one after attention, and the
    gate in the second half of a matrix of another name."""

    def __init__(self, vocabulary: int, heads: int, layers: int, normed: bool) -> None:
        super().__init__()
        from functools import partial

        from torch.nn import Embedding, Linear, Module, ModuleDict, ModuleList

        LayerNorm = partial(torch.nn.LayerNorm, eps=1e-12)

        def made(**parts: Module) -> ModuleDict:
            return ModuleDict(parts)

        self.heads, self.normed, width, inner = heads, normed, 12 * heads, 96
        self.embeddings = made(
            word_embeddings=Embedding(vocabulary, width),
            token_type_embeddings=Embedding(2, width),
            LayerNorm=LayerNorm(width),
        )
        blocks = []
        for _ in range(layers):
            own = {name: Linear(width, width) for name in ("query", "key", "value")}
            own |= {name: LayerNorm(width) for name in ("layer_norm_q", "layer_norm_k") if normed}
            attention = ModuleDict(
                {"self": made(**own), "output": made(dense=Linear(width, width), LayerNorm=LayerNorm(width))}
            )
            up, down = ("up_gated_layer", "down_layer") if normed else ("gated_layers", "wo")
            mlp = {up: Linear(width, 2 * inner, bias=False), down: Linear(inner, width)}
            mlp |= {} if normed else {"layernorm": LayerNorm(width)}
            parts = {"attention": attention, "mlp": ModuleDict(mlp)}
            parts |= {name: LayerNorm(width) for name in ("layer_norm_1", "layer_norm_2") if normed}
            blocks.append(ModuleDict(parts))
        self.encoder = ModuleDict({"layer": ModuleList(blocks)})

    def slopes(self) -> list[float]:
        """ALiBi's slopes, as its paper's code has them for any number of heads."""

        def of_a_power(count: int) -> list[float]:
            start = 2 ** (-(2 ** -(math.log2(count) - 3)))
            return [start * start**index for index in range(count)]

        if math.log2(self.heads).is_integer():
            return of_a_power(self.heads)
        closest = 2 ** math.floor(math.log2(self.heads))
        return of_a_power(closest) + of_a_power(2 * closest)[0::2][: self.heads - closest]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the vectors [T, width]."""
        e: Any = self.embeddings
        x = e["LayerNorm"](e["word_embeddings"](ids) + e["token_type_embeddings"].weight[0])
        places = torch.arange(len(ids))
        fall = -torch.tensor(self.slopes())[:, None, None] * (places[:, None] - places[None]).abs()
        for block in self.encoder["layer"]:  # type: ignore[union-attr]
            x = self.layer(block, x, fall)
        return x

    def layer(self, block: Any, x: torch.Tensor, fall: torch.Tensor) -> torch.Tensor:
        """Return one layer's result."""
        own, out, mlp = block["attention"]["self"], block["attention"]["output"], block["mlp"]
        q, k, v = (own[name](x) for name in ("query", "key", "value"))
        if self.normed:
            q, k = own["layer_norm_q"](q), own["layer_norm_k"](k)
        q, k, v = (part.reshape(len(x), self.heads, -1).transpose(0, 1) for part in (q, k, v))
        shares = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]) + fall, -1)
        made = out["LayerNorm"](out["dense"]((shares @ v).transpose(0, 1).reshape(len(x), -1)) + x)
        made = block["layer_norm_1"](made + x) if self.normed else made
        first, second = mlp["up_gated_layer" if self.normed else "gated_layers"](made).chunk(2, -1)
        gate, up = (second, first) if self.normed else (first, second)
        inner = mlp["down_layer" if self.normed else "wo"](torch.nn.functional.gelu(gate) * up)
        last = block["layer_norm_2"] if self.normed else mlp["layernorm"]
        found: torch.Tensor = last(inner + made)
        return found


def roberta() -> Any:
    """Return a tokenizer as RoBERTa's, which Jina's models of code have: byte-level BPE between <s> and </s>."""
    from tokenizers import processors

    found = trained("gpt2")
    last, first = (("</s>", found.convert_tokens_to_ids("</s>")), ("<s>", found.convert_tokens_to_ids("<s>")))
    found.backend_tokenizer.post_processor = processors.RobertaProcessing(last, first, add_prefix_space=False)
    return found


def jina_folder(folder: Path, heads: int, normed: bool) -> tuple[Path, Jina]:
    """Write a small random model as Jina's repositories do: model_type bert, with ALiBi."""
    from safetensors.torch import save_file

    torch.manual_seed(5)
    tokenizer = roberta() if normed else trained("words")
    model = Jina(len(tokenizer), heads, 2, normed).eval()
    randomize(model)
    tokenizer.save_pretrained(folder)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    config = {
        "model_type": "bert",
        "architectures": ["JinaBertModel"],
        "position_embedding_type": "alibi",
        "feed_forward_type": "geglu",
        "hidden_act": "gelu",
        "hidden_size": 12 * heads,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "max_position_embeddings": 128,
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        "vocab_size": len(tokenizer),
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model


@pytest.mark.parametrize(("heads", "normed"), [(4, False), (6, True)])
def test_jina_is_its_twin_in_pytorch(tmp_path: Path, heads: int, normed: bool) -> None:
    folder, model = jina_folder(tmp_path / "folder", heads, normed)
    with torch.no_grad():
        wanted = model(torch.tensor(IDS)).numpy()
        exact = model.double()(torch.tensor(IDS)).numpy()
    convert_weights(folder, tmp_path / "model.gguf")
    # What f32 loses is what it loses in PyTorch.
    noise = np.abs(wanted - exact).max()
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)("def f(x): return x\n")["input_ids"]
    for path in (folder, tmp_path / "model.gguf"):
        opened = open_language(path)
        assert np.abs(opened.encode(IDS) - exact).max() < min(1e-4, 4 * noise)
        assert opened.tokenizer.encode("def f(x): return x\n") == tokens


def nomic(file: Path, model: Any, config: Any) -> Path:
    """Write a Nomic model as a GGUF file."""
    import gguf

    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    writer = gguf.GGUFWriter(file, "nomic-bert")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_causal_attention(False)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"\u2581w{n}" for n in range(config.vocab_size - 4))])
    writer.add_token_types([3] * 4 + [1] * (config.vocab_size - 4))

    def add(new: str, *names: str) -> None:
        for ending in ("weight", "bias"):
            parts = [weights[f"{name}.{ending}"] for name in names if f"{name}.{ending}" in weights]
            if parts:
                writer.add_tensor(f"{new}.{ending}", np.concatenate(parts).astype(np.float32))

    for new, name in NOMIC.items():
        add(new, name)
    for layer in range(config.num_hidden_layers):
        add(f"blk.{layer}.attn_qkv", *(f"layers.{layer}.self_attn.{part}_proj" for part in "qkv"))
        for new, name in NOMIC_BLOCK.items():
            add(f"blk.{layer}.{new}", f"layers.{layer}.{name}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
