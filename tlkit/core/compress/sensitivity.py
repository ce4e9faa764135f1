"""What storing one weight otherwise does to the outputs: a model in which weights are swapped, run on samples.

Importing this module imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tlkit.core.compress.variants import Variant, WeightPlace
from tlkit.core.model.load import load_model
from tlkit.engines.torch.engine import TorchEngine
from tlkit.errors import UsageError

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Outputs = list[torch.Tensor]


@dataclass(frozen=True, slots=True)
class Truth:
    """What each input is, by the number of its class, and a row of scores by which their output is known."""

    classes: tuple[int, ...]
    scores: Array

    def right(self, place: int, outputs: Outputs, output: int) -> float:
        """Return 1 where the class of the input at ``place`` is the likeliest of its outputs, else 0."""
        return float(int(outputs[output].reshape(-1).argmax()) == self.classes[place])

    def output(self, first: Outputs) -> int:
        """Return which of the first input's outputs has the scores; UsageError where none has."""
        wanted = torch.from_numpy(np.asarray(self.scores, np.float64))
        apart = [
            float((item.reshape(-1) - wanted).square().sum()) if item.numel() == wanted.numel() else math.inf
            for item in first
        ]
        if not apart or not math.isfinite(min(apart)):
            raise UsageError("--labels: no output of the program has the scores", "judge it by --min-snr")
        return apart.index(min(apart))


@dataclass(frozen=True, slots=True)
class Apart:
    """How far the outputs are from the original's: ``error`` is the mean over samples and outputs of noise over
    signal, ``snr`` the worst signal to noise in dB of any, ``top1`` the share of rows whose likeliest class is the
    original's (None: no output is a row of scores), or, where the truth is known, the share that is right."""

    error: float
    snr: float
    top1: float | None


class Swappable:
    """The function of ``base`` in f32, whose weights at ``at`` can be those of ``variants``, on ``inputs``.

    ``calls`` run it on each of them; ``runs`` counts those that :meth:`whole` made.
    """

    def __init__(
        self,
        base: Variant,
        variants: Mapping[str, Variant],
        at: Mapping[str, WeightPlace],
        inputs: Sequence[Arrays],
        truth: Truth | None = None,
    ) -> None:
        self.base, self.variants, self.at = base, variants, at
        self.runs = 0
        self._engine = TorchEngine(base.function, precision="f32")
        self._buffers = dict(self._targets())
        self.calls = [self._engine.bind(arrays) for arrays in inputs]
        self._kept: dict[tuple[str, str], torch.Tensor] = {}
        self._exact = [_floats(call()) for call in self.calls]
        if not self._exact or not self._exact[0]:
            raise UsageError("no output is made of floating-point numbers", "--compress auto judges by those")
        if not all(bool(torch.isfinite(item).all()) for outputs in self._exact for item in outputs):
            raise UsageError("the original's outputs are not finite", "tlkit compare --find-nan says where")
        self.truth = truth
        self._scores = 0 if truth is None else truth.output(self._exact[0])

    def _targets(self) -> Iterator[tuple[str, str]]:
        """Yield each weight with the buffer that holds it."""
        nodes = {node.meta["mil"].name: node for node in self._engine.module.graph.nodes if "mil" in node.meta}
        for name, place in self.at.items():
            node = nodes.get(place.operation)
            given = None if node is None else node.kwargs.get(place.parameter)
            if isinstance(given, torch.fx.Node) and given.op == "get_attr":
                yield name, str(given.target)

    @property
    def weights(self) -> tuple[str, ...]:
        """The weights that can be swapped."""
        return tuple(self._buffers)

    def whole(self, choices: Mapping[str, str], samples: slice = slice(None)) -> Apart:
        """Return how far the outputs of ``samples`` are with weights stored as ``choices``, the others as they are."""
        found = []
        with self._swapped(choices):
            for place in range(len(self.calls))[samples]:
                outputs = _floats(self.calls[place]())
                found.append(_judged(_apart(self._exact[place], outputs), self.truth, place, outputs, self._scores))
                self.runs += 1
        return _together(found)

    @contextmanager
    def _swapped(self, choices: Mapping[str, str]) -> Iterator[None]:
        module, before = self._engine.module, {}
        try:
            for weight, choice in choices.items():
                if choice in self.variants and weight in self._buffers:
                    target = self._buffers[weight]
                    before[target] = getattr(module, target)
                    setattr(module, target, self._tensor(weight, choice, before[target]))
            yield
        finally:
            for target, tensor in before.items():
                setattr(module, target, tensor)

    def _tensor(self, weight: str, choice: str, like: torch.Tensor) -> torch.Tensor:
        made = self.variants[choice].tensor(self.at[weight]).to(like.dtype)
        if like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
            made = made.contiguous(memory_format=torch.channels_last)
        return made


def _judged(found: Apart, truth: Truth | None, place: int, outputs: Outputs, output: int) -> Apart:
    return found if truth is None else replace(found, top1=truth.right(place, outputs, output))


def package_apart(
    original: Path, made: Path, inputs: Sequence[Arrays], truth: Truth | None = None, first: int = 0
) -> Apart:
    """Return how far the outputs of a package are from those of another on ``inputs``, both as they are in f16.

    ``first`` is the place of the first of them among those whose ``truth`` is known.
    """
    engines = [load_model(path, engine="eager").engine for path in (original, made)]
    found, output = [], -1
    for place, arrays in enumerate(inputs, first):
        exact, outputs = (_floats(engine.bind(arrays)()) for engine in engines)
        if truth is not None and output < 0:
            output = next(at for at, item in enumerate(exact) if item.numel() == truth.scores.size)
        found.append(_judged(_apart(exact, outputs), truth, place, outputs, output))
    return _together(found)


def _together(found: Sequence[Apart]) -> Apart:
    shares = [item.top1 for item in found if item.top1 is not None]
    error = math.fsum(item.error for item in found) / len(found)
    return Apart(error, min(item.snr for item in found), sum(shares) / len(shares) if shares else None)


def _floats(outputs: Sequence[Any]) -> Outputs:
    return [item.double() for item in outputs if isinstance(item, torch.Tensor) and item.is_floating_point()]


def _apart(exact: Outputs, found: Outputs) -> Apart:
    errors, shares = [], []
    for one, other in zip(exact, found, strict=True):
        noise, signal = float((other - one).square().sum()), float(one.square().sum())
        if not math.isfinite(noise):
            return Apart(math.inf, -math.inf, 0.0)
        errors.append(noise / signal if signal else (0.0 if not noise else math.inf))
        if one.ndim and one.shape[-1] > 1:
            shares.append(float((one.argmax(-1) == other.argmax(-1)).double().mean()))
    worst = max(errors)
    return Apart(
        sum(errors) / len(errors),
        -10 * math.log10(worst) if worst else math.inf,
        min(shares) if shares else None,
    )
