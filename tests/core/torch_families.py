"""Torch ops that tlkit translates for coremltools, a family a module: many small results of a few inputs.

Each sample is a function of the family's inputs. A family is converted as one module (``torch_together.py``), so that a
hundred ops cost a dozen conversions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.core.torch_writes import WRITES

Sample = Callable[..., Any]
Spans = dict[int, tuple[int, int]]


@dataclass(frozen=True)
class Family:
    """Samples by name, what they take, and where that flexes: the input's number, its axes' spans, another size."""

    samples: dict[str, Sample]
    inputs: tuple[Tensor, ...]
    spans: dict[int, Spans] = field(default_factory=dict)
    others: tuple[Tensor, ...] = ()


def some(*shape: int, seed: int = 0) -> Tensor:
    """Seeded normals."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


INTS = torch.tensor([3, -7, 0, 5, 9, 70000])
PLACES = torch.tensor([0, -1, 2, 3, 0, 1])
IMAGE, VOLUME, SEQUENCE, PAIRS = some(1, 3, 7, 9), some(1, 2, 5, 6, 7), some(2, 6, 7), some(18)


class Holder(nn.Module):
    """Layers with seeded weights, called as the sample says."""

    def __init__(self, call: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.call = call
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *tensors: Tensor) -> Any:
        return self.call(self, *tensors)


def layers(call: Callable[..., Any], **made: Callable[[], nn.Module]) -> nn.Module:
    """Return a :class:`Holder` of what ``made`` makes, from one seed."""
    torch.manual_seed(0)
    return Holder(call, **{name: make() for name, make in made.items()})


def written_spectrum(x: Tensor) -> Tensor:
    """Corners of a spectrum written into zeros, as Fourier operators do, and a real part."""
    spectrum = torch.fft.rfft2(x.reshape(3, 6))
    out = torch.zeros(3, 4, dtype=torch.cfloat)
    out[:1, :2] = spectrum[:1, :2] * 2
    out[-1:, 2:] = spectrum[-1:, :2]
    return torch.view_as_real(out)


