"""Questions about a scene with their answers, and choices of which one is right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from antmmf_tasks.datasets.shapes.language import (
    COLOUR_NAMES,
    MOTION_NAMES,
    NUMBERS,
    SHAPE_NAMES,
    Language,
    captions,
    motion,
    name,
)
from antmmf_tasks.datasets.shapes.world import COLOURS, EVENTS, MOTIONS, SHAPES, Scene, Thing

NUM_OPTIONS = 4


@dataclass(frozen=True, slots=True)
class Question:
    """``kind``: colour, shape, motion, count, order, before or caption; ``options`` hold the answer, or nothing."""

    kind: str
    question: str
    answer: str
    options: tuple[str, ...] = ()


def questions(scene: Scene, *, language: Language) -> list[Question]:
    """Questions with exactly one right answer; what twins are asked about time has opposite answers."""
    found = [*_about_things(scene, language=language)]
    count = NUMBERS[language][len(scene.things) - 1]
    count_question = "how many shapes are there?" if language == "en" else "画面中有几个图形？"
    found.append(Question("count", count_question, count))
    if scene.kind == "order":
        found.extend(_about_time(scene, language=language))
    return found


def choices(scene: Scene, *, language: Language) -> list[Question]:
    """Questions with ``NUM_OPTIONS`` options each; the first is about the whole clip, with captions to choose from.

    One false caption of an order clip is its own with the events reversed.
    """
    rng = np.random.default_rng([scene.background_seed, 1])  # the same options in every language
    found = [_caption_choice(scene, language=language, rng=rng)]
    pools = {
        "colour": [COLOUR_NAMES[language][c] for c in COLOURS],
        "shape": [SHAPE_NAMES[language][s] for s in SHAPES],
        "motion": [MOTION_NAMES[language][m] for m in MOTIONS],
        "count": list(NUMBERS[language]),
        "order": [COLOUR_NAMES[language][c] for c in COLOURS],
    }
    for question in questions(scene, language=language):
        if question.kind not in pools:
            continue
        shown = {COLOUR_NAMES[language][thing.colour] for thing in scene.things} if question.kind == "order" else set()
        others = [other for other in pools[question.kind] if other != question.answer]
        near = [other for other in others if other in shown]
        rest = _mixed([other for other in others if other not in near], rng=rng)
        wrong = [*near, *rest][: NUM_OPTIONS - 1]
        found.append(replace(question, options=_mixed([question.answer, *wrong], rng=rng)))
    return found


def _about_things(scene: Scene, *, language: Language) -> Iterator[Question]:
    """Each thing is named by two of its attributes, and asked for the third."""
    the = "each" if scene.kind == "group" and len(scene.things) > 1 else "the"
    for thing in scene.things[:1] if scene.kind == "group" else scene.things:
        others = [other for other in scene.things if other.combination != thing.combination]
        colour, shape = COLOUR_NAMES[language][thing.colour], SHAPE_NAMES[language][thing.shape]
        does = motion(thing, language=language)
        if all(other.shape != thing.shape for other in others):
            question = f"what colour is {the} {shape}?" if language == "en" else f"{shape}是什么颜色的？"
            yield Question("colour", question, colour)
        question = f"what shape is {colour}?" if language == "en" else f"{colour}的是什么形状？"
        yield Question("shape", question, shape)
        what = name(thing, language=language)
        question = f"what does {the} {what} do?" if language == "en" else f"{what}在做什么？"
        yield Question("motion", question, does)


def _about_time(scene: Scene, *, language: Language) -> Iterator[Question]:
    for position, thing in enumerate(scene.things):
        word = (("first", "last") if language == "en" else ("先", "后"))[position]
        question = f"what colour is the shape that acts {word}?" if language == "en" else f"{word}动的图形是什么颜色？"
        yield Question("order", question, COLOUR_NAMES[language][thing.colour])
    asked: Sequence[Thing] = sorted(scene.things, key=lambda thing: thing.combination)  # the same for both twins
    yes = asked[0] == scene.things[0]
    a, b = (name(thing, language=language) for thing in asked)
    does_a, does_b = (motion(thing, language=language) for thing in asked)
    if language == "en":
        do_a = does_a.removesuffix("s")
        yield Question("before", f"does the {a} {do_a} before the {b} {does_b}?", "yes" if yes else "no")
        return
    yield Question("before", f"{a}{does_a}是在{b}{does_b}之前吗？", "是" if yes else "否")


def _caption_choice(scene: Scene, *, language: Language, rng: np.random.Generator) -> Question:
    """Which caption is right: the others differ in one attribute, or in nothing but the order of the events."""
    wrong: list[Scene] = []
    if scene.kind == "order":
        wrong.append(replace(scene, things=scene.things[::-1]))
    meanings = {scene.meaning(), *(other.meaning() for other in wrong)}
    while len(wrong) < NUM_OPTIONS - 1:
        other = _with_one_change(scene, rng=rng)
        still_differ = len({thing.colour for thing in other.things}) == len({thing.colour for thing in scene.things})
        if still_differ and other.meaning() not in meanings:
            meanings.add(other.meaning())
            wrong.append(other)
    texts = [captions(each, language=language)[scene.phrasing] for each in (scene, *wrong)]
    question = "what happens in the video?" if language == "en" else "视频里发生了什么？"
    return Question("caption", question, texts[0], _mixed(texts, rng=rng))


def _with_one_change(scene: Scene, *, rng: np.random.Generator) -> Scene:
    """The scene with one attribute of one thing changed (in a group, of all: they stay equal)."""
    which = int(rng.integers(len(scene.things)))
    attribute = ("colour", "shape", "motion")[int(rng.integers(2 if scene.kind == "swap" else 3))]
    motions = EVENTS if scene.kind == "order" else MOTIONS[:-1]
    pool = {"colour": COLOURS, "shape": SHAPES, "motion": motions}[attribute]
    value = pool[int(rng.integers(len(pool)))]
    changes = {attribute: value}
    things = tuple(
        replace(thing, **changes) if scene.kind == "group" or i == which else thing  # type: ignore[arg-type]
        for i, thing in enumerate(scene.things)
    )
    return replace(scene, things=things)


def _mixed(options: Sequence[str], *, rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(options[int(i)] for i in rng.permutation(len(options)))
