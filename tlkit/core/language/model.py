"""``open_language``: a language model of a GGUF file or a Hugging Face folder, ready to be fed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.core.language.runner import Runner
from tlkit.core.language.text.tokenizer import TextTokenizer, beside, from_folder, from_metadata
from tlkit.errors import LoadError, UnavailableError, UsageError
from tlkit.formats.base.sniff import COREML, Format
from tlkit.formats.describe import find_format, open_tensors
from tlkit.formats.gguf.read import GGUFFile
from tlkit.frontends.gguf.decoder import Form, decoder
from tlkit.frontends.gguf.encoder import encoder
from tlkit.frontends.gguf.families import family_of
from tlkit.frontends.gguf.kit.family import Family
from tlkit.frontends.gguf.kit.hyperparameters import Hyperparameters, read_hyperparameters
from tlkit.frontends.gguf.kit.source import LanguageSource, folder_source, gguf_source
from tlkit.mil.program import Function
from tlkit.types import Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTEXT = 4096
"""Tokens of the context where nothing is said, if the model has as many."""


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """An opened model. ``making`` returns its tokenizer, which may still be made (:func:`beside`)."""

    path: Path
    source: LanguageSource
    sizes: Hyperparameters
    family: Family
    making: Callable[[], TextTokenizer]

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer; LoadError where the vocabulary is damaged."""
        return self.making()

    @property
    def metadata(self) -> Mapping[str, Any]:
        """GGUF's metadata, or what the folder says in its words."""
        return self.source.metadata

    def function(self, form: Form) -> Function:
        """Return one of the model's functions."""
        make = encoder if self.encodes else decoder
        return make(self.source, self.sizes, self.family, form)

    def encode(self, tokens: Sequence[int], form: Form | None = None) -> NDArray[np.float32]:
        """Return an encoder's vector for each token, [tokens, width]; weights as ``form`` has them."""
        from tlkit.engines.torch.engine import TorchEngine  # late: decoders may do without PyTorch

        count = len(tokens)
        function = self.function(replace(form or Form(1, 1, 1), tokens=count, context=count, rows=count))
        engine = TorchEngine(function, precision="f32")
        found: NDArray[np.float32] = engine.run({"tokens": np.array([tokens], np.int32)})["vectors"]
        return found

    @property
    def pooling(self) -> int:
        """How an encoder makes one vector of a text's: 2 takes the first, 3 the last, any other the mean."""
        return self.sizes.pooling

    @property
    def context_length(self) -> int:
        """How many tokens the model was made for."""
        return self.sizes.context

    @property
    def only_best(self) -> bool:
        """Whether it answers with the likeliest token and no logits: only packages may."""
        return False

    @property
    def encodes(self) -> bool:
        """Whether it is an encoder, which gives vectors and generates nothing."""
        return self.family.reads == "all"

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the weights and hyperparameters come from."""
        named = {Path(entry.file) for tensor in self.source.tensors.values() for entry in tensor.entries if entry.file}
        config = (self.path if self.path.is_dir() else self.path.parent) / "config.json"
        return tuple(sorted({self.path, *named, *self.source.files, *([config] if config.is_file() else [])}))

    def runner(
        self, context: int | None = None, engine: str = "auto", *, cache: bool = True, unit: Unit = Unit.CPU
    ) -> Runner:
        """Return what runs it, with room for ``context`` tokens (by default 4,096, or as many as the model has).

        ``engine`` is ``openvino``, ``torch``, ``llama.cpp`` (of GGUF files),
        or ``auto``: PyTorch on a GPU, else OpenVINO where it is installed and takes the model. ``cache`` keeps what
        OpenVINO compiles in tlkit's cache folder.
        """
        room = context_of(self.sizes, context)
        unit = settled(unit, engine)
        if engine == "llama.cpp":
            return self._by_llama(room)
        if engine == "openvino" or (engine == "auto" and unit is Unit.CPU and find_spec("openvino") is not None):
            if find_spec("openvino") is None:
                said = "openvino not installed: needed for --engine openvino"
                raise UnavailableError(said, "pip install 'tlkit[openvino]'")
            from tlkit.core.language.by_openvino import OpenVINORunner  # an extra

            try:
                # What is compiled serves every context up to the usual one.
                return OpenVINORunner(self, room, max(room, context_of(self.sizes, None)), cache=cache)
            except UnavailableError:
                if engine == "openvino":
                    raise
        from tlkit.core.language.by_torch import BuiltFunctions, TorchRunner  # late: what is heavy, where it is used

        return TorchRunner(BuiltFunctions(self.function, room), unit)

    def _by_llama(self, room: int) -> Runner:
        """Return llama.cpp's runner, which is given no file whose vocabulary is damaged."""
        if "general.architecture" not in self.metadata or find_format(self.path) is not Format.GGUF:
            said = f"--engine llama.cpp: it runs GGUF files, and {self.path} is none"
            raise UsageError(said, f"make one: tlkit convert {self.path.name} -o {self.path.stem}.gguf")
        if find_spec("llama_cpp") is None:
            said = "llama-cpp-python not installed: needed for --engine llama.cpp"
            raise UnavailableError(said, "pip install 'tlkit[llama]'")
        from tlkit.core.language.by_llama import LlamaRunner  # an extra

        self.making()
        rows = self.source.tensor("token_embd.weight").shape[0]
        return LlamaRunner(self.path, room, rows)


