"""A Hugging Face folder as the model that llama.cpp loads: all but the weights' bytes, and what stands against it.

``doubts`` are reasons why llama.cpp will not load the file, or will compute or split text otherwise; an empty list is a
promise. ``limits`` are reasons why nothing that reads the file computes what the folder says. The weights themselves
are written by whoever asked, by :class:`GGUFModel`'s plan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlkit.errors import TlkitError
from tlkit.formats.base.tensors import TensorEntry
from tlkit.formats.gguf.model.architectures import ARCHITECTURES, full_name
from tlkit.formats.gguf.model.changes import Change, change_of, short_name
from tlkit.formats.gguf.model.encoder_rows import JINA_CODE
from tlkit.formats.gguf.model.hyperparameters import OWN_LIMITS, heads, hyperparameters
from tlkit.formats.gguf.model.row import Architecture
from tlkit.formats.gguf.model.specials import specials
from tlkit.formats.gguf.model.tokenizer_files import TokenizerFiles, listed
from tlkit.formats.gguf.model.vocabulary import TOKENIZER, read_vocabulary
from tlkit.formats.gguf.names import to_gguf
from tlkit.formats.gguf.write import Typed
from tlkit.types import LeftOut

_EXPERT = re.compile(r"(.*\.experts)\.(\d{1,4})\.(.*)")
_PART = re.compile(r"\.([qkv])_proj\.")
_BLOCKS = 1 << 12
_FULL = re.compile(r"(.*_norm\.weight|.*ffn_gate_inp\.weight|position_embd\.weight|token_types\.weight)")
_PHI_TOKENS = frozenset(("<s>", "</s>", "<unk>", "<|endoftext|>"))
# sentence-transformers' settings, and llama.cpp's numbers (LLAMA_POOLING_TYPE).
_POOLING = {"mean_tokens": 1, "cls_token": 2, "lasttoken": 3, "mean": 1, "cls": 2}


@dataclass(slots=True)
class GGUFModel:
    """The plan. ``names`` and ``changes`` are by the source's names; ``stacks`` say which tensors (one per expert)
    become one, ``joined`` those of these that lie one below the other; ``made`` are tensors that the config describes,
    as float32 rows by their GGUF name."""

    architecture: str
    names: dict[str, str] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)
    stacks: dict[str, list[str]] = field(default_factory=dict)
    joined: set[str] = field(default_factory=set)
    made: Mapping[str, Sequence[float]] = field(default_factory=dict)
    metadata: dict[str, Typed] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)


def architecture_of(config: Mapping[str, Any]) -> Architecture | None:
    """Return the row for a ``config.json``; None for a model that is not known."""
    kind = str(config.get("model_type", ""))
    if kind == "bert" and config.get("position_embedding_type") == "alibi":
        kind = "jina_bert"
    return ARCHITECTURES.get(kind)


def is_full(name: str, shape: tuple[int, ...]) -> bool:
    """Whether llama.cpp wants a tensor in float32 whatever the others are: vectors, norms, routers, positions."""
    return len(shape) < 2 or _FULL.fullmatch(name) is not None


def read_model(folder: Path, config: Mapping[str, Any], entries: Mapping[str, TensorEntry]) -> GGUFModel | None:
    """Return the plan for the weights ``entries`` (by the names they now have); None for an unknown architecture."""
    row = architecture_of(config)
    if row is None:
        return None
    if row is ARCHITECTURES["jina_bert"] and any(JINA_CODE[0] in name for name in entries):
        row = JINA_CODE[1]
    found = GGUFModel(row.name)
    _weights(found, row, config, entries)
    described = hyperparameters(config, row)
    found.doubts += described.doubts
    found.limits[:0] = described.limits
    found.made = described.tensors
    found.metadata = {**_general(folder, row), **described.keys}
    rows = next((entry.shape[0] for name, entry in entries.items() if _is_embedding(found, name) and entry.shape), 0)
    _tokenizer(found, folder, config, rows)
    if row.encodes:
        _pooling(found, folder)
    if found.limits:
        found.metadata[OWN_LIMITS] = Typed("arr[str]", found.limits)
    return found


def _is_embedding(found: GGUFModel, name: str) -> bool:
    return found.names.get(name) == "token_embd.weight"


def _weights(
    found: GGUFModel, row: Architecture, config: Mapping[str, Any], entries: Mapping[str, TensorEntry]
) -> None:
    """Plan each tensor: its name, its change, or why it is not written."""
    usual = {name: _usual(name, row) for name in entries}
    tied = _is_tied(config, row)
    plain: dict[str, str] = {}  # the usual name without the expert's number, by the source's name
    for name, spelled in usual.items():
        if any(re.search(pattern, spelled) for pattern in row.skipped):
            found.left_out.append(LeftOut(name, _WORKED_OUT, entries[name].nbytes, "unasked"))
        elif tied and spelled == "lm_head.weight":
            found.left_out.append(LeftOut(name, _TIED, entries[name].nbytes, "unasked"))
        else:
            expert = _EXPERT.fullmatch(spelled)
            plain[name] = f"{expert[1]}.{expert[3]}" if expert else spelled
    known = to_gguf(dict.fromkeys(plain.values()), row.name)
    counts = heads(config, row)
    for name, spelled in plain.items():
        new = known.get(spelled)
        if new is None:
            continue
        found.names[name] = new
        below = short_name(new) in row.joined and _PART.search(name) is not None
        if below or _EXPERT.fullmatch(usual[name]):
            found.stacks.setdefault(new, []).append(name)
            found.joined |= {new} if below else set()
        change = change_of(new, row, counts)
        if change and not change.fits(entries[name].shape):
            shape = "x".join(map(str, entries[name].shape))
            found.limits.append(f"'{name}' ({shape}) does not fit {counts[0]} heads of attention")
            found.doubts.append(found.limits[-1])
        elif change:
            found.changes[name] = change
    for members in found.stacks.values():
        # The stack's first axis is the expert's number.
        members.sort(key=lambda name: int((_EXPERT.fullmatch(usual[name]) or ("", "", "0"))[2]))
        members.sort(key=lambda name: "qkv".index((_PART.search(name) or ("", "q"))[1]))
    _check(found, row, config, [name for name in plain if name not in found.names])


_WORKED_OUT = "no inference needs it: it follows from the rest, or belongs to another task"
_TIED = "the output layer is the embedding (tie_word_embeddings)"


def _usual(name: str, row: Architecture) -> str:
    for pattern, replacement in row.renames:
        name = re.sub(pattern, replacement, name)
    return name


def _is_tied(config: Mapping[str, Any], row: Architecture) -> bool:
    inner = config.get("text_config")
    said = config.get("tie_word_embeddings", inner.get("tie_word_embeddings") if isinstance(inner, Mapping) else None)
    return bool(row.defaults["tie_word_embeddings"] if said is None else said)


def _check(found: GGUFModel, row: Architecture, config: Mapping[str, Any], nameless: Sequence[str]) -> None:
    """Doubt a model that lacks tensors, or has some that llama.cpp does not look for: it loads neither."""
    inner = config.get("text_config")
    layers = {**config, **(inner if isinstance(inner, Mapping) else {})}
    count = layers.get("num_hidden_layers", layers.get("n_layer", row.defaults.get("num_hidden_layers", 12)))
    count = count if type(count) is int and 0 < count < _BLOCKS else 0
    wanted = {full_name(name) for name in row.tensors.split()}
    wanted |= {f"blk.{block}.{full_name(name)}" for block in range(count) for name in row.blocks.split()}
    have = set(found.names.values())
    if not _is_tied(config, row) and "output" in row.optional.split():
        wanted.add("output.weight")
    lacking = sorted(wanted - have)
    if lacking:
        found.doubts.append(f"{len(lacking)} of its tensors are not there: {', '.join(lacking[:3])}")
    able = {full_name(name) for name in row.optional.split()} | {full_name(name) for name in row.blocks.split()}
    extra = [name for name, new in found.names.items() if new not in wanted and short_name(new) not in able]
    extra = [*nameless, *extra]
    if extra:
        found.doubts.append(f"{row.name} has no place for {len(extra)} of its tensors: {', '.join(extra[:3])}")
    if nameless:
        said = f"{len(nameless)} of its tensors have no place in {row.name}: {', '.join(nameless[:3])}"
        found.limits.append(said)


def _general(folder: Path, row: Architecture) -> dict[str, Typed]:
    """Return what a file says of itself in general."""
    found = {"general.architecture": Typed("str", row.name), "general.type": Typed("str", "model")}
    found["general.file_type"] = Typed("u32", 0)  # as long as all is float32; the writer knows what it becomes
    name = folder.resolve().name
    if name:
        found["general.name"] = Typed("str", name)
    return found


def _tokenizer(found: GGUFModel, folder: Path, config: Mapping[str, Any], rows: int) -> None:
    """Add the tokenizer's entries, or say why there are none."""
    files = TokenizerFiles(folder)
    try:
        vocabulary = read_vocabulary(files)
        if vocabulary is None:
            found.doubts.append("the folder has no tokenizer (tokenizer.json or tokenizer.model)")
            return
        vocabulary.fit(rows or len(vocabulary.tokens))
        found.metadata |= vocabulary.metadata() | specials(files, vocabulary, config)
        found.doubts += vocabulary.doubts
        described = files.text("tokenizer.json") if vocabulary.doubts else ""
        found.metadata |= {TOKENIZER: Typed("str", described)} if described else {}
        _phi(found, set(vocabulary.tokens))
    except TlkitError as error:
        found.doubts.append(error.message)


