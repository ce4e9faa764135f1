"""A text classifier in the form in which Create ML writes it, by its formula; and VGGish's front end by its definition.

Covers tlkit/engines/classic/text.py, tlkit/engines/classic/sound.py, tlkit/engines/classic/kind.py.
"""

from __future__ import annotations

import contextlib
import math
import plistlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engines.classic.specs import blank, load
from tlkit.engines.classic.sound import log_mel
from tlkit.engines.classic.text import tokens
from tlkit.errors import LoadError, TlkitError

WORDS = ["good", "bad", "movie", "it's", "!"]
FREQUENCIES = [0] * 16 + [4, 2, 10]
WEIGHTS = {("good", 1): 1.5, ("bad", 2): 2.25, ("it's", 1): -0.5, ("!", 2): 0.125, ("movie", 1): 9.0}


def parameters(kind: int = 4, model: int = 0) -> bytes:
    """``modelParameterData`` of labels pos and neg over 10 documents."""
    vocabulary = b"\0" * 16 + b"".join(word.encode() + b"\0" for word in WORDS)
    records = b"".join(
        (16 + WORDS.index(word)).to_bytes(3, "little") + bytes([label]) + struct.pack(">f", weight)
        for (word, label), weight in WEIGHTS.items()
    )
    head = plistlib.dumps({"ModelType": model, "NumberOfTrainingInstances": 10}, fmt=plistlib.FMT_BINARY)
    sections = [head, records, b"\0pos\0neg\0", vocabulary, plistlib.dumps(FREQUENCIES, fmt=plistlib.FMT_BINARY)]
    table, body, place = b"", b"", 16 + 40
    for number, section in enumerate(sections):
        table += struct.pack("<II", place - (4 if number == 0 else 0), len(section))
        filled = section + b"\0" * (-len(section) % 8)
        body, place = body + filled, place + len(filled)
    return struct.pack("<IHHHHI", 0x0956D3DE, kind, 7, 1, 1, 4) + table + body


def text_model(data: bytes) -> Any:
    model = blank("textClassifier", {"text": "string"}, {"label": "string", "shares": "text to double"})
    model.description.predictedFeatureName, model.description.predictedProbabilitiesName = "label", "shares"
    model.textClassifier.revision, model.textClassifier.modelParameterData = 1, data
    return model


def test_a_text_is_classified_by_the_formula(tmp_path: Path) -> None:
    found = load(text_model(parameters()), tmp_path).predict({"text": "good good, it's a movie!"})
    # (1 + count), documents / documents with the word; a word in all documents counts nothing
    pos = math.log(3) * math.log(10 / 4) * 1.5 + math.log(2) * math.log(10) * -0.5
    neg = math.log(2) * math.log(10) * 0.125
    wanted = math.exp(pos) / (math.exp(pos) + math.exp(neg))
    assert found["label"] == "pos" and abs(found["shares"]["pos"] - wanted) < 1e-9
    unknown = load(text_model(parameters()), tmp_path).predict({"text": "nothing known"})
    assert unknown["shares"] == {"pos": 0.5, "neg": 0.5}


def test_tokens_keep_case_and_inner_marks() -> None:
    assert dict(tokens("It's t.co/x, pre-order #1!")) == dict.fromkeys(
        ["It's", "t.co", "/", "x", ",", "pre-order", "#", "1", "!"], 1
    )


@pytest.mark.parametrize("data", [b"", b"\0" * 80, parameters(kind=1), parameters(model=1), parameters()[:100]])
def test_other_kinds_and_damage_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(LoadError):
        load(text_model(data), tmp_path).prepare()


@given(st.data())
def test_damaged_parameters_end_in_a_word(data: st.DataObject) -> None:
    from tlkit.engines.classic.text import classifier

    content = bytearray(parameters())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TlkitError):
        classifier(text_model(bytes(content)), {})([{"text": "good bad movie"}])


def test_sound_of_one_frequency_lights_its_band() -> None:
    time = np.arange(15_600) / 16_000
    found = log_mel(np.sin(2 * np.pi * 1000 * time))
    edges = np.linspace(1127 * np.log1p(125 / 700), 1127 * np.log1p(7500 / 700), 66)
    band = int(np.argmin(np.abs(edges[1:-1] - 1127 * np.log1p(1000 / 700))))
    assert found.shape == (1, 96, 64) and set(found[0].argmax(1).tolist()) <= {band - 1, band, band + 1}
    assert np.allclose(log_mel(np.zeros(15_600)), np.log(0.01))


def test_sound_against_a_slow_transform() -> None:
    samples = np.random.default_rng(0).standard_normal(15_600) * 0.1
    frame = samples[160 * 40 : 160 * 40 + 400] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400))
    turns = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
    magnitudes = np.abs(turns @ frame)
    mel = 1127 * np.log(1 + np.linspace(0, 8000, 257) / 700)
    edges = np.linspace(1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700), 66)
    for band in (0, 20, 63):
        low, middle, high = edges[band : band + 3]
        weights = np.clip(np.minimum((mel - low) / (middle - low), (high - mel) / (high - middle)), 0, None)
        weights[0] = 0
        assert abs(log_mel(samples)[0, 40, band] - np.log(weights @ magnitudes + 0.01)) < 1e-9
