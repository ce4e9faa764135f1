"""Buffers that a model changes are the states of its package: a decoder with a cache generates as PyTorch does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tlkit.core.convert.convert import ConversionResult, convert
from tlkit.core.model.load import load_model
from tlkit.errors import TlkitError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
STEPS, VOCABULARY = 48, 40
INPUTS = ["token=1x1:i32", "position=1:i32"]
BOTH = pytest.mark.parametrize("export", [False, True], ids=["trace", "export"])


class Layer(nn.Module):
    """Attention of one new token over all before it, whose keys and values are kept in buffers."""

    def __init__(self, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(1, heads, STEPS, width // heads))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        query, key, value = (t.view(1, 1, self.heads, -1).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        steps = torch.arange(STEPS)
        here = (steps == position).view(1, 1, -1, 1)
        self.keys[:] = torch.where(here, key, self.keys)
        self.values[:] = torch.where(here, value, self.values)
        weights = query @ self.keys.transpose(-1, -2) / 4
        weights = weights.masked_fill((steps > position).view(1, 1, 1, -1), -1e4).softmax(-1)
        return x + self.out((weights @ self.values).transpose(1, 2).reshape(1, 1, -1))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.positions = nn.Embedding(VOCABULARY, 32), nn.Embedding(STEPS, 32)
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.head = nn.Linear(32, VOCABULARY)

    def forward(self, token: Tensor, position: Tensor) -> Tensor:
        x = self.tokens(token) + self.positions(position)
        for layer in self.layers:
            x = layer(x, position)
        return self.head(x)


STATES = {f"layers_{i}_{name}": (1, 2, STEPS, 16) for i in range(2) for name in ("keys", "values")}


def converted(folder: Path, export: bool = False, **options: object) -> ConversionResult:
    return convert(Decoder(), folder / "d.mlpackage", inputs=INPUTS, precision="f32", export=export, **options)  # type: ignore[arg-type]


@BOTH
def test_it_generates_the_same_text(tmp_path: Path, export: bool) -> None:
    result = converted(tmp_path, export)
    assert result.ok
    assert result.target == "iOS18"
    assert {port.name: port.shape for port in result.info.states} == STATES
    package, module = load_model(result.path), Decoder().eval()
    state = package.make_state()
    token, texts = 3, ([], [])
    for position in range(STEPS):
        with torch.no_grad():
            expected = module(torch.tensor([[token]]), torch.tensor([position])).numpy()
        inputs = {"token": np.array([[token]], np.int32), "position": np.array([position], np.int32)}
        found = package.predict(inputs, state=state)["output"]
        np.testing.assert_allclose(found, expected, atol=5e-3)  # the states are f16
        token = int(expected.argmax())
        texts[0].append(token)
        texts[1].append(int(found.argmax()))
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 3  # not one token for ever


def test_the_users_module_is_left_as_it_was(tmp_path: Path) -> None:
    module = Decoder()
    for buffer in module.buffers():
        buffer.fill_(0.5)
    result = convert(module, tmp_path / "d.mlpackage", inputs=INPUTS)
    assert result.ok
    assert all(bool((buffer == 0.5).all()) for buffer in module.buffers())
    assert any("begin as zeros" in note for note in result.notes)


def test_states_that_are_named(tmp_path: Path) -> None:
    named = [f"layers.{i}.{name}" for i in range(2) for name in ("keys", "values")]
    assert converted(tmp_path, states=[f"{named[0]}=1x2x{STEPS}x16", *named[1:]]).ok
    for states, reason in (
        (named[:3], "changes the buffer layers_1_values too"),
        (["nothing"], "changes no such buffer"),
        ([f"{named[0]}=1x2"], "another shape"),
    ):
        with pytest.raises(UsageError, match=reason):
            converted(tmp_path, states=states, force=True)


def test_a_target_without_states_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TlkitError, match="iOS17 does not have"):
        converted(tmp_path, target="iOS17")
    assert list(tmp_path.iterdir()) == []


def test_an_exported_programs_states(tmp_path: Path) -> None:
    program = torch.export.export(Decoder().eval(), (torch.tensor([[1]]), torch.tensor([0])))
    torch.export.save(program, tmp_path / "d.pt2")
    result = convert(tmp_path / "d.pt2", tmp_path / "d.mlpackage", precision="f32")
    assert result.ok
    assert {port.name for port in result.info.states} == set(STATES)


class Rows(nn.Module):
    """Writes rows into a cache as transformers' static cache does, or by an index as others do."""

    def __init__(self, by_index: bool) -> None:
        super().__init__()
        self.by_index = by_index
        self.register_buffer("cache", torch.zeros(1, 2, 16, 4))

    def forward(self, rows: Tensor, places: Tensor) -> Tensor:
        if self.by_index:
            self.cache[:, :, places] = rows
        else:
            self.cache.index_copy_(2, places, rows)
        return self.cache * 2


@BOTH
@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("by_index", [False, True], ids=["index_copy", "index"])
def test_rows_of_a_cache(tmp_path: Path, count: int, by_index: bool, export: bool) -> None:
    inputs = [f"rows=1x2x{count}x4", f"places={count}:i32"]
    result = convert(Rows(by_index), tmp_path / "r.mlpackage", inputs=inputs, precision="f32", export=export)
    assert result.ok
    model = load_model(result.path)
    state = model.make_state()
    rng = np.random.default_rng(0)
    expected = np.zeros((1, 2, 16, 4), np.float32)
    for start in (2, 9):
        places = np.arange(start, start + count, dtype=np.int32)[::-1].copy()
        places -= 16 if by_index and start == 9 else 0  # an index counts from the end, too
        rows = rng.integers(-9, 9, (1, 2, count, 4)).astype(np.float32)
        expected[:, :, places] = rows
        (found,) = model.predict({"rows": rows, "places": places}, state=state).values()
        np.testing.assert_array_equal(found, expected * 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_llama_of_transformers_generates_the_same_text(tmp_path: Path) -> None:
    """PyTorch in f32 with its cache in f16, as every state of Core ML's is: the text of 300 tokens is the same."""
    pytest.importorskip("transformers", reason="transformers is not installed: pip install 'tlkit[hf]'")
    from fixtures.decoders import LlamaStep

    module = LlamaStep(context=300, half=True).eval()
    result = convert(module, tmp_path / "l.mlpackage", inputs=INPUTS, precision="f32")
    assert result.ok
    assert {port.name for port in result.info.states} == {"keys", "values"}
    package = load_model(result.path)
    state = package.make_state()
    texts: tuple[list[int], list[int]] = ([1], [1])
    for position in range(300):
        with torch.no_grad():
            expected = module(torch.tensor([[texts[0][-1]]]), torch.tensor([position]))
        inputs = {"token": np.array([[texts[1][-1]]], np.int32), "position": np.array([position], np.int32)}
        texts[0].append(int(expected.argmax()))
        texts[1].append(int(package.predict(inputs, state=state)["output"].argmax()))
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 100
