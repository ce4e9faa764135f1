"""Language models in stateful Core ML packages, run again from there.

Beside the model's files lie ``tokenizer.json`` and ``tokenizer_config.json``, as transformers and swift-transformers
read them, and ``language.json``: what tlkit needs to know.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tlkit.core.language.built import built_model
from tlkit.core.language.model import settled
from tlkit.core.language.runner import Runner
from tlkit.core.language.text.tokenizer import TextTokenizer, beside, from_description
from tlkit.errors import LoadError, UnavailableError, UsageError
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.package import Package
from tlkit.formats.files.mapped import read_json
from tlkit.mil.program import Function
from tlkit.mil.types import DType
from tlkit.types import Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

DESCRIPTION = "language.json"
_LARGEST = 1 << 27


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A language model in a package; it answers as :class:`~tlkit.core.language.model.LanguageModel` does."""

    path: Path
    package: Package
    said: Mapping[str, Any]
    making: Callable[[], TextTokenizer]
    metadata: Mapping[str, Any]

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer; LoadError where its file is damaged."""
        return self.making()

    @property
    def encodes(self) -> bool:
        """Whether it is an encoder, which gives vectors and generates nothing."""
        return "pooling" in self.said

    @property
    def pooling(self) -> int:
        """How an encoder makes one vector of a text's: 2 takes the first, 3 the last, any other the mean."""
        return int(self.said.get("pooling", 0))

    def encode(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Return an encoder's vector for each token, [tokens, width]."""
        from tlkit.engines.torch.engine import TorchEngine  # late: what is heavy, where it is used

        assert self.package.program is not None  # as open_language_package made sure
        engine = TorchEngine(self.package.program.function("main"), precision="f16")
        padded = np.zeros((1, self.context_length), np.int32)
        padded[0, : len(tokens)] = tokens
        found: NDArray[np.float32] = engine.run({"tokens": padded, "count": np.array([len(tokens)], np.int32)})[
            "vectors"
        ]
        return found[: len(tokens)]

    @property
    def only_best(self) -> bool:
        """Whether it answers with the likeliest token and no logits."""
        return self.said.get("returns") == "argmax"

    @property
    def context_length(self) -> int:
        """Return how many tokens its states hold."""
        return int(self.said["context"])

    def runner(
        self, context: int | None = None, engine: str = "auto", *, cache: bool = True, unit: Unit = Unit.CPU
    ) -> Runner:
        """Return what runs it; UsageError for more tokens than its states hold.

        ``engine`` is ``torch``, ``openvino``, or ``auto``: PyTorch on a GPU, else OpenVINO where it is installed, and
        where the package's functions are those that tlkit builds, in f32 (states are f16 all the same). ``cache`` keeps
        what it compiles.
        """
        if engine == "llama.cpp":
            said = f"--engine llama.cpp: it runs GGUF files, and {self.path} is a package"
            raise UsageError(said, "leave --engine out, or run the GGUF file that it was made from")
        if context is not None and not 0 < context <= self.context_length:
            said = f"--context {context}: the package was made for {self.context_length} tokens"
            raise UsageError(said, "convert its source again with a larger --context")
        room = context or self.context_length
        functions = _PackagedFunctions(self.package, self.said, room)
        unit = settled(unit, engine)
        if engine == "openvino" or (engine == "auto" and unit is Unit.CPU and find_spec("openvino") is not None):
            try:
                return self._by_openvino(room, functions.by_name, cache)
            except UnavailableError:
                if engine == "openvino":
                    raise
        from tlkit.core.language.by_torch import TorchRunner  # late: what is heavy, where it is used

        return TorchRunner(functions, unit)

    def _by_openvino(self, room: int, sizes: Mapping[str, int], cache: bool) -> Runner:
        """Return OpenVINO's runner of the model that the package is; UnavailableError where that is not certain."""
        if find_spec("openvino") is None:
            said = "openvino not installed: needed for --engine openvino"
            raise UnavailableError(said, "pip install 'tlkit[openvino]'")
        model, why = built_model(self.path, self.package, self.said, sizes, self.making)
        if model is None:
            raise UnavailableError(f"{self.path}: OpenVINO runs what tlkit builds, and {why}", "use --engine torch")
        from tlkit.core.language.by_openvino import OpenVINORunner  # an extra

        return OpenVINORunner(model, room, self.context_length, cache=cache, stored=DType.FP16)


class _PackagedFunctions:
    """The functions of a package, which round what they declare as f16."""

    def __init__(self, package: Package, said: Mapping[str, Any], context: int) -> None:
        self._package, self.context, self._rows = package, context, int(said["context"])
        names = package.program.functions if package.program is not None else {}
        sizes = {int(name[8:]): name for name in names if name.startswith("prefill_") and name[8:].isdecimal()}
        sizes |= {int(said["prefill"]): "prefill"} if "prefill" in names else {}
        self._names = {1: "main", **{size: sizes[size] for size in sorted(sizes)}}
        self.sizes: Sequence[int] = tuple(self._names)
        self.by_name = {name: size for size, name in self._names.items()}
        self.precision, self.tells_all = "f16", False

    def rows(self, needed: int) -> int:
        """Return all rows: functions are what they are."""
        return self._rows

    def function(self, size: int, rows: int, logits: Literal["last", "all"]) -> Function:
        """Return ``main`` for one token, or what takes a chunk."""
        assert self._package.program is not None  # as open_language_package made sure
        return self._package.program.function(self._names[size])


def open_language_package(path: str | os.PathLike[str]) -> PackagedModel:
    """Open a package that :func:`convert_language` wrote; UsageError where it is another one."""
    package = open_package(Path(path))
    folder = package.file.parent
    if package.program is None or not (folder / DESCRIPTION).is_file():
        said = f"{path}: not a language model's package: it has no tokenizer beside its weights"
        raise UsageError(said, "make one: tlkit convert model.gguf -o model.mlpackage")
    package.require_weights()
    said_here = read_json(folder / DESCRIPTION, _LARGEST)
    if not isinstance(said_here, dict) or not _sound(said_here):
        raise LoadError(f"{folder / DESCRIPTION}: it does not describe a language model", "convert it again")
    metadata: dict[str, Any] = {"tokenizer.chat_template": said_here.get("chat_template")}
    tokens: list[str] = []
    for role, item in said_here.get("specials", {}).items():
        metadata[f"tokenizer.ggml.{role}_token_id"] = len(tokens)
        tokens.append(str(item["token"]))
    metadata["tokenizer.ggml.tokens"] = tokens
    making = beside(lambda: from_description(folder / "tokenizer.json", said_here))
    return PackagedModel(Path(path), package, said_here, making, metadata)


def _sound(said: Mapping[str, Any]) -> bool:
    """Whether a description has what is needed, in the types that it is needed in."""
    counts = all(type(said.get(name)) is int and 0 < said[name] < 1 << 24 for name in ("context", "prefill"))
    lists = all(
        isinstance(said.get(name), list) and all(type(item) is int for item in said[name])
        for name in ("before", "after", "ends")
    )
    specials = said.get("specials")
    return (
        counts
        and type(said.get("pooling", 0)) is int
        and lists
        and isinstance(specials, dict)
        and all(isinstance(item, dict) and isinstance(item.get("token"), str) for item in specials.values())
    )
