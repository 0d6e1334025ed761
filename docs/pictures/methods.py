"""Draw the figures of docs/methods: ``python docs/pictures/methods.py`` writes snp_s3.svg and cnvid.svg beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import comb, factorial, floor
from pathlib import Path

INK, LINE, PAPER = "#222222", "#666666", "#ffffff"
LOSS, SHARED, INPUT, HEAD, HARD = "#f3d9c4", "#cfdff0", "#eeeeee", "#dcebd9", "#d9793b"


class Drawing:
    """Boxes, lines and words on a white sheet."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._size, self._parts = (width, height), [f"<title>{escape(title)}</title>"]
        self._parts.append(f'<rect width="{width}" height="{height}" fill="{PAPER}"/>')

    def words(
        self, x: float, y: float, text: str, *, anchor: str = "middle", size: int = 13, bold: bool = False
    ) -> None:
        weight = ' font-weight="bold"' if bold else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{weight}>{escape(text)}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, *lines: str, fill: str, bold: bool = False) -> None:
        """The first line in bold if ``bold``, the others small."""
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="{fill}" stroke="{LINE}"/>'
        )
        top = y + height / 2 + 5 - 8 * (len(lines) - 1)
        for number, line in enumerate(lines):
            self.words(
                x + width / 2, top + 16 * number, line, size=13 if number == 0 else 11, bold=bold and number == 0
            )

    def line(self, *points: tuple[float, float], arrow: bool = True, dashed: bool = False, colour: str = LINE) -> None:
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        ends = ' marker-end="url(#end)"' if arrow else ""
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="1.5"{ends}{dashes}/>')

    def cell(self, x: float, y: float, side: float, fill: str) -> None:
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{side}" height="{side}" fill="{fill}" stroke="{PAPER}"/>'
        )

    def write(self, path: Path) -> None:
        width, height = self._size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'font-family="sans-serif" fill="{INK}">\n<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" '
            f'markerWidth="7" markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/></marker></defs>'
        )
        path.write_text("\n".join([head, *self._parts, "</svg>\n"]), encoding="utf-8")


def snp_s3() -> Drawing:
    """What is encoded, by what, and which loss reads what."""
    page = Drawing(960, 440, "SNP-S3: one network reads texts alone and texts with clips")
    columns = {"video": 120, "raw": 330, "masked": 540, "fused": 790}
    inputs = {
        "video": ("C clips", "of frames"),
        "raw": ("text", "a man plays the guitar"),
        "masked": ("masked text (MSSM)", "a [MASK] plays the guitar"),
        "fused": ("masked text + clips + [SEP]", "in half of the texts masked by attention"),
    }
    heads = {
        "video": ("clip vectors, video vector", "two linear layers, length 1"),
        "raw": ("text vector, word states", "pooler, length 1"),
        "masked": ("word states", "words' head, tied"),
        "fused": ("word states, state of [CLS]", "words' head; a pooler of its own"),
    }
    for name, x in columns.items():
        half = 115 if name == "fused" else 90
        page.box(x - half, 340, 2 * half, 44, *inputs[name], fill=INPUT)
        page.line((x, 340), (x, 274))
        page.line((x, 214), (x, 174))
        page.box(x - half, 130, 2 * half, 44, *heads[name], fill=HEAD)
    page.box(30, 214, 180, 60, "vision encoder", "VideoSwin, PVT, ResNet ...", fill=INPUT, bold=True)
    page.box(240, 214, 665, 60, "one BERT: embeddings and all layers", fill=SHARED, bold=True)
    page.words(572, 266, "SNP: the same weights three times; P3E: the right one is a network of its own", size=11)
    page.line((165, 214), (165, 196), (224, 196), (224, 410), (790, 410), (790, 384))
    page.words(
        500,
        426,
        "clip tokens of the own video (mlm, gvtm, match) and of the others of its group (gvtm, match)",
        size=11,
    )
    losses = {
        "contrast": (110, 110, "L1"),
        "lvwm": (260, 110, "3 words x C clips"),
        "mlm_text": (540, 110, "text alone"),
        "mlm": (690, 90, "text and video"),
        "gvtm": (800, 90, "pair or not"),
        "match": (905, 90, "L2"),
    }
    for name, (x, width, note) in losses.items():
        page.box(x - width / 2, 30, width, 44, name, note, fill=LOSS, bold=True)
    for start, end in ((90, 100), (150, 225), (290, 130), (330, 275), (540, 540), (740, 690), (800, 800), (850, 895)):
        page.line((start, 130), (end, 74))
    return page


