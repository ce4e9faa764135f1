"""Runs a decoder on OpenVINO: one graph for any number of tokens, weights in the file's blocks, without PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from platform import machine
from typing import TYPE_CHECKING, Any

import numpy as np

import tlkit.engines.openvino
import tlkit.formats.gguf
import tlkit.frontends.gguf
from tlkit.core.language.runner import check_next
from tlkit.engines.onnx.keep import Keep, keep_of_files, lowering
from tlkit.engines.openvino.growing import GrowingSession
from tlkit.frontends.gguf.decoder import Form
from tlkit.mil.program import Function
from tlkit.mil.types import DType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlkit.core.language.model import LanguageModel
    from tlkit.frontends.gguf.kit.source import LanguageSource

_MAKERS = tuple(
    Path(str(module.__file__)).parent for module in (tlkit.engines.openvino, tlkit.frontends.gguf, tlkit.formats.gguf)
)
"""Where the modules lie that make the graph."""
_CHUNK = 104
"""Tokens of one call: more make masks and intermediate values large, and are no faster."""
_FEW, _MANY = 4, 81
"""Tokens of a call for few, which take little more time than one (its kernels take four rows at once), and the fewest
for many."""
_LARGE = 1 << 22
"""oneDNN packs matrices of fewer weights in another way for 7 to 80 tokens than for fewer or more (2025 and 2026; its
``jit_brgemm_inner_product_utils.cpp``)."""
_PADDED = 24
"""Tokens up to which it takes less time to go on by fours than to compute 81."""
_HIDDEN = 1 << 30
"""A place that no token sees."""


class OpenVINORunner:
    """Keys and values stay in the session; the tokens' vectors are read from the model's file.

    Small matrices would be packed twice if there were calls of 7 to 80 tokens, so such prompts are cut or padded.
    A few tokens attend to the cache inside, more of them to rows that are handed in: OpenVINO's attention with a cache
    of its own is made for single tokens, and takes three times as long for a prompt's.
    """

    exact = True

    def __init__(
        self,
        model: LanguageModel,
        context: int,
        table: int | None = None,
        *,
        cache: bool = True,
        stored: DType = DType.FP32,
    ) -> None:
        """``table`` is the context that positions are turned for, and at least ``context``; ``cache`` keeps what is
        compiled in tlkit's cache folder; keys and values are rounded to ``stored``."""
        self.name = f"OpenVINO {version('openvino')}"
        self.context, self.position = context, 0
        self._table = model.source.tensor("token_embd.weight")
        self._once = packs_twice(model.source)
        wide = table or context
        form = Form(1, wide, 0, "last", "growing", stored=stored, compressed=True, nested=True)
        keep = keep_of_files(model.files, wide, lowering(*_MAKERS)) if cache else Keep(None)

        def function() -> Function:
            model.making()  # a damaged vocabulary is told before anything is compiled
            return model.function(form)

        self._session = GrowingSession(function, keep)

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits of what follows."""
        *parts, end = self._parts(tokens)
        for part in parts:
            self._run(part, [])
        found = self._run(end, [len(end) - 1])
        logits: NDArray[np.float32] = found[0]
        return logits

    def scores(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits of what follows each."""
        return np.concatenate([self._run(part, range(len(part))) for part in self._parts(tokens)])

    def rewind(self, position: int) -> None:
        """Forget what was fed after ``position`` tokens."""
        if position < self.position:
            self.position = position
            self._session.keep(position)

    def _parts(self, tokens: Sequence[int]) -> list[Sequence[int]]:
        check_next(tokens, self.position, self.context)
        few = self._once and len(tokens) <= _PADDED
        count = -(-len(tokens) // (_FEW if few else _CHUNK))
        ends = [len(tokens) * part // count for part in range(count + 1)]
        return [tokens[start:end] for start, end in pairwise(ends)]

    def _run(self, tokens: Sequence[int], last: Sequence[int]) -> NDArray[np.float32]:
        count, begin = len(tokens), self.position
        inside = count <= _FEW
        padding = max(_MANY - count, 0) if self._once and not inside else 0
        vectors, positions = self._table.rows(tokens), np.arange(begin + count, dtype=np.int32)
        if padding:
            vectors = np.concatenate([vectors, np.repeat(vectors[-1:], padding, 0)])
        rows, none = np.arange(count + padding, dtype=np.int32), np.empty(0, np.int32)
        places = np.concatenate([positions, np.full(padding, _HIDDEN, np.int32)])
        # OpenVINO's attention with a cache wants as many queries as there are keys.
        told = range(count) if inside else last
        given: dict[str, Any] = {"vectors": vectors, "last": np.array(told, np.int32)}
        given["wanted"] = np.array(last if inside else range(len(last)), np.int32)
        given["positions"] = np.concatenate([positions[begin:], np.zeros(padding, np.int32)])
        parts = {"": rows, "_last": np.arange(len(told), dtype=np.int32), "_places": places}
        for way, taken in (("few", inside), ("many", not inside)):
            given.update((way + part, values if taken else none) for part, values in parts.items())
        found = self._session.run(given, count, inside=inside)
        self.position = begin + count
        return found


def packs_twice(source: LanguageSource) -> bool:
    """Whether so much of a model is in small matrices that it pays to have them packed in one way only."""
    if machine().lower() not in ("x86_64", "amd64"):
        return False
    tensors = [tensor for name, tensor in source.tensors.items() if name.startswith("blk.") and len(tensor.shape) > 1]
    small = sum(tensor.stored for tensor in tensors if math.prod(tensor.shape[-2:]) < _LARGE)
    return 8 * small > source.stored
