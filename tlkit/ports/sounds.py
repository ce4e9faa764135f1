"""Sound files as inputs that take samples: WAV, FLAC, Ogg, MP3 and what else libsndfile reads (the extra ``audio``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.errors import LoadError, UnavailableError, UsageError, reason
from tlkit.ports.shapes import allows, shapes_text
from tlkit.types import TensorSpec

Array = np.ndarray[Any, Any]
_MOST = 1 << 27
"""Samples of all channels that a sound may have: 46 minutes at 48 kHz, 512 MiB."""
_HEADS = (b"fLaC", b"OggS", b"ID3", b".snd", b"caff", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")


@dataclass(frozen=True, slots=True)
class Sound:
    """Samples [frames, channels] in f32, within -1..1, and their number a second; ``said`` is what was done to them."""

    path: Path
    samples: Array
    rate: int
    said: str


def is_sound(path: Path) -> bool:
    """Whether a file begins as sounds do."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    boxed = (head[:4], head[8:]) in ((b"RIFF", b"WAVE"), (b"FORM", b"AIFF"), (b"FORM", b"AIFC"))
    return boxed or head.startswith(_HEADS)


def read_sound(path: Path, rate: int | None = None) -> Sound:
    """Return a file's samples, resampled to ``rate`` a second where that is given (by soxr, in its best quality but
    one).

    Raises LoadError for what is no sound or cut short, UsageError for one that is too long, UnavailableError without
    soundfile.
    """
    try:
        import soundfile  # an extra, and few inputs are sounds
        import soxr  # the same
    except (ImportError, OSError):  # OSError: soundfile without its libsndfile
        said = f"{path}: reading sounds needs soundfile and soxr"
        raise UnavailableError(said, "pip install 'tlkit[audio]'") from None
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames * file.channels > _MOST:
                raise UsageError(f"{path}: {file.frames / file.samplerate:.0f} s of sound are too many", "cut it")
            samples, own = file.read(dtype="float32", always_2d=True), int(file.samplerate)
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        raise LoadError(f"{path}: not a sound that can be read: {reason(error)}", "save it as WAV or FLAC") from None
    if not len(samples):
        raise LoadError(f"{path}: a sound without a sample", "record it again")
    if rate is None or rate == own:
        return Sound(path, samples, own, f"{own} samples a second, as they are (FILE:16000 resamples to 16000)")
    if rate < 1 or len(samples) * samples.shape[1] * rate // own > _MOST:
        raise UsageError(f"{path}:{rate}: not a rate for it", "write samples a second: clip.wav:16000")
    made = np.asarray(soxr.resample(samples, own, rate), np.float32)
    return Sound(path, made, rate, f"resampled from {own} to {rate} samples a second")


def to_array(spec: TensorSpec, sound: Sound, note: Callable[[str], None] | None = None) -> Array:
    """Return a sound in the shape of the port ``spec``, f32.

    The port's axis that varies, or its longest, is time. The others have to hold the sound's channels, or are all 1:
    then channels are averaged. A sound longer than the port takes is cut, a shorter one ends in silence; ``note`` is
    told. Raises UsageError for a port that cannot take a sound.
    """
    dims, time = _layout(spec)
    others = math.prod(size for axis, size in enumerate(dims) if axis != time)
    samples, said = sound.samples, [sound.said]
    if others == 1 and samples.shape[1] > 1:
        said.append(f"{samples.shape[1]} channels averaged")
        samples = samples.mean(axis=1, keepdims=True)
    if samples.shape[1] != others:
        raise UsageError(
            f"{sound.path}: {samples.shape[1]} channels do not fit the input '{spec.name}' ({shapes_text(spec)})",
            f"give it an array: --input {spec.name}=FILE.npy",
        )
    length = _length(spec, dims, time, len(samples))
    if length != len(samples):
        done = "cut" if length < len(samples) else "followed by silence"
        said.append(f"{done}: {length / sound.rate:.3g} s of {len(samples) / sound.rate:.3g} s")
        samples = np.pad(samples[:length], ((0, max(0, length - len(samples))), (0, 0)))
    if note is not None:
        note(f"{sound.path}: {'; '.join(said)}")
    before = math.prod(dims[:time])  # channels lie before time, or behind it
    ordered = samples if before == 1 else samples.T
    return np.ascontiguousarray(ordered).reshape([length if axis == time else size for axis, size in enumerate(dims)])


def _layout(spec: TensorSpec) -> tuple[list[int], int]:
    """Return the port's dimensions and which of them is time."""
    dims = list(spec.shape)
    if not dims or np.dtype(spec.dtype or "float32").kind != "f":
        raise UsageError(f"input '{spec.name}' ({spec}) takes no samples of sound", "give it an array")
    varies = [axis for axis, (low, high) in enumerate(spec.ranges) if low != high]
    varies = varies or [axis for axis in range(len(dims)) if len({shape[axis] for shape in _listed(spec, dims)}) > 1]
    return dims, max(varies or range(len(dims)), key=lambda axis: dims[axis])


def _listed(spec: TensorSpec, dims: Sequence[int]) -> list[Sequence[int]]:
    return [shape for shape in spec.enumerated if len(shape) == len(dims)]


def _length(spec: TensorSpec, dims: list[int], time: int, frames: int) -> int:
    """Return the number of samples to hand over: all, or the nearest that the port takes, or its own."""
    shape = [*dims[:time], frames, *dims[time + 1 :]]
    if allows(spec, tuple(shape)):
        return frames
    if spec.ranges:
        low, high = spec.ranges[time]
        return max(low, min(frames, high if high is not None else frames))
    known = sorted({shape[time] for shape in _listed(spec, dims)} | {dims[time]})
    return next((length for length in known if length >= frames), known[-1])
