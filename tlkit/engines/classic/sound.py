"""Core ML's ``soundAnalysisPreprocessing`` of kind vggish: a second of sound to log-mel features.

The front end of VGGish as published (Hershey et al., "CNN architectures for large-scale audio classification", 2017):
15,600 samples at 16 kHz, 96 frames of 400 samples every 160, a periodic Hann window, the magnitude of an FFT of 512,
64 mel bands (HTK's formula) from 125 to 7,500 Hz, and ln(x + 0.01).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tlkit.engines.classic.values import Features, Matrix, Rows, each, only_input, only_output, vector
from tlkit.errors import ExecutionError, LoadError
from tlkit.types import TensorSpec

RATE, SAMPLES, FRAMES, BANDS = 16_000, 15_600, 96, 64
_FRAME, _HOP, _FFT = 400, 160, 512
_LOWEST, _HIGHEST, _OFFSET = 125.0, 7500.0, 0.01


def preprocessing(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return what a ``soundAnalysisPreprocessing`` computes: samples [15600] to features [1, 96, 64]."""
    which = model.soundAnalysisPreprocessing.WhichOneof("SoundAnalysisPreprocessingType")
    if which != "vggish":
        raise LoadError(f"sound preprocessing of an unknown kind ({which})", "only vggish runs")
    source, name = only_input(model), only_output(model)
    spec = outputs.get(name)

    def step(features: Features) -> dict[str, Any]:
        samples = vector(features, [source])
        if len(samples) != SAMPLES:
            raise ExecutionError(f"the input '{source}' has {len(samples)} samples, not {SAMPLES}", "cut or fill it up")
        return {name: log_mel(samples).astype(spec.dtype if spec and spec.dtype else "float32")}

    return each(step)


def log_mel(samples: Matrix) -> Matrix:
    """Return the features [1, 96, 64] of ``samples`` [15600], -1 to 1."""
    # Periodic: over 400, not 399.
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)
    frames = np.stack([samples[begin : begin + _FRAME] for begin in range(0, FRAMES * _HOP, _HOP)])
    magnitudes = np.abs(np.fft.rfft(frames * window, _FFT))
    found: Matrix = np.log(magnitudes @ _bands() + _OFFSET)[None]
    return found


def _bands() -> Matrix:
    """Return the triangular bands [257, 64]; the constant part has no weight."""
    frequencies = _mel(np.linspace(0, RATE / 2, _FFT // 2 + 1))[:, None]
    edges = np.linspace(_mel(np.array(_LOWEST)), _mel(np.array(_HIGHEST)), BANDS + 2)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    found = np.maximum(0, np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle)))
    found[0] = 0
    return np.asarray(found, np.float64)


def _mel(hertz: Matrix) -> Matrix:
    return 1127 * np.log1p(hertz / 700)  # HTK's 2595 * log10(1 + hertz / 700)
