"""Small charts as inline SVG: their colours are the page's CSS variables, so they follow light, dark and print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from tlkit.cli import _figures
from tlkit.cli._stream import clean

WIDTH, HEIGHT = 460, 150
_LEFT, _BOTTOM = 58, 22
_BINS = 48
_POINTS = 600

COLOURS = {"cpu": "--cpu", "gpu": "--gpu", "ane": "--ane", "all": "--all"}


def bars(values: Sequence[tuple[str, float, str]], width: float = 2 * WIDTH, name: str = "") -> str:
    """Horizontal bars from zero: (label, length, text at the end). ``name`` is a class for the page's style."""
    longest = max((length for _, length, _ in values), default=1.0) or 1.0
    label = min(width / 2, 7 * max((len(text) for text, _, _ in values), default=1) + 14)
    room = width - label - 80
    rows = []
    for index, (text, length, told) in enumerate(values):
        y, wide = 24 * index + 4, max(1.0, room * length / longest)
        rows.append(f'<text x="{label - 8:g}" y="{y + 13}" class="end">{_text(text)}</text>')
        rows.append(f'<rect x="{label:g}" y="{y}" width="{wide:.1f}" height="17" rx="2" class="bar"/>')
        rows.append(f'<text x="{label + wide + 6:.1f}" y="{y + 13}">{_text(told)}</text>')
    return _svg(width, 24 * len(values) + 6, "".join(rows), name)


def stacked(shares: Mapping[str, float]) -> str:
    """One bar cut by share (0..1), a colour for each unit."""
    x, parts = 0.0, []
    for unit, share in shares.items():
        width = WIDTH * share
        colour = f"var({COLOURS.get(unit, '--other')})"
        parts.append(f'<rect x="{x:.1f}" y="0" width="{width:.1f}" height="16" style="fill:{colour}"/>')
        if width > 70:
            told = f"{unit} {_figures.percent(share)}"
            parts.append(f'<text x="{x + 5:.1f}" y="12" class="on">{_text(told)}</text>')
        x += width
    return _svg(WIDTH, 16, "".join(parts))


def histogram(samples: Sequence[float], marks: Mapping[str, float]) -> str:
    """How the latencies (ns) are spread, up to the 99.5th percentile, with lines at ``marks``."""
    ordered = sorted(samples)
    low, high = ordered[0], max(ordered[min(len(ordered) - 1, int(0.995 * len(ordered)))], ordered[0] * 1.001)
    counts = [0] * _BINS
    beyond = 0
    for value in ordered:
        if value > high:
            beyond += 1
        else:
            counts[min(_BINS - 1, int((value - low) / (high - low) * _BINS))] += 1
    room, floor = WIDTH - _LEFT - 8, HEIGHT - _BOTTOM
    parts, step, most = [], room / _BINS, max(counts)
    for index, count in enumerate(counts):
        if count:
            tall = (floor - 14) * count / most
            x = _LEFT + index * step
            parts.append(
                f'<rect x="{x:.1f}" y="{floor - tall:.1f}" width="{step - 0.6:.1f}" height="{tall:.1f}" class="bar"/>'
            )
    for name, value in marks.items():
        if low <= value <= high:
            x = _LEFT + room * (value - low) / (high - low)
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="12" y2="{floor}" class="mark"/>')
            parts.append(f'<text x="{x + 3:.1f}" y="11" class="small">{_text(name)}</text>')
    parts += _axis(low, high, floor, room)
    if beyond:
        parts.append(f'<text x="{WIDTH - 4}" y="26" class="small end">{beyond} beyond</text>')
    return _svg(WIDTH, HEIGHT, "".join(parts))


def timeline(samples: Sequence[float]) -> str:
    """The latencies (ns) in the order they were taken; a long run is thinned, its extremes kept."""
    points = _thinned(samples)
    room, floor = WIDTH - _LEFT - 8, HEIGHT - _BOTTOM
    high = max(value for _, value in points) or 1.0
    last = max(1, len(samples) - 1)
    parts = []
    for index, value in points:
        x, y = _LEFT + room * index / last, floor - (floor - 10) * value / high
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6" class="dot"/>')
    for value in (0.0, high / 2, high):
        y = floor - (floor - 10) * value / high
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        told = "0" if not value else _figures.time(value)
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" class="small end">{told}</text>')
    parts.append(f'<text x="{_LEFT}" y="{HEIGHT - 6}" class="small">first sample</text>')
    parts.append(f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" class="small end">{len(samples)}th</text>')
    return _svg(WIDTH, HEIGHT, "".join(parts))


def _thinned(samples: Sequence[float]) -> list[tuple[int, float]]:
    if len(samples) <= _POINTS:
        return list(enumerate(samples))
    size = -(-len(samples) // (_POINTS // 2))
    found: list[tuple[int, float]] = []
    for start in range(0, len(samples), size):
        chunk = list(enumerate(samples[start : start + size], start))
        found += sorted({min(chunk, key=lambda point: point[1]), max(chunk, key=lambda point: point[1])})
    return found


def _axis(low: float, high: float, floor: float, room: float) -> list[str]:
    middle = (low + high) / 2
    ends = (("", 0.0, low), ("middle", 0.5, middle), ("end", 1.0, high))
    parts = [f'<line x1="{_LEFT}" x2="{_LEFT + room}" y1="{floor}" y2="{floor}" class="grid"/>']
    for kind, share, value in ends:
        x = _LEFT + room * share
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" class="small {kind}">{_figures.time(value)}</text>')
    return parts


def _svg(width: float, height: float, inside: str, name: str = "") -> str:
    style = f' class="{name}"' if name else ""
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img"{style}>{inside}</svg>'


def _text(value: str) -> str:
    return escape(clean(value))
