"""The world of `shapes`: what a clip can show, and which combinations are kept out of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from antmmf.contracts import Json
from antmmf.errors import ConfigError

WORLD_VERSION = 1
"""Part of the cache's name: raise it when the same parameters would give other clips or other texts."""

Split = Literal["train", "val", "test"]
Kind = Literal["group", "pair", "swap", "order"]

COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan", "orange", "white")
SHAPES = ("circle", "square", "triangle", "star", "cross", "moon")
MOVES = ("left", "right", "up", "down")
EVENTS = ("spin", "grow", "shrink", "blink", "jump", "shake")
MOTIONS = (*MOVES, *EVENTS, "swap")
BACKGROUNDS = ("noise", "stripes", "gradient", "checker", "dots")
NUM_PHRASINGS: Mapping[Kind, int] = {"group": 3, "pair": 6, "swap": 6, "order": 4}

_HOLD_OUT_MODULUS = 6
_HELD_OUT: Mapping[int, Split] = {0: "test", 1: "val"}
_ORDER_SHARE: Mapping[Split, float] = {"train": 0.4, "val": 0.5, "test": 0.5}
_GROUP_SHARE, _SWAP_SHARE = 0.30, 0.05  # of the clips that are not order clips; the rest are pairs
_LAYOUTS: Mapping[int, tuple[tuple[float, float], ...]] = {
    1: ((0.50, 0.50),),
    2: ((0.31, 0.31), (0.69, 0.69)),
    3: ((0.26, 0.28), (0.74, 0.28), (0.50, 0.73)),
    4: ((0.26, 0.26), (0.74, 0.26), (0.26, 0.74), (0.74, 0.74)),
}
_RADIUS: Mapping[int, float] = {1: 0.19, 2: 0.17, 3: 0.14, 4: 0.13}
_JITTER: Mapping[int, float] = {1: 0.08, 2: 0.03, 3: 0.02, 4: 0.02}


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape on the screen; ``x``, ``y`` (centre, y downwards) and ``radius`` as fractions of the picture.

    ``travel`` is how far it moves to either side of its centre. ``windows`` are the halves of the clip (0, 1) in
    which its event takes place; a move takes the whole clip.
    """

    colour: str
    shape: str
    motion: str
    x: float
    y: float
    radius: float
    travel: float
    windows: tuple[int, ...] = (0, 1)

    @property
    def combination(self) -> tuple[str, str, str]:
        """What is held out: colour, shape and motion together."""
        return self.colour, self.shape, self.motion


@dataclass(frozen=True, slots=True)
class Scene:
    """One clip. ``things`` are in the order of the caption; in an order clip, in the order in which they act.

    ``phrasing`` chooses the one caption of an evaluation; ``twin`` is the key of the clip with the events reversed.
    """

    key: str
    kind: Kind
    things: tuple[Thing, ...]
    background: str
    background_seed: int
    phrasing: int
    twin: str | None = None

    def meaning(self) -> tuple[str, ...]:
        """What the clip shows, without places and backgrounds: scenes of equal meaning have equal captions."""
        parts = [" ".join(thing.combination) for thing in self.things]
        return (self.kind, *(parts if self.kind == "order" else sorted(parts)))

    def to_json(self) -> dict[str, Json]:
        """Plain values, read back by ``scene_from_json``."""
        return asdict(self)


def scene_from_json(values: Mapping[str, Json]) -> Scene:
    """The scene that ``Scene.to_json`` wrote."""
    things = tuple(Thing(**{**thing, "windows": tuple(thing["windows"])}) for thing in values["things"])
    return Scene(**{**values, "things": things})


def home_split(colour: str, shape: str, motion: str) -> Split:
    """The only split that may show this combination; every pair of two of the three occurs in training."""
    number = COLOURS.index(colour) + SHAPES.index(shape) + MOTIONS.index(motion)
    return _HELD_OUT.get(number % _HOLD_OUT_MODULUS, "train")


def make_scenes(num: int, *, split: Split, seed: int) -> list[Scene]:
    """``num`` scenes of a split, the same for the same seed; in val and test no two have the same meaning.

    Order clips come in twins. ``ConfigError`` when val or test asks for more than the world holds.
    """
    rng = np.random.default_rng([seed, ("train", "val", "test").index(split)])
    num_twins = int(num * _ORDER_SHARE[split]) // 2
    num_rest = num - 2 * num_twins
    num_groups, num_swaps = int(num_rest * _GROUP_SHARE), int(num_rest * _SWAP_SHARE)
    maker = _Maker(rng=rng, split=split, seen=None if split == "train" else set())
    scenes: list[Scene] = []
    for make, count in (
        (maker.group, num_groups),
        (maker.swap, num_swaps),
        (maker.pair, num_rest - num_groups - num_swaps),
        (maker.order, num_twins),
    ):
        for _ in range(count):
            scenes.extend(maker.unseen(make))
    return [_with_key(scenes, i, split) for i in range(len(scenes))]


def scenes_as_twins(scenes: list[Scene]) -> Iterator[tuple[Scene, Scene]]:
    """Each order clip with its twin, once."""
    by_key = {scene.key: scene for scene in scenes}
    for scene in scenes:
        if scene.twin is not None and scene.key < scene.twin:
            yield scene, by_key[scene.twin]


class _Maker:
    """Draws scenes of one split; remembers what was shown where no meaning may come twice."""

    def __init__(self, *, rng: np.random.Generator, split: Split, seen: set[tuple[str, ...]] | None) -> None:
        self.rng, self.split, self.seen = rng, split, seen
        self.allowed: dict[tuple[str, ...], list[tuple[str, str, str]]] = {
            motions: [(c, s, m) for c in COLOURS for s in SHAPES for m in motions if self._is_allowed(c, s, m)]
            for motions in (MOTIONS[:-1], EVENTS, MOTIONS[-1:])
        }

    def unseen(self, make: Callable[[], tuple[Scene, ...]]) -> tuple[Scene, ...]:
        """What ``make`` draws, drawn again until no meaning in it was there before."""
        for _ in range(2000):
            scenes = make()
            if self.seen is None:
                return scenes
            meanings = {scene.meaning() for scene in scenes}
            if not meanings & self.seen:
                self.seen |= meanings
                return scenes
        raise ConfigError(f"shapes: num_{self.split} asks for more clips of different meaning than there are; lower it")

    def group(self) -> tuple[Scene, ...]:
        """One to four equal shapes that do the same."""
        count = int(self.rng.integers(1, 5))
        combination = self._pick(MOTIONS[:-1])
        return (self._scene("group", [combination] * count),)

    def pair(self) -> tuple[Scene, ...]:
        """Two shapes of different colours, each with its own motion."""
        return (self._scene("pair", self._pick_two(MOTIONS[:-1])),)

    def swap(self) -> tuple[Scene, ...]:
        """Two shapes that cross each other and change places."""
        return (self._scene("swap", self._pick_two(MOTIONS[-1:])),)

    def order(self) -> tuple[Scene, ...]:
        """Twins: the same two events, one after the other, in either order."""
        scene = self._scene("order", self._pick_two(EVENTS))
        one, two = scene.things
        first = replace(scene, things=(replace(one, windows=(0,)), replace(two, windows=(1,))))
        second = replace(scene, things=(replace(two, windows=(0,)), replace(one, windows=(1,))))
        return first, second

    def _is_allowed(self, colour: str, shape: str, motion: str) -> bool:
        invisible = shape == "circle" and motion == "spin"
        return not invisible and home_split(colour, shape, motion) == self.split

    def _pick(self, motions: tuple[str, ...]) -> tuple[str, str, str]:
        allowed = self.allowed[motions]
        return allowed[int(self.rng.integers(len(allowed)))]

    def _pick_two(self, motions: tuple[str, ...]) -> list[tuple[str, str, str]]:
        first, second = self._pick(motions), self._pick(motions)
        while first[0] == second[0]:
            second = self._pick(motions)
        return [first, second]

    def _scene(self, kind: Kind, combinations: list[tuple[str, str, str]]) -> Scene:
        num = len(combinations)
        places = np.array(_LAYOUTS[num])
        if self.rng.random() < 0.5:
            places[:, 0] = 1 - places[:, 0]  # the other diagonal
        places = self.rng.permutation(places) + self.rng.uniform(-_JITTER[num], _JITTER[num], places.shape)
        radius = _RADIUS[num] * self.rng.uniform(0.9, 1.1)
        travel = {1: 0.26, 2: 0.18}.get(num, 0.13)
        things = [
            Thing(colour, shape, motion, round(float(x), 4), round(float(y), 4), round(radius, 4), travel)
            for (colour, shape, motion), (x, y) in zip(combinations, places, strict=True)
        ]
        background = BACKGROUNDS[int(self.rng.integers(len(BACKGROUNDS)))]
        phrasing = int(self.rng.integers(NUM_PHRASINGS[kind]))
        return Scene("", kind, tuple(things), background, int(self.rng.integers(2**31)), phrasing)


def _with_key(scenes: list[Scene], i: int, split: Split) -> Scene:
    """Scene ``i`` with its key and its twin's; twins lie side by side."""
    scene = scenes[i]
    if scene.kind != "order":
        return replace(scene, key=f"{split}-{i:06d}")
    first = next(j for j, other in enumerate(scenes) if other.kind == "order")
    twin = i + 1 if (i - first) % 2 == 0 else i - 1
    return replace(scene, key=f"{split}-{i:06d}", twin=f"{split}-{twin:06d}")