def settled(unit: Unit, engine: str) -> Unit:
    """Return the unit that ``unit`` means here: ALL is the GPU where CUDA has one. UnavailableError where it is not
    here, UsageError where ``engine`` does not run on it."""
    if unit is Unit.CPU:
        return unit
    from tlkit.engines.torch.device import device_for  # late: it imports PyTorch

    kind = device_for(unit).type
    if kind != "cuda":
        if unit is Unit.ALL:
            return Unit.CPU
        raise UnavailableError("language models run on the CPU and on CUDA GPUs, not on this one", "use --units cpu")
    if engine in ("openvino", "llama.cpp"):
        raise UsageError(f"--engine {engine} runs language models on the CPU", "leave out --units or --engine")
    return Unit.GPU


def open_language(path: str | os.PathLike[str]) -> LanguageModel:
    """Open the language model at ``path``; LoadError where it is none, is damaged, or of an unknown architecture.

    Its tokenizer is made meanwhile: asking for that is a LoadError where the vocabulary is damaged."""
    place = Path(path)
    if find_format(place) in COREML:
        raise UsageError(f"{place}: it is a package already", "give a GGUF file or a Hugging Face folder")
    file = open_tensors(place)
    source = gguf_source(file) if isinstance(file, GGUFFile) else folder_source(file)
    name = source.metadata.get("general.architecture")
    family = family_of(name if isinstance(name, str) else "", str(place))
    try:
        sizes = read_hyperparameters(source.metadata)
        family.check(source.metadata)
    except LoadError as error:
        raise LoadError(f"{place}: {error.message}", error.hint) from None
    if not source.tensors:
        raise LoadError(f"{place}: it has a vocabulary and no weights", "get the whole model")

    def tokenizer() -> TextTokenizer:
        if not isinstance(file, GGUFFile):
            return from_folder(place if place.is_dir() else place.parent, source.metadata)
        made = from_metadata(source.metadata, str(place))
        file.release_all()  # a vocabulary has been read whole, and is looked into here and there from now on
        return made

    if isinstance(file, GGUFFile):
        rows = source.tensor("token_embd.weight", (-1, sizes.width)).shape[0]
        if rows < sizes.vocabulary:
            said = f"{place}: {sizes.vocabulary} tokens, of which {rows} have a vector in token_embd.weight"
            raise LoadError(said, "the file is damaged: get it again")
    return LanguageModel(place, source, sizes, family, beside(tokenizer))


def context_of(sizes: Hyperparameters, wanted: int | None) -> int:
    """Return the tokens of the context; UsageError where more are wanted than the model was made for."""
    if wanted is None:
        # Beyond the trained context LongRoPE rotates otherwise from the first token on: only where that is asked for.
        return min(CONTEXT, sizes.context, sizes.scaling.original or sizes.context)
    if not 0 < wanted <= sizes.context:
        said = f"--context {wanted}: the model was made for 1 to {sizes.context} tokens"
        raise UsageError(said, f"choose at most {sizes.context}")
    return wanted
