"""What is said about a scene, in English and Chinese: captions, false captions, transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from antmmf_tasks.datasets.shapes.world import Scene, Thing

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

NUMBERS = {"en": ("one", "two", "three", "four"), "zh": ("一个", "两个", "三个", "四个")}
COLOUR_NAMES = {
    "en": {name: name for name in ("red", "green", "blue", "yellow", "purple", "cyan", "orange", "white")},
    "zh": {
        "red": "红色",
        "green": "绿色",
        "blue": "蓝色",
        "yellow": "黄色",
        "purple": "紫色",
        "cyan": "青色",
        "orange": "橙色",
        "white": "白色",
    },
}
SHAPE_NAMES = {
    "en": {name: name for name in ("circle", "square", "triangle", "star", "cross", "moon")},
    "zh": {
        "circle": "圆形",
        "square": "方形",
        "triangle": "三角形",
        "star": "星形",
        "cross": "十字形",
        "moon": "月牙形",
    },
}
MOTION_NAMES = {
    "en": {
        "left": "moves left",
        "right": "moves right",
        "up": "moves up",
        "down": "moves down",
        "spin": "spins",
        "grow": "grows",
        "shrink": "shrinks",
        "blink": "blinks",
        "jump": "jumps",
        "shake": "shakes",
        "swap": "swaps places",
    },
    "zh": {
        "left": "向左移动",
        "right": "向右移动",
        "up": "向上移动",
        "down": "向下移动",
        "spin": "旋转",
        "grow": "变大",
        "shrink": "变小",
        "blink": "闪烁",
        "jump": "跳起",
        "shake": "晃动",
        "swap": "互换位置",
    },
}


def captions(scene: Scene, *, language: Language) -> tuple[str, ...]:
    """Every phrasing of what the scene shows, always in the same order; 20 words at most."""
    return (_english if language == "en" else _chinese)(scene)


def reversed_captions(scene: Scene, *, language: Language) -> tuple[str, ...]:
    """The captions of an order clip with its two events the other way round, phrasing by phrasing; else none."""
    if scene.kind != "order":
        return ()
    return captions(replace(scene, things=scene.things[::-1]), language=language)


def transcript(scene: Scene, *, language: Language, seconds: float) -> list[tuple[float, float, str]]:
    """(start, end, sentence) of what a speaker says; each sentence is true of its time."""
    first = scene.things[0]
    if scene.kind == "order":
        half = seconds / 2
        return [
            (i * half, (i + 1) * half, _now(_the(thing, language=language), thing, language=language))
            for i, thing in enumerate(scene.things)
        ]
    if scene.kind in ("group", "swap"):
        caption = captions(scene, language=language)[0]
        return [(0.0, seconds, f"now {caption}" if language == "en" else f"现在{caption}")]
    second = scene.things[1]
    return [
        (0.0, seconds / 2, _now(_the(first, language=language), first, language=language)),
        (seconds / 2, seconds, _now(_the(second, language=language), second, language=language)),
    ]


def name(thing: Thing, *, language: Language) -> str:
    """``red circle``, without an article."""
    colour, shape = COLOUR_NAMES[language][thing.colour], SHAPE_NAMES[language][thing.shape]
    return f"{colour} {shape}" if language == "en" else colour + shape


def motion(thing: Thing, *, language: Language) -> str:
    """``moves left``, as one thing does it."""
    return MOTION_NAMES[language][thing.motion]


def _now(who: str, thing: Thing, *, language: Language) -> str:
    verb = motion(thing, language=language)
    return f"now {who} {verb}" if language == "en" else f"现在{who}{verb}"


def _the(thing: Thing, *, language: Language) -> str:
    return f"the {name(thing, language='en')}" if language == "en" else name(thing, language="zh")


def _a(thing: Thing) -> str:
    words = name(thing, language="en")
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _english(scene: Scene) -> tuple[str, ...]:
    if scene.kind == "group":
        return _english_group(scene.things)
    one, two = scene.things
    if scene.kind == "pair":
        return tuple(text for a, b in ((one, two), (two, one)) for text in _english_pair(a, b))
    if scene.kind == "swap":
        return tuple(
            text
            for a, b in ((_a(one), _a(two)), (_a(two), _a(one)))
            for text in (
                f"{a} and {b} swap places",
                f"{a} and {b} cross each other and swap places",
                f"{a} swaps places with {b}",
            )
        )
    first, then = (f"the {name(t, language='en')} {motion(t, language='en')}" for t in (one, two))
    return (
        f"{first}, then {then}",
        f"first {first}, and after that {then}",
        f"{first} before {then}",
        f"after {first}, {then}",
    )


def _english_pair(a: Thing, b: Thing) -> tuple[str, ...]:
    does_a, does_b = motion(a, language="en"), motion(b, language="en")
    return (
        f"{_a(a)} {does_a} and {_a(b)} {does_b}",
        f"{_a(a)} {does_a} while {_a(b)} {does_b}",
        f"there is {_a(a)} that {does_a} and {_a(b)} that {does_b}",
    )


def _english_group(things: Sequence[Thing]) -> tuple[str, ...]:
    number, what, does = (
        NUMBERS["en"][len(things) - 1],
        name(things[0], language="en"),
        motion(things[0], language="en"),
    )
    if len(things) == 1:
        return f"one {what} {does}", f"there is one {what} that {does}", f"a video of one {what} that {does}"
    verb, *rest = does.split()
    do = " ".join([verb.removesuffix("s"), *rest])
    return (
        f"{number} {what}s {do}".replace("crosss", "crosses"),
        f"there are {number} {what}s that {do}".replace("crosss", "crosses"),
        f"a video of {number} {what}s that {do}".replace("crosss", "crosses"),
    )


def _chinese(scene: Scene) -> tuple[str, ...]:
    if scene.kind == "group":
        number, what = NUMBERS["zh"][len(scene.things) - 1], name(scene.things[0], language="zh")
        does = motion(scene.things[0], language="zh")
        return f"{number}{what}{does}", f"画面中有{number}{what}在{does}", f"视频里{number}{what}正在{does}"
    one, two = scene.things
    if scene.kind == "pair":
        return tuple(text for a, b in ((one, two), (two, one)) for text in _chinese_pair(a, b))
    a, b = name(one, language="zh"), name(two, language="zh")
    if scene.kind == "swap":
        return tuple(
            text
            for x, y in ((a, b), (b, a))
            for text in (f"{x}和{y}互换位置", f"{x}和{y}交叉而过并互换位置", f"{x}与{y}交换了位置")
        )
    does_a, does_b = motion(one, language="zh"), motion(two, language="zh")
    return (
        f"{a}{does_a}，然后{b}{does_b}",
        f"先是{a}{does_a}，接着{b}{does_b}",
        f"{a}先{does_a}，{b}再{does_b}",
        f"在{a}{does_a}之后，{b}{does_b}",
    )


def _chinese_pair(a: Thing, b: Thing) -> tuple[str, ...]:
    what_a, what_b = name(a, language="zh"), name(b, language="zh")
    does_a, does_b = motion(a, language="zh"), motion(b, language="zh")
    return (
        f"一个{what_a}{does_a}，一个{what_b}{does_b}",
        f"{what_a}{does_a}，同时{what_b}{does_b}",
        f"画面中有一个{what_a}在{does_a}，还有一个{what_b}在{does_b}",
    )