def cnvid() -> Drawing:
    """Which videos a text is compared with, how often they are hard ones, and how much a pair counts."""
    page = Drawing(960, 330, "HSCL: hard videos in a growing share of steps")
    page.words(20, 26, "which videos a text is read with", anchor="start", bold=True)
    similarity = (0.31, 0.52, 0.12, 0.66, 0.28, 0.60, 0.20, 0.81, 0.40, 0.55, 0.05, 0.35)
    own, size = 5, 4
    others = [video for video in range(len(similarity)) if video != own]
    chosen = {
        "a step of groups: 4 neighbours": [4, 5, 6, 7],
        "hard, nearest: |s - s own| least": sorted(others, key=lambda v: abs(similarity[v] - similarity[own]))[
            : size - 1
        ],
        "hard, top_k: s largest": sorted(others, key=lambda v: -similarity[v])[: size - 1],
    }
    for row, (name, videos) in enumerate(chosen.items()):
        y = 62 + 72 * row
        page.words(20, y - 6, name, anchor="start", size=11)
        for video, value in enumerate(similarity):
            fill = SHARED if video == own else "#f0c6a8" if video in videos else INPUT
            page.cell(20 + 26 * video, y, 26, fill)
            page.words(33 + 26 * video, y + 17, f"{value:.2f}"[1:], size=10)
    page.words(20, 268, "similarity (L1) of text 5 to each of 12 videos of the batch;", anchor="start", size=11)
    page.words(20, 284, "blue: its own, orange: compared with", anchor="start", size=11)
    rate = [min(floor(t / 5) * 0.15, 1.0) for t in range(41)]
    page.words(380, 26, "share of steps with hard videos", anchor="start", bold=True)
    _plot(
        page, 400, 60, [lambda t: rate[floor(t)], lambda t: _mean_below(rate[floor(t)])], (0, 40), ("0", "40,000 steps")
    )
    page.words(380, 284, "line: draw single; dashed: averaged (release)", anchor="start", size=11)
    page.words(690, 26, "weight of a pair in match", anchor="start", bold=True)
    mean, least = 0.45, 0.2
    weight: Callable[[float], float] = lambda d: 1.0 if d <= mean else max((mean - least) / (d - least), 0.2)  # noqa: E731
    _plot(page, 710, 60, [weight], (least, 1.0), ("0.2", "1.0"))
    page.words(710, 284, "by its similarity; least 0.2, mean 0.45", anchor="start", size=11)
    return page


def _mean_below(share: float, num: int = 8) -> float:
    """The probability that the mean of ``num`` uniform draws is below ``share`` (Irwin and Hall)."""
    x = num * share
    return sum((-1) ** k * comb(num, k) * (x - k) ** num for k in range(floor(x) + 1) if x > k) / factorial(num)


def _plot(
    page: Drawing,
    x: float,
    y: float,
    curves: Sequence[Callable[[float], float]],
    ends: tuple[float, float],
    labels: tuple[str, str],
) -> None:
    """Curves between 0 and 1, the second one dashed."""
    width, height, steps = 220, 170, 400
    page.line((x, y), (x, y + height), (x + width, y + height), arrow=False)
    for value, words in ((1.0, "1"), (0.5, "0.5"), (0.0, "0")):
        page.words(x - 5, y + height * (1 - value) + 4, words, anchor="end", size=10)
    page.words(x, y + height + 16, labels[0], size=10)
    page.words(x + width, y + height + 16, labels[1], size=10)
    for number, curve in enumerate(curves):
        points = []
        for step in range(steps + 1):
            at = ends[0] + (ends[1] - ends[0]) * step / steps
            points.append((x + width * step / steps, y + height * (1 - curve(at))))
        page.line(*points, arrow=False, dashed=number > 0, colour=HARD if number == 0 else LINE)


if __name__ == "__main__":
    for draw in (snp_s3, cnvid):
        draw().write(Path(__file__).with_name(f"{draw.__name__}.svg"))
