"""Small charts as inline SVG: their colours are the page's CSS variables, so they follow light, dark and print."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from html import escape

from tlkit.cli.sink import figures
from tlkit.cli.sink.stream import clean

WIDTH, HEIGHT = 460, 150
_LEFT, _BOTTOM = 70, 22
_BINS = 48
_POINTS = 600


def curve(points: Sequence[tuple[float, float, str]], titles: tuple[str, str], marked: int = -1) -> str:
    """Points (x, y, name) over both axes, those without a name joined by a line; ``marked`` is one to point out.

    ``titles`` say what the axes are.
    """
    width, height, left, bottom = float(WIDTH), 2.0 * HEIGHT, 64.0, 40.0
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
    across, up = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        room = width - left - 90, height - bottom - 24
        return left + room[0] * (x - min(xs)) / across, height - bottom - room[1] * (y - min(ys)) / up

    line = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y, name in sorted(points) if not name)
    parts = [f'<polyline points="{line}" fill="none" stroke="currentColor" opacity="0.4"/>']
    for index, (x, y, name) in enumerate(points):
        at_x, at_y = place(x, y)
        size = 6 if index == marked else 3.5
        parts.append(f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="{size}" class="{"bar" if not name else "other"}"/>')
        told = f"chosen{f' ({name})' if name else ''}" if index == marked else name
        parts.append(f'<text x="{at_x + 8:.1f}" y="{at_y + 4:.1f}">{_text(told)}</text>' if told else "")
    for value in (min(xs), max(xs)):
        parts.append(f'<text x="{place(value, min(ys))[0]:.1f}" y="{height - 22:.0f}">{value:.3g}</text>')
    for value in (min(ys), max(ys)):
        parts.append(f'<text x="{left - 8:.0f}" y="{place(min(xs), value)[1] + 4:.1f}" class="end">{value:.3g}</text>')
    parts.append(f'<text x="{left:.0f}" y="{height - 6:.0f}">{_text(titles[0])}</text>')
    parts.append(f'<text x="4" y="12">{_text(titles[1])}</text>')
    return _svg(width, height, "".join(parts))


def histogram(samples: Sequence[float], marks: Mapping[str, float]) -> str:
    """The distribution of latencies (ns), with lines at ``marks``; rare outliers are counted, not drawn."""
    ordered = sorted(samples)
    # Equal samples, too, need a width to divide by.
    low, high = ordered[0], max(_reach(ordered), ordered[0] * 1.001)
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
    parts += _marked({name: (value - low) / (high - low) for name, value in marks.items()}, floor, room)
    parts += _axis(low, high, floor, room)
    if beyond:
        told = f"{beyond} beyond, up to {figures.time(ordered[-1])}"
        parts.append(f'<text x="{WIDTH - 4}" y="26" class="small end">{told}</text>')
    return _svg(WIDTH, HEIGHT, "".join(parts))


def timeline(samples: Sequence[float]) -> str:
    """The latencies (ns) in the order they were taken; a long run is thinned, its extremes kept."""
    points = _thinned(samples)
    room, floor = WIDTH - _LEFT - 8, HEIGHT - _BOTTOM
    high = _reach(sorted(samples)) or 1.0
    last = max(1, len(samples) - 1)
    parts = []
    for index, value in points:
        x, y = _LEFT + room * index / last, floor - (floor - 10) * min(1.0, value / high)
        if value <= high:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6" class="dot"/>')
        else:
            # A small triangle at the top, beyond the scale.
            parts.append(f'<path d="M{x - 2.5:.1f} 10h5l-2.5 -5z" class="far"/>')
    if high < (most := max(samples)):
        beyond = sum(value > high for value in samples)
        told = f"{beyond} beyond, up to {figures.time(most)}"
        parts.append(f'<text x="{WIDTH - 8}" y="24" class="small end">{told}</text>')
    for value in (0.0, high / 2, high):
        y = floor - (floor - 10) * value / high
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        told = "0" if not value else figures.time(value)
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" class="small end">{told}</text>')
    parts.append(f'<text x="{_LEFT}" y="{HEIGHT - 6}" class="small">first sample</text>')
    parts.append(f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" class="small end">{len(samples)}th</text>')
    return _svg(WIDTH, HEIGHT, "".join(parts))


def _reach(ordered: Sequence[float]) -> float:
    """Return the largest sample to draw to scale: hiccups far from the rest, at most one in twenty, flatten all."""
    quarter, fence = len(ordered) // 4, ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)))]
    low, high = ordered[quarter], ordered[-1 - quarter]
    return ordered[bisect_right(ordered, max(fence, high + 6 * (high - low), 2 * high)) - 1]


def _marked(marks: Mapping[str, float], floor: float, room: float) -> list[str]:
    """Lines at shares of the width, their names beside them: one line further down where two would meet."""
    parts, before, y = [], -math.inf, 11
    for name, share in sorted(marks.items(), key=lambda mark: mark[1]):
        if not 0 <= share <= 1:
            continue
        x = _LEFT + room * share
        y = 22 if x < before + 58 and y == 11 else 11
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="12" y2="{floor}" class="mark"/>')
        parts.append(f'<text x="{x + 3:.1f}" y="{y}" class="small">{_text(name)}</text>')
        before = x
    return parts


def _thinned(samples: Sequence[float]) -> list[tuple[int, float]]:
    if len(samples) <= _POINTS:
        return list(enumerate(samples))
    # Each piece gives two points, its lowest and its highest.
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
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" class="small {kind}">{figures.time(value)}</text>')
    return parts


def _svg(width: float, height: float, inside: str) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img">{inside}</svg>'


def _text(value: str) -> str:
    return escape(clean(value))
