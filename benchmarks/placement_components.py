"""How well placement is predicted of components of which the Neural Engine takes little, or nothing.

``python benchmarks/placement_components.py [NAME ...]``: modules of the kinds whose plans are published as shares only
(an M5, CPU_AND_NE: recurrent decoders, joints, mel front ends and voice activity detectors 0 %, a model of open length
0 % where the same of a fixed one has 94 %) are written as their papers describe them, converted, and predicted. Prints,
per component, the share of operations that are as published, the slogan's beside it (everything on the Neural Engine),
and the means over components. These are rebuilt: their weights are drawn, and an author's package may have other
operations around the same network.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tlkit import convert  # noqa: E402
from tlkit.host.quiet import quiet  # noqa: E402

CHIP = "M5"


class Component(NamedTuple):
    """A module, its inputs as ``--input`` takes them, and the published share of operations on the Neural Engine."""

    make: Callable[[], nn.Module]
    inputs: tuple[str, ...]
    share: float = 0.0


class Decoder(nn.Module):
    """An RNN-T's prediction network: an embedding and LSTMs whose states are inputs."""

    def __init__(self, layers: int = 2, width: int = 640, tokens: int = 1025) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(tokens, width), nn.LSTM(width, width, layers, batch_first=True)

    def forward(self, token: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step."""
        made, (h, c) = self.rnn(self.embed(token), (h, c))
        return made.transpose(1, 2), h, c


class Joint(nn.Module):
    """An RNN-T's joint network on one frame and one token, with or without the decision."""

    def __init__(self, encoder: int = 1024, width: int = 640, tokens: int = 1030, decides: bool = False) -> None:
        super().__init__()
        self.enc, self.pred = nn.Linear(encoder, width), nn.Linear(width, width)
        self.out, self.decides = nn.Linear(width, tokens), decides

    def forward(self, frame: Tensor, state: Tensor) -> Any:
        """Scores, or the best token and its probability."""
        made = self.out(torch.relu(self.enc(frame).unsqueeze(2) + self.pred(state).unsqueeze(1)))
        if not self.decides:
            return made
        odds = made.softmax(-1)
        return odds.argmax(-1).to(torch.int32), odds.amax(-1)


class Mel(nn.Module):
    """Log-mel features by a convolution with windowed sines; ``normed`` as NeMo does it, else as Whisper does."""

    basis: Tensor
    bank: Tensor

    def __init__(self, size: int = 400, mels: int = 80, normed: bool = False) -> None:
        super().__init__()
        bins = size // 2 + 1
        angle = torch.outer(torch.arange(bins), torch.arange(size)) * (2 * torch.pi / size)
        basis = torch.cat([angle.cos(), angle.sin()]) * torch.hann_window(size)
        self.register_buffer("basis", basis[:, None])
        self.register_buffer("bank", torch.rand(mels, bins))
        self.size, self.normed = size, normed

    def forward(self, audio: Tensor) -> Tensor:
        """Features of audio [1, samples]."""
        if self.normed:
            audio = torch.cat([audio[:, :1], audio[:, 1:] - 0.97 * audio[:, :-1]], 1)
        audio = F.pad(audio[:, None], (self.size // 2, self.size // 2), "reflect" if not self.normed else "constant")
        real, imaginary = F.conv1d(audio, self.basis, stride=160).chunk(2, 1)
        mel = torch.matmul(self.bank, real * real + imaginary * imaginary)
        if self.normed:
            mel = (mel + 2**-24).log()
            return (mel - mel.mean(-1, keepdim=True)) / (mel.std(-1, keepdim=True) + 1e-5)
        mel = mel.clamp(min=1e-5).log10()
        return (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8) + 4) / 4


class Voice(nn.Module):
    """A voice activity detector in Silero's manner: frames by a convolution, four convolutions, an LSTM cell."""

    basis: Tensor

    def __init__(self, size: int = 256, width: int = 128) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("basis", torch.randn(size + 2, 1, size))
        sizes = (size // 2 + 1, width, width // 2, width // 2, width)
        self.layers = nn.ModuleList(
            nn.Conv1d(a, b, 3, stride, 1) for a, b, stride in zip(sizes, sizes[1:], (1, 2, 2, 1), strict=False)
        )
        self.rnn, self.out = nn.LSTMCell(width, width), nn.Conv1d(width, 1, 1)

    def forward(self, audio: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The odds of a voice in a chunk, and the states."""
        made = F.conv1d(F.pad(audio[:, None], (0, 64), "reflect"), self.basis, stride=self.size // 2)
        real, imaginary = made[:, : self.size // 2 + 1], made[:, self.size // 2 + 1 :]
        made = (real * real + imaginary * imaginary).sqrt()
        for layer in self.layers:
            made = torch.relu(layer(made))
        h, c = self.rnn(made.mean(-1), (h, c))
        return torch.sigmoid(self.out(torch.relu(h)[:, :, None])), h, c


class Segmenter(nn.Module):
    """A speaker segmenter in PyanNet's manner: wide filters over audio, pooling, LSTMs in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 80, 251, stride=10)
        self.convs = nn.ModuleList([nn.Conv1d(80, 60, 5), nn.Conv1d(60, 60, 5)])
        self.norms = nn.ModuleList([nn.InstanceNorm1d(80, affine=True)] + [nn.InstanceNorm1d(60, affine=True)] * 2)
        self.rnn = nn.LSTM(60, 128, 4, batch_first=True, bidirectional=True)
        self.out = nn.Sequential(nn.Linear(256, 128), nn.LeakyReLU(), nn.Linear(128, 128), nn.LeakyReLU())
        self.last = nn.Linear(128, 7)

    def forward(self, audio: Tensor) -> Tensor:
        """The odds of each set of speakers in each frame."""
        made = F.leaky_relu(self.norms[0](F.max_pool1d(self.first(audio).abs(), 3)))
        for layer, norm in zip(self.convs, list(self.norms)[1:], strict=True):
            made = F.leaky_relu(norm(F.max_pool1d(layer(made), 3)))
        odds: Tensor = self.last(self.out(self.rnn(made.transpose(1, 2))[0]))
        return odds.log_softmax(-1)


class Durations(nn.Module):
    """A text-to-speech model's duration predictor: LSTMs with norms between them, and a projection."""

    def __init__(self, width: int = 512, layers: int = 3) -> None:
        super().__init__()
        self.rnns = nn.ModuleList(
            nn.LSTM(width + 128, width // 2, 1, batch_first=True, bidirectional=True) for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.out = nn.Linear(width, 50)

    def forward(self, text: Tensor, style: Tensor) -> Tensor:
        """The length of each phoneme in frames."""
        for rnn, norm in zip(self.rnns, self.norms, strict=True):
            text = norm(rnn(torch.cat([text, style.expand(-1, text.shape[1], -1)], -1))[0])
        return torch.sigmoid(self.out(text)).sum(-1).round().clamp(min=1)


class Encoder(nn.Module):
    """Convolutions over features that halve their length, and transformer layers."""

    def __init__(self, width: int = 512, layers: int = 4) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv1d(80, width, 3, 1, 1), nn.Conv1d(width, width, 3, 2, 1)])
        how: dict[str, Any] = {"batch_first": True, "norm_first": True, "activation": "gelu"}
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(width, 8, 4 * width, **how) for _ in range(layers))

    def forward(self, mel: Tensor) -> Tensor:
        """Features [1, 80, length] to [1, length / 2, width]."""
        for layer in self.convs:
            mel = F.gelu(layer(mel))
        mel = mel.transpose(1, 2)
        for block in self.layers:
            mel = block(mel)
        return mel


COMPONENTS: Mapping[str, Component] = {
    "rnnt decoder": Component(Decoder, ("token=1x1:i32", "h=2x1x640", "c=2x1x640")),
    "rnnt decoder, 1 layer, 8193 tokens": Component(
        lambda: Decoder(1, 640, 8193), ("token=1x1:i32", "h=1x1x640", "c=1x1x640")
    ),
    "rnnt joint": Component(Joint, ("frame=1x1x1024", "state=1x1x640")),
    "rnnt joint, 8198 tokens": Component(lambda: Joint(tokens=8198), ("frame=1x1x1024", "state=1x1x640")),
    "rnnt joint with decision": Component(lambda: Joint(decides=True), ("frame=1x1x1024", "state=1x1x640")),
    "whisper mel, 30 s": Component(Mel, ("audio=1x480000",)),
    "nemo mel, 15 s": Component(lambda: Mel(512, 128, True), ("audio=1x240000",)),
    "nemo mel, 1 s": Component(lambda: Mel(512, 80, True), ("audio=1x16000",)),
    "mel of open length": Component(lambda: Mel(512, 80, True), ("audio=1x16000..480000",)),
    "silero vad, 32 ms": Component(Voice, ("audio=1x576", "h=1x128", "c=1x128")),
    "duration predictor": Component(Durations, ("text=1x64x512", "style=1x1x128")),
    "duration predictor, 256 phonemes": Component(Durations, ("text=1x256x512", "style=1x1x128")),
    "encoder of open length": Component(Encoder, ("mel=1x80x100..3000",)),
    "encoder of a fixed length": Component(Encoder, ("mel=1x80x3000",), 0.94),
}


def main() -> None:
    """Print the scores."""
    wanted = sys.argv[1:] or list(COMPONENTS)
    ours, slogan = [], []
    for name in wanted:
        found = COMPONENTS[name]
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory(), quiet():
            plan: Any = convert(found.make().eval(), inputs=found.inputs, plan=True, units=["ane"], chip=CHIP)
        (prediction,) = plan.predictions
        share = prediction.count("ane") / len(prediction.operations)
        ours.append(1 - abs(share - found.share))
        slogan.append(found.share)
        told = f"{len(prediction.operations)} operations, predicted {share:.1%} on the Neural Engine"
        print(f"{name}: {told}, published {found.share:.0%}: {ours[-1]:.1%}, all-ANE {slogan[-1]:.1%}", flush=True)
    print(f"mean of {len(ours)}: {sum(ours) / len(ours):.1%}; all-ANE {sum(slogan) / len(slogan):.1%}")


if __name__ == "__main__":
    main()