def _phi(found: GGUFModel, tokens: set[str]) -> None:
    """Keep llama.cpp from looking for Phi's tokens where they are not: it goes by the model's name as well."""
    name = found.metadata.get("general.name")
    called = name is not None and any(word in name.value.lower() for word in ("phi3", "phi-3"))
    lacking = sorted(_PHI_TOKENS - tokens)
    if lacking and found.architecture == "phi3":
        found.doubts.append(f"its vocabulary lacks tokens that llama.cpp takes for granted here: {', '.join(lacking)}")
    elif lacking and called:
        del found.metadata["general.name"]


def _pooling(found: GGUFModel, folder: Path) -> None:
    """Add how sentence-transformers makes one vector of a text's, where the folder says so."""
    limits = []
    said = TokenizerFiles(folder).json("1_Pooling/config.json")
    named = said.get("pooling_mode")
    kinds = [key.removeprefix("pooling_mode_") for key in said if key.startswith("pooling_mode_") and said[key] is True]
    kinds += [named] if isinstance(named, str) else map(str, listed(named))
    if len(kinds) == 1 and kinds[0] in _POOLING:
        found.metadata[f"{found.architecture}.pooling_type"] = Typed("u32", _POOLING[kinds[0]])
    elif kinds:
        limits.append(f"its vectors are pooled by {' and '.join(kinds)[:60]}, which tlkit does not do")
    if (folder / "2_Dense").is_dir():
        limits.append("a dense layer follows its pooling (2_Dense), which tlkit does not compute")
    found.limits += limits
    found.doubts += limits
