"""Sound files as inputs: against the standard library's own reader, and a sine whose samples are known."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from tlkit.core.model.inputs import to_port
from tlkit.core.model.values import read_value
from tlkit.errors import LoadError, UsageError
from tlkit.ports import sounds
from tlkit.types import TensorSpec

soundfile = pytest.importorskip("soundfile")


def sine(path: Path, rate: int = 8000, seconds: float = 0.5, channels: int = 1) -> np.ndarray:  # type: ignore[type-arg]
    """Write a WAV of 16 bits with a sine of 200 Hz, its second channel half as loud; return its samples / 2^15."""
    time = np.arange(int(rate * seconds)) / rate
    parts = [np.sin(2 * np.pi * 200 * time) * 0.8 / (number + 1) for number in range(channels)]
    samples = np.rint(np.stack(parts, 1) * 2**15).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return samples / np.float32(2**15)


def test_samples_are_those_written(tmp_path: Path) -> None:
    expected = sine(path := tmp_path / "a.wav", channels=2)
    sound = sounds.read_sound(path)
    assert sound.rate == 8000 and np.array_equal(sound.samples, expected)


def test_a_port_s_longest_axis_is_time(tmp_path: Path) -> None:
    mono, stereo = sine(tmp_path / "m.wav"), sine(tmp_path / "s.wav", channels=2)
    notes: list[str] = []
    whole = to_port(TensorSpec("x", "float32", (1, 4000)), tmp_path / "m.wav", notes.append)
    assert np.array_equal(whole, mono.T)
    left = to_port(TensorSpec("x", "float32", (1, 2, 4000)), tmp_path / "s.wav", notes.append)
    assert np.array_equal(left[0, 1], stereo[:, 1])
    right = to_port(TensorSpec("x", "float16", (4000, 2)), tmp_path / "s.wav", notes.append)
    assert right.dtype == np.float16 and np.array_equal(right, stereo.astype(np.float16))
    mixed = to_port(TensorSpec("x", "float32", (4000,)), tmp_path / "s.wav", notes.append)
    np.testing.assert_allclose(mixed, stereo.mean(1), atol=1e-7)
    assert "2 channels averaged" in notes[-1] and "8000 samples a second, as they are" in notes[0]


def test_longer_and_shorter_ones_fit_and_it_is_said(tmp_path: Path) -> None:
    samples = sine(path := tmp_path / "a.wav")[:, 0]
    notes: list[str] = []
    cut = to_port(TensorSpec("x", "float32", (1, 1000)), path, notes.append)
    assert np.array_equal(cut[0], samples[:1000]) and "cut: 0.125 s of 0.5 s" in notes[-1]
    padded = to_port(TensorSpec("x", "float32", (6000,)), path, notes.append)
    assert np.array_equal(padded, np.pad(samples, (0, 2000))) and "followed by silence" in notes[-1]
    free = TensorSpec("x", "float32", (1, 100), ranges=((1, 1), (1, None)))
    assert to_port(free, path).shape == (1, 4000)
    bounded = TensorSpec("x", "float32", (1, 100), ranges=((1, 1), (1, 3000)))
    assert to_port(bounded, path).shape == (1, 3000)
    listed = TensorSpec("x", "float32", (1, 1000), enumerated=((1, 1000), (1, 5000), (1, 9000)))
    assert to_port(listed, path).shape == (1, 5000)


def test_another_rate_is_the_same_tone(tmp_path: Path) -> None:
    sine(path := tmp_path / "a.wav", rate=44100)
    sound = read_value(f"{path}:16000", "x")
    assert (sound.rate, len(sound.samples)) == (16000, 8000)
    time = np.arange(8000) / 16000
    middle = slice(1000, 7000)  # the ends ring
    np.testing.assert_allclose(sound.samples[middle, 0], 0.8 * np.sin(2 * np.pi * 200 * time)[middle], atol=1e-3)
    assert "resampled from 44100 to 16000" in sound.said


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "AIFF", "MP3"])
def test_other_kinds_are_told_by_content(tmp_path: Path, kind: str) -> None:
    samples = sine(tmp_path / "a.wav", rate=16000)
    soundfile.write(tmp_path / "b.dat", samples, 16000, format=kind)
    assert sounds.is_sound(tmp_path / "b.dat")
    found = sounds.read_sound(tmp_path / "b.dat").samples
    np.testing.assert_allclose(found[: len(samples)], samples, atol=0.05 if kind in ("OGG", "MP3") else 0)


def test_what_is_no_sound_or_has_no_port_is_one_line(tmp_path: Path) -> None:
    sine(path := tmp_path / "a.wav", channels=2)
    (tmp_path / "b.wav").write_bytes(path.read_bytes()[:30])
    with pytest.raises(LoadError, match=r"b\.wav: not a sound that can be read"):
        sounds.read_sound(tmp_path / "b.wav")
    (tmp_path / "c.wav").write_bytes(path.read_bytes()[:44])
    with pytest.raises(LoadError, match="without a sample"):
        sounds.read_sound(tmp_path / "c.wav")
    with pytest.raises(UsageError, match="2 channels do not fit"):
        to_port(TensorSpec("x", "float32", (1, 3, 4000)), path)
    with pytest.raises(UsageError, match="takes no samples"):
        to_port(TensorSpec("x", "int32", (1, 4000)), path)
    with pytest.raises(UsageError, match="not a rate"):
        sounds.read_sound(path, 0)
    assert not sounds.is_sound(Path(__file__)) and not sounds.is_sound(tmp_path)