FAMILIES: dict[str, Family] = {
    "elementwise": Family(
        {
            "fmod": lambda x, m: torch.fmod(x * 5, 1.5),
            "fmod of integers": lambda x, m: torch.fmod(m, 4),
            "sub alpha": lambda x, m: torch.sub(x, m, alpha=5) + torch.rsub(x, m, alpha=2),
            "add alpha": lambda x, m: torch.add(x, x * x, alpha=0.5),
            "trunc": lambda x, m: (x * 3).trunc(),
            "atan2": lambda x, m: (torch.atan2(x.abs() * 0, x), torch.atan2(x, m * 0.5), torch.arctan2(m.abs(), m)),
            "another name of logit": lambda x, m: torch.special.logit(torch.sigmoid(x), 1e-6),
            "lerp": lambda x, m: torch.lerp(x, m.float(), 0.3),
            "outer of two types": lambda x, m: torch.outer(m, x),
            "reciprocal": lambda x, m: (x.abs() * 1e-3 + 1e-3).reciprocal(),
            "reciprocal of integers": lambda x, m: 1 / (m * m + 1),
            "square root of integers": lambda x, m: (m % 5).sqrt() + torch.tensor(64).sqrt(),
            "functions of integers": lambda x, m: torch.sin(m % 7) + torch.sigmoid(m % 3) + torch.rsqrt(m % 3 + 1),
            "clamp of integers as indices": lambda x, m: x[m.clamp(0, 5)] + x[m.clamp_min(2).clamp_max(4)],
            "clamp_min by an integer": lambda x, m: torch.clamp_min(x * 3, 1),
            "hardtanh between integers": lambda x, m: F.hardtanh(x * 30, 0, 20),
            "quotients of integers": lambda x, m: (
                torch.div(m, 4, rounding_mode="floor"),
                torch.div(m * 30001, torch.tensor(-7), rounding_mode="trunc"),
            ),
            "isfinite": lambda x, m: torch.isfinite(x / (m % 3)),
            "isinf": lambda x, m: torch.isinf(x / (m % 3)),
            "hypot": lambda x, m: torch.hypot(x, x + 1),
            "copysign": lambda x, m: torch.copysign(x + 4, x),
            "xlogy": lambda x, m: torch.xlogy((m % 3).float(), x.abs() + 0.1),
            "log_sigmoid": lambda x, m: F.logsigmoid(x * 40),
            "addcmul": lambda x, m: torch.addcmul(x, x, m % 4, value=2.5),
            "addcdiv": lambda x, m: torch.addcdiv(x, x, x.abs() + 1, value=0.5),
            "celu": lambda x, m: F.celu(x, 0.7),
            "bits of integers": lambda x, m: (m & 12, m | 5, m ^ -3, (m & m.flip(0)) << 2, m >> 1, m & 1 | (m == 3)),
            "composed by torch": lambda x, m: (
                torch.fmax(x, -x) + torch.fmin(x, x * 2) + torch.ldexp(x, torch.tensor(3)) + torch.erfc(x),
                torch.isclose(x, x + 1e-9) & ~torch.signbit(x),
                torch.addmv(x[:2], x.reshape(2, 3), x[:3], alpha=2) + x.broadcast_to(2, 6).mT.mH[:2].sum(),
                torch.concatenate([x.view_as(x), x.msort()]),
                torch.fft.fftshift(x) + torch.fft.ifftshift(x),
            ),
            "losses": lambda x, m: F.l1_loss(x, x * 2) + F.kl_div(x, x.exp()),
            "choice between types": lambda x, m: torch.where(x > 0, 1, x) + torch.where(m > 0, x, 0),
            "cast to bfloat16": lambda x, m: (x * 0 + 1.5).to(torch.bfloat16).float() * x,
        },
        (some(6), INTS),
    ),
    "creation": Family(
        {
            "zeros_like with a type": lambda x, m: torch.zeros_like(m, dtype=torch.float32) + x,
            "zeros_like as indices": lambda x, m: x[torch.zeros_like(x, dtype=torch.long)],
            "ones_like with a type": lambda x, m: torch.ones_like(x, dtype=torch.bool) & (x > 0),
            "full_like with a type": lambda x, m: torch.full_like(m, 2.5, dtype=torch.float32) * x,
            "eye of booleans": lambda x, m: torch.eye(6, dtype=torch.bool) | (x[None, :6] > 0)[:, :1],
            "zeros of integers": lambda x, m: x[torch.zeros(4, dtype=torch.long)],
            "ones of integers": lambda x, m: x[torch.ones(4, dtype=torch.long)],
            "meshgrid with a number": lambda x, m: torch.meshgrid(x, torch.tensor(3.0), indexing="ij"),
            "meshgrid of integers": lambda x, m: (
                torch.stack(torch.meshgrid(torch.arange(4), torch.arange(3), indexing="xy"), -1) + x[0]
            ),
            "triu_indices": lambda x, m: x[torch.triu_indices(3, 3)[0]] + x[torch.tril_indices(3, 3, -1)[1]].sum(),
            "windows": lambda x, m: torch.hann_window(6) * x + torch.hamming_window(6, periodic=False),
        },
        (some(6), INTS),
    ),
    "reduction": Family(
        {
            "var with a correction": lambda x: torch.var(x, dim=-1, correction=2, keepdim=True),
            "std over axes": lambda x: torch.std(x, dim=(1, 2), correction=3),
            "var of everything": lambda x: x.var() + x.std(0).sum(),
            "var_mean": lambda x: torch.var_mean(x, dim=-1, correction=0),
            "std_mean": lambda x: torch.std_mean(x, dim=1),
            "mean with a type": lambda x: (
                torch.mean(x > 0, dtype=torch.float32) + torch.mean(x, 1, dtype=torch.float32)
            ),
            "sum of booleans": lambda x: (x > 0).sum() // 2 + (x > 0).sum(1, dtype=torch.float32) / 2,
            "prod": lambda x: (torch.prod(x, 1), torch.prod(x * 0.1 + 1)),
            "cummax": lambda x: torch.cummax(x, 1),
            "cummin": lambda x: torch.cummin(x.round(), -1),
            "cumsum of an inner axis": lambda x: x.cumsum(-2) + (x > 0).cumsum(-3),
            "isin": lambda x: torch.isin((x * 2).long(), torch.tensor([0, 2])),
            "bucketize": lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 0.5]), right=True),
            "histc": lambda x: torch.histc(x, 5, -1, 2),
            "nanmean": lambda x: torch.nanmean(torch.where(x > 1, torch.nan, x), -1),
            "median": lambda x: (x.median(1), x.median()),
            "kthvalue": lambda x: torch.kthvalue(x, 3, -1),
            "cdist": lambda x: torch.cdist(x[0], x[1]),
            "cosine_similarity": lambda x: F.cosine_similarity(x, x.flip(1)),
            "determinant": lambda x: torch.linalg.det(x[0, :3, :3]),
            "rms_norm": lambda x: F.rms_norm(x * 0.1, (9,), eps=1e-2) + F.rms_norm(x * 0, (9,), eps=1e-6),
            "linear by a vector": lambda x: F.linear(x, x[0, 0] * 2) + F.linear(x[0, 1], x[0, 0], x[1, 1, 1]),
            "addmm of whole factors": lambda x: torch.addmm(x[0, :7, :7], x[0], x[1].T, beta=0.5, alpha=2),
        },
        (some(3, 7, 9),),
    ),
    "indexing": Family(
        {
            "index_put at several axes": lambda x, p: torch.zeros(1, 2, 4, 4).index_put(
                (p * 0, p * 0 + 1, p, p), x[0], accumulate=True
            ),
            "index_put of integers": lambda x, p: torch.zeros(5, dtype=torch.long).index_put((p,), p, accumulate=True),
            "index_put of columns": lambda x, p: torch.stack([x, -x]).index_put((torch.tensor([1]), p[1:3]), x[0, :1]),
            "index_put where a mask is": lambda x, p: x.index_put((x > 0,), torch.tensor(2.0)),
            "scatter_reduce": lambda x, p: tuple(
                x.scatter_reduce(1, p.abs()[None].expand(4, 6), x * 2, how, include_self=keep)
                for how in ("sum", "prod", "mean", "amax", "amin")
                for keep in (True, False)
            ),
            "scatter of an integer into reals": lambda x, p: torch.zeros_like(x).scatter_(
                1, p.abs()[None].expand(4, 6), 1
            ),
            "scatter into a corner": lambda x, p: (
                x.scatter(1, p.abs()[:2, None].expand(2, 2), x) + x.scatter(0, p.abs()[None, :3], 2.5)
            ),
            "scatter_add into a corner": lambda x, p: x.scatter_add(1, p.abs()[None, :4], x.flip(0)),
            "index_reduce": lambda x, p: x.index_reduce(1, p.abs(), x * 3, "amax"),
            "index_fill": lambda x, p: x.index_fill(1, p[:3], 2.5),
            "embedding_bag": lambda x, p: tuple(
                F.embedding_bag(p.abs().reshape(2, 3), x, mode=mode) for mode in ("sum", "mean", "max")
            ),
            "bincount": lambda x, p: (
                torch.bincount(p.abs(), minlength=5) + torch.bincount(p.abs(), x[0].abs(), minlength=5)
            ),
            "embedding_bag by offsets": lambda x, p: (
                F.embedding_bag(p.abs() % 6, x.reshape(6, -1), torch.tensor([0, 1, 1]), mode="sum"),
                F.embedding_bag((p[:4].abs() % 6).reshape(2, 2), x.reshape(6, -1), mode="mean"),
                F.embedding_bag(p.abs() % 6, x.reshape(6, -1), torch.tensor([0, 2]), mode="max"),
            ),
            "masked_scatter": lambda x, p: x.masked_scatter(x > 0, -x),
            "repeat_interleave by a tensor": lambda x, p: x.repeat_interleave(torch.tensor([1, 0, 3, 1, 0, 2]), 1),
            "gather of large integers": lambda x, p: ((p + 70000)[p], torch.gather(p * 40000, 0, p % 4)),
            "negative indices": lambda x, p: x[:, p],
            "halved indices": lambda x, p: x[:, p.abs() // 2],
            "unfold": lambda x, p: x.unfold(1, 3, 2),
            "as_strided": lambda x, p: x.as_strided((2, 2, 3), (6, 2, 1), 1),
            "unsafe_chunk": lambda x, p: x.unsafe_chunk(3, 1)[1] * 2,
            "negative padding": lambda x, p: F.pad(x, (-1, 2)) + F.pad(x, (2, -1)),
            "padding around": lambda x, p: F.pad(x[None], (1, 2), mode="circular"),
        },
        (some(4, 6), PLACES),
    ),
    "writes": Family(WRITES, (some(2, 3), some(2, 3, seed=1))),
    "pooling": Family(
        {
            "avg_pool over the end": lambda x: F.avg_pool2d(x, 2, 3, ceil_mode=True),
            "avg_pool of what is there": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            "avg_pool with a divisor": lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=4),
            "avg_pool in 1-d": lambda x: F.avg_pool1d(x[0], 4, 3, 1, ceil_mode=True),
            "max_pool without a batch": lambda x: F.max_pool2d(x[0], 2),
            "max_pool with places": lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True),
            "max_pool dilated": lambda x: F.max_pool2d(x, 3, 2, dilation=2),
            "max_pool that drops a window": lambda x: F.max_pool2d(x, 2, 3, ceil_mode=True),
            "adaptive_max_pool with places": lambda x: F.adaptive_max_pool2d(x.round(), (3, 4), return_indices=True),
            "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x[0], 4, return_indices=True),
        },
        (IMAGE,),
    ),
    "volumes": Family(
        {
            "adaptive_avg_pool3d": lambda v: F.adaptive_avg_pool3d(v, (2, 3, 7)),
            "diagonals": lambda v: (
                v.diagonal(1, 2, 4),
                v.diagonal(-2, -1, 1),
                v.diagonal(),
                v[0, 0].diagonal(9, 0, 2),
            ),
            "movedim": lambda v: (v.movedim((1, -1), (4, 0)), v.movedim(2, 0)),
            "adaptive_avg_pool3d to one": lambda v: F.adaptive_avg_pool3d(v, 1),
            "adaptive_max_pool3d": lambda v: F.adaptive_max_pool3d(v, (2, 3, 7)),
            "upsample_nearest3d": lambda v: F.interpolate(v, scale_factor=2),
            "upsample_trilinear3d": lambda v: F.interpolate(v, (7, 8, 9), mode="trilinear"),
            "grid_sample of a volume": lambda v: F.grid_sample(v, v[:, 0, :3, :4, :6].reshape(1, 4, 3, 2, 3) * 0.5),
            "conv_transpose3d": layers(
                lambda s, v: s.c(v), c=lambda: nn.ConvTranspose3d(2, 3, 3, 2, 1, output_padding=1)
            ),
        },
        (VOLUME,),
    ),
    "images": Family(
        {
            "bicubic": lambda x: F.interpolate(x, (11, 5), mode="bicubic"),
            "bicubic by a factor": lambda x: F.interpolate(x, scale_factor=0.5, mode="bicubic"),
            "bilinear by a fraction": lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
            "nearest by a fraction": lambda x: F.interpolate(x, scale_factor=2.5) + x.mean(),
            "nearest-exact": lambda x: F.interpolate(x, (11, 5), mode="nearest-exact"),
            "affine_grid": lambda x: F.affine_grid(x[0, :, :2, :3].reshape(3, 2, 3)[:1], [1, 3, 4, 5]),
            "grid_sample": lambda x: F.grid_sample(x, F.affine_grid(x[:, 0, :2, :3] * 0.3, [1, 3, 4, 5])),
            "bicubic grid_sample": lambda x: F.grid_sample(
                x, x[:, :2].permute(0, 2, 3, 1), mode="bicubic", padding_mode="border"
            ),
            "fold": lambda x: F.fold(F.unfold(x, 3, padding=1), (7, 9), 3, padding=1),
            "conv_transpose2d": layers(
                lambda s, x: s.b(s.a(x)),
                a=lambda: nn.ConvTranspose2d(3, 6, 3, 2, output_padding=1),
                b=lambda: nn.ConvTranspose2d(6, 6, 3, 3, output_padding=2, groups=3, dilation=2),
            ),
        },
        (IMAGE,),
    ),
    "sequences": Family(
        {
            "GRUCell": layers(lambda s, x: s.c(x[:, 0], x[:, 1, :6]), c=lambda: nn.GRUCell(7, 6)),
            "LSTMCell": layers(lambda s, x: s.c(x[:, 0]), c=lambda: nn.LSTMCell(7, 6)),
            "lstm": layers(lambda s, x: s.c(x)[0], c=lambda: nn.LSTM(7, 6, 2, batch_first=True, bidirectional=True)),
            "lstm twice": layers(lambda s, x: s.c(*s.c(x))[0], c=lambda: nn.LSTM(7, 7, batch_first=True)),
            "lstm with a projection": layers(lambda s, x: s.c(x)[0], c=lambda: nn.LSTM(7, 6, proj_size=3)),
            "gru": layers(lambda s, x: s.c(x)[0], c=lambda: nn.GRU(7, 6, batch_first=True)),
            "conv_transpose1d": layers(
                lambda s, x: s.b(s.a(x)),
                a=lambda: nn.ConvTranspose1d(6, 2, 5, 8, 4, output_padding=7),
                b=lambda: nn.ConvTranspose1d(2, 2, 3, 4, 2, output_padding=3),
            ),
        },
        (SEQUENCE,),
    ),
    "complex": Family(
        {
            "fft2": lambda x: torch.fft.fft2(x.reshape(3, 6)).real,
            "fft of fft": lambda x: torch.fft.fft(torch.fft.fft(x.reshape(3, 6), dim=-1), dim=-2).imag,
            "rfft2 and back": lambda x: torch.fft.irfft2(torch.fft.rfft2(x.reshape(3, 6)) * 2, s=(3, 6)),
            "product": lambda x: torch.view_as_real(
                torch.view_as_complex(x.reshape(9, 2)) * torch.view_as_complex(x.flip(0).reshape(9, 2))
            ),
            "rotation": lambda x: torch.view_as_real(
                torch.view_as_complex(x.reshape(3, 3, 2)) * torch.polar(x[:3].abs(), x[3:6])
            ).flatten(1),
            "einsum": lambda x: (
                torch.einsum(
                    "ij,jk->ik", torch.fft.rfft(x.reshape(3, 6)), torch.view_as_complex(x[:16].reshape(4, 2, 2))
                ).real
            ),
            "quotient": lambda x: (torch.fft.fft(x[:6]) / torch.view_as_complex(x[:12].reshape(6, 2))).imag,
            "conj": lambda x: (torch.fft.fft(x[:6]).conj() * torch.fft.fft(x[6:12])).imag,
            "exp": lambda x: torch.view_as_real(torch.exp(torch.complex(x[:6], x[6:12]))),
            "square": lambda x: torch.view_as_real(torch.complex(x[:6], x[6:12]).square()),
            "to": lambda x: torch.view_as_real(torch.fft.fft(x[:6]).to(torch.complex64) * x[:6].to(torch.complex64)),
            "written into zeros": written_spectrum,
        },
        (PAIRS,),
    ),
    "spectra": Family(
        {
            "istft": lambda x: torch.istft(
                torch.stft(x, 16, 4, window=torch.hann_window(16), return_complex=True) * 0.5,
                16,
                4,
                window=torch.hann_window(16),
                length=64,
            ),
        },
        (some(1, 64),),
    ),
    "flexible images": Family(
        {
            "bilinear to a size": lambda x: F.interpolate(
                F.max_pool2d(x, 2, ceil_mode=True), x.shape[2:], mode="bilinear"
            ),
            "corners": lambda x: F.interpolate(F.max_pool2d(x, 2), x.shape[2:], mode="bilinear", align_corners=True),
            "nearest to a size": lambda x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:]),
            "avg_pool over the end": lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True),
            "pools far apart": lambda x: (
                F.avg_pool2d(x, 2, 3, ceil_mode=True).sum((2, 3)) + F.max_pool2d(x, 2, 3, ceil_mode=True).sum((2, 3))
            ),
            "adaptive pools": lambda x: F.adaptive_avg_pool2d(x, (3, 4)) + F.adaptive_max_pool2d(x, (3, 4)),
            "bicubic to a size": lambda x: F.interpolate(F.max_pool2d(x, 2), x.shape[2:], mode="bicubic"),
            "bicubic to a fixed size": lambda x: F.interpolate(x, (5, 9), mode="bicubic", align_corners=True),
            "antialiased": lambda x: F.interpolate(x, (4, 9), mode="bilinear", antialias=True),
            "bicubic by a factor": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
            "addcmul": lambda x: torch.addcmul(x, x, x, value=2.5),
            "zeros_like of infinities": lambda x: torch.zeros_like(x / 0) + x,
            "var": lambda x: x.var((2, 3), correction=2),
        },
        (some(1, 3, 8, 10),),
        {0: {2: (6, 20), 3: (6, 20)}},
        (some(1, 3, 11, 13, seed=1),),
    ),
    "flexible signals": Family(
        {
            "pad from inside": lambda x: tuple(
                F.pad(x, (x.shape[-1] % 5, (-x.shape[-1]) % 7), mode=mode).cumsum(-1)[..., -3:]
                for mode in ("replicate", "reflect", "circular")
            ),
            "linspace": lambda x: x + torch.linspace(-1, 2, x.shape[-1]),
            "pad to a stride": lambda x: F.pad(x, (0, (-(x.shape[-1] - 8)) % 4)).sum(-1),
            "nearest": lambda x: F.interpolate(x[..., ::2], size=x.shape[2:]),
            "linear": lambda x: F.interpolate(x[..., ::2], size=x.shape[2:], mode="linear"),
            "spectrum and back": lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2, n=x.shape[-1]),
        },
        (some(1, 2, 20),),
        {0: {2: (16, 60)}},
        (some(1, 2, 27, seed=1),),
    ),
}
"""By what they are about."""
