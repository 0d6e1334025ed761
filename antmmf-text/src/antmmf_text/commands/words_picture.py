"""Words and their counts as horizontal bars, in one SVG file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

_ROW, _TOP, _PANEL, _MARGIN, _LABEL, _BAR = 22, 84, 360, 24, 120, 160
_COLOURS = ("#3b6ea5", "#b5651d", "#4f7f52")


def draw(columns: Mapping[str, Sequence[tuple[str, int]]], *, title: str) -> str:
    """A panel for each heading, its words with bars that are as long as their counts; the longest ones are equal."""
    width = 2 * _MARGIN + _PANEL * len(columns)
    height = _TOP + _ROW * max(map(len, columns.values())) + _MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        """font-family="'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif" font-size="13">""",
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_MARGIN}" y="34" font-size="18" fill="#222222">{escape(title)}</text>',
    ]
    for number, (heading, words) in enumerate(columns.items()):
        lines += _panel(heading, words, x=_MARGIN + number * _PANEL, colour=_COLOURS[number % len(_COLOURS)])
    return "\n".join([*lines, "</svg>\n"])


def _panel(heading: str, words: Sequence[tuple[str, int]], *, x: int, colour: str) -> Iterator[str]:
    start = x + _LABEL
    yield f'<text x="{start}" y="{_TOP - 16}" font-weight="bold" fill="{colour}">{escape(heading)}</text>'
    for row, (word, count) in enumerate(words):
        y, length = _TOP + row * _ROW, _BAR * count / words[0][1]
        yield f'<text x="{start - 8}" y="{y + 13}" text-anchor="end" fill="#222222">{escape(word)}</text>'
        yield f'<rect x="{start}" y="{y + 2}" width="{length:.1f}" height="{_ROW - 8}" fill="{colour}"/>'
        yield f'<text x="{start + length + 6:.1f}" y="{y + 13}" font-size="11" fill="#666666">{count:,}</text>'
