"""Plots as inline SVG: no library, no script; colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 480, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 90, 12, 40
_X0, _X1, _Y0, _Y1 = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, _TOP
_BAR = 24
_COLOURS = 6  # in page.css


def curves(lines: Mapping[str, Sequence[tuple[int, float]]], *, title: str, x_label: str) -> str:
    """Percentages over whole numbers on a logarithmic axis; each line has its name at its end."""
    most = max(x for points in lines.values() for x, _ in points)

    def place(x: int, y: float) -> tuple[float, float]:
        return _X0 + (_X1 - _X0) * math.log(x) / math.log(max(most, 2)), _Y0 + (_Y1 - _Y0) * y / 100

    parts = [_percent_axis()]
    for x in sorted({x for points in lines.values() for x, _ in points}):
        at = place(x, 0)[0]
        parts.append(f'<text x="{at:.1f}" y="{_Y0 + 16}" text-anchor="middle">{x}</text>')
    ends = _apart([place(*points[-1])[1] for points in lines.values()])
    for number, (name, points) in enumerate(lines.items()):
        placed = [place(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        dots = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(name)} R@{k}: {value:.1f}</title></circle>'
            for (x, y), (k, value) in zip(placed, points, strict=True)
        )
        label = f'<text x="{_X1 + 8}" y="{ends[number] + 4:.1f}">{escape(name)}</text>'
        parts.append(f'<g class="line s{number % _COLOURS}"><polyline points="{path}"/>{dots}{label}</g>')
    parts.append(f'<text x="{(_X0 + _X1) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    return _svg(parts, _HEIGHT, title)


def histogram(shares: Mapping[str, Mapping[str, float]], *, title: str, x_label: str) -> str:
    """Percentages of each bin, bars of all series side by side; ``shares`` is series -> bin -> percent."""
    bins = list(next(iter(shares.values())))
    parts, step = [_percent_axis()], (_X1 - _X0) / len(bins)
    width = 0.8 * step / len(shares)
    for number, (name, of_bin) in enumerate(shares.items()):
        bars = []
        for place, label in enumerate(bins):
            height = (_Y0 - _Y1) * of_bin[label] / 100
            x = _X0 + place * step + 0.1 * step + number * width
            said = f"<title>{escape(name)}, {escape(label)}: {of_bin[label]:.1f} %</title>"
            bars.append(
                f'<rect x="{x:.1f}" y="{_Y0 - height:.1f}" width="{width:.1f}" height="{height:.1f}">{said}</rect>'
            )
        legend = f'<text x="{_X1 + 20}" y="{_Y1 + 14 + 18 * number}">{escape(name)}</text>'
        swatch = f'<rect x="{_X1 + 6}" y="{_Y1 + 5 + 18 * number}" width="10" height="10"/>'
        parts.append(f'<g class="bar s{number % _COLOURS}">{"".join(bars)}{swatch}{legend}</g>')
    for place, label in enumerate(bins):
        x = _X0 + (place + 0.5) * step
        parts.append(f'<text x="{x:.1f}" y="{_Y0 + 16}" text-anchor="middle">{escape(label)}</text>')
    parts.append(f'<text x="{(_X0 + _X1) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    return _svg(parts, _HEIGHT, title)


def intervals(values: Mapping[str, tuple[float, float | None, float | None]], *, title: str) -> str:
    """A bar from 0 to each percentage, with its interval as a whisker."""
    left, height, parts = 90, _BAR * len(values) + 30, []
    right = _WIDTH - 60
    for mark in range(0, 101, 25):
        x = left + (right - left) * mark / 100
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 22}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{mark}</text>')
    for number, (name, (value, low, high)) in enumerate(values.items()):
        y = 6 + _BAR * number
        width = (right - left) * value / 100
        parts.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<g class="bar s0"><rect x="{left}" y="{y + 3}" width="{width:.1f}" height="{_BAR - 8}"/></g>')
        if low is not None and high is not None:
            ends = [left + (right - left) * end / 100 for end in (low, high)]
            middle = y + 3 + (_BAR - 8) / 2
            parts.append(f'<line class="whisker" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{middle}" y2="{middle}"/>')
        parts.append(f'<text x="{right + 8}" y="{y + 14}">{value:.1f}</text>')
    return _svg(parts, height, title)


def _apart(places: Sequence[float], least: float = 14) -> list[float]:
    """The same places, moved down where they are nearer than ``least``."""
    found = [0.0] * len(places)
    last = -math.inf
    for number in sorted(range(len(places)), key=places.__getitem__):
        last = found[number] = max(places[number], last + least)
    return found


def _percent_axis() -> str:
    lines = []
    for mark in range(0, 101, 25):
        y = _Y0 + (_Y1 - _Y0) * mark / 100
        lines.append(f'<line class="grid" x1="{_X0}" x2="{_X1}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{_X0 - 6}" y="{y + 4:.1f}" text-anchor="end">{mark} %</text>')
    return "".join(lines)


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    said = escape(title)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{said}"><title>{said}</title>'
        f"{''.join(parts)}</svg>"
    )
