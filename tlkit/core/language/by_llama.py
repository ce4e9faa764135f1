"""Runs a GGUF file on llama.cpp, through llama-cpp-python where the user has installed it.

llama.cpp rounds activations to 8 bits in its products, and keys and values to f16: its logits are near to those of the
file's weights, and where two tokens are nearly tied it may choose the other one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np

from tlkit.core.language.runner import check_room, parts
from tlkit.errors import ExecutionError, LoadError
from tlkit.host.machine import available_cpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 512
_ERROR = 3  # llama.cpp's level of errors
_said: list[str] = []


def _listen(level: int, text: bytes, _: Any) -> None:
    if level == _ERROR:
        _said.append(text.decode("utf-8", "replace").strip())


_listener: Any = llama_cpp.llama_log_callback(_listen)


class LlamaRunner:
    """The model's tokens come from tlkit's tokenizer; llama.cpp holds weights (mapped), keys and values."""

    exact = False

    def __init__(self, file: Path, context: int, vocabulary: int) -> None:
        """Load ``file``; LoadError where llama.cpp does not."""
        self.name = f"llama.cpp (llama-cpp-python {version('llama-cpp-python')}), activations rounded to 8 bits"
        self.context, self.position, self._vocabulary = context, 0, vocabulary
        self._model = self._context = None
        llama_cpp.llama_log_set(_listener, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        _said.clear()
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise LoadError(f"{file}: llama.cpp does not load it{_reason()}", "leave --engine llama.cpp out")
        if llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model)) != vocabulary:
            raise LoadError(f"{file}: llama.cpp counts other tokens in it", "leave --engine llama.cpp out")
        wanted = llama_cpp.llama_context_default_params()
        wanted.n_ctx, wanted.n_batch, wanted.n_ubatch = context, _CHUNK, _CHUNK
        wanted.n_threads = wanted.n_threads_batch = available_cpus()
        self._context = llama_cpp.llama_init_from_model(self._model, wanted)
        if not self._context:
            raise LoadError(f"{file}: llama.cpp has no room for it{_reason()}", "choose a smaller --context")
        self._batch = llama_cpp.llama_batch_init(_CHUNK, 0, 1)

    def __del__(self) -> None:
        if self._context:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._context)
        if self._model:
            llama_cpp.llama_model_free(self._model)

    def feed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits of what follows."""
        for part in parts(tokens, self.position, self.context):
            self._run(part, {len(part) - 1})
        return self._logits(-1)

    def scores(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add tokens; return the logits of what follows each."""
        check_room(tokens, self.position, self.context)
        found = []
        for start in range(0, len(tokens), _CHUNK):
            part = tokens[start : start + _CHUNK]
            self._run(part, set(range(len(part))))
            found += [self._logits(place) for place in range(len(part))]
        return np.stack(found)

    def rewind(self, position: int) -> None:
        """Forget what was fed after ``position`` tokens."""
        if position < self.position:
            self.position = position
            llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self._context), -1, position, -1)

    def _run(self, tokens: Sequence[int], told: set[int]) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, self.position + place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = place in told
        _said.clear()
        if llama_cpp.llama_decode(self._context, batch):
            raise ExecutionError(f"llama.cpp stopped{_reason()}", "leave --engine llama.cpp out")
        self.position += len(tokens)

    def _logits(self, place: int) -> NDArray[np.float32]:
        found = llama_cpp.llama_get_logits_ith(self._context, place)
        return np.array(np.ctypeslib.as_array(found, (self._vocabulary,)), np.float32)


def _reason() -> str:
    """Return the first error that llama.cpp has told, after a colon."""
    return f": {_said[0][:200]}" if _said else ""
