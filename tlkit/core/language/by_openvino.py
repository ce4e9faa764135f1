"""Runs a decoder on OpenVINO: one graph for any number of tokens, weights in the file's blocks, without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tlkit.engines.openvino
import tlkit.formats.gguf
import tlkit.frontends.gguf
from tlkit.core.language.runner import check_room, parts
from tlkit.engines.onnx.keep import Keep, keep_of_files, lowering
from tlkit.engines.openvino.growing import GrowingSession
from tlkit.frontends.gguf.decoder import Form

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlkit.core.language.model import LanguageModel

_MAKERS = tuple(
    Path(str(module.__file__)).parent for module in (tlkit.engines.openvino, tlkit.frontends.gguf, tlkit.formats.gguf)
)
"""Where the modules lie that make the graph."""
_CHUNK = 512
"""Tokens of one call: more make masks and intermediate values large."""


class OpenVINORunner:
    """Keys and values stay in OpenVINO; the tokens' vectors are read from the model's file."""

    exact = True

    def __init__(self, model: LanguageModel, context: int, *, cache: bool = True) -> None:
        """``cache`` keeps what is compiled in tlkit's cache folder."""
        self.name = f"OpenVINO {version('openvino')}"
        self.context, self.position = context, 0
        self._table = model.source.tensor("token_embd.weight")
        form = Form(1, context, 0, "last", "growing", compressed=True, nested=True)
        keep = keep_of_files(model.files, context, lowering(*_MAKERS)) if cache else Keep(None)
        self._session = GrowingSession(lambda: model.function(form), keep)

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits of what follows."""
        for part in parts(tokens, self.position, self.context):
            found = self._run(part, [len(part) - 1])
        logits: NDArray[np.float32] = found[0]
        return logits

    def scores(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits of what follows each."""
        check_room(tokens, self.position, self.context)
        parts = [tokens[start : start + _CHUNK] for start in range(0, len(tokens), _CHUNK)]
        return np.concatenate([self._run(part, range(len(part))) for part in parts])

    def rewind(self, position: int) -> None:
        """Forget what was fed after ``position`` tokens."""
        if position < self.position:
            self.position = position
            self._session.keep(position)

    def _run(self, tokens: Sequence[int], last: Sequence[int]) -> NDArray[np.float32]:
        end = self.position + len(tokens)
        given: dict[str, Any] = {"vectors": self._table.rows(tokens)}
        given["positions"] = np.arange(self.position, end, dtype=np.int32)
        given["places"] = np.arange(end, dtype=np.int32)
        given["last"] = np.array(last, np.int32)
        found = self._session.run(given)
        self.position = end
        return found
