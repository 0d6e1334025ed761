"""Scenes to frames, with numpy alone; all frames of a clip at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antmmf_tasks.datasets.shapes.world import MOVES, Scene, Thing

Floats = NDArray[np.float32]

_RGB = {
    "red": (232, 30, 38),
    "green": (30, 185, 50),
    "blue": (45, 75, 245),
    "yellow": (248, 228, 30),
    "purple": (170, 50, 205),
    "cyan": (50, 220, 230),
    "orange": (250, 135, 20),
    "white": (250, 250, 250),
}
_SPIN = {"square": 90.0, "triangle": 120.0, "star": 72.0, "cross": 90.0, "moon": 360.0, "circle": 360.0}
"""Degrees of a spin: the smallest turn after which the shape looks as before, so that no frame rate hides it."""


def render(scene: Scene, *, size: int, num_frames: int) -> NDArray[np.uint8]:
    """Frames (T, H, W, 3) uint8 with H = W = ``size``.

    An event fills one half of the clip and looks at its first and last frame as if it were not there; so the frames
    of an order clip are those of its twin in another order.
    """
    frames = np.empty((num_frames, size, size, 3), np.float32)
    frames[:] = _background(scene, size=size)
    for i in sorted(range(len(scene.things)), key=lambda i: (scene.things[i].y, scene.things[i].x)):
        thing = scene.things[i]
        other = scene.things[1 - i] if scene.kind == "swap" else None
        _paint(frames, thing, _path(thing, num_frames=num_frames, other=other))
    return np.rint(frames).astype(np.uint8)


def _paint(frames: Floats, thing: Thing, path: _Path) -> None:
    """Draw ``thing`` into ``frames`` (T, H, W, 3), only in the rectangle that it ever reaches."""
    size = frames.shape[1]
    columns, rows = _reach(path.x, path.radius, size=size), _reach(path.y, path.radius, size=size)
    axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    radius = path.radius[:, None, None]  # (T, 1, 1)
    dx = (axis[columns] - path.x[:, None, None]) / radius  # (T, 1, w)
    dy = (axis[rows, None] - path.y[:, None, None]) / radius  # (T, h, 1)
    cos, sin = np.cos(path.angle)[:, None, None], np.sin(path.angle)[:, None, None]
    inside = _INSIDE[thing.shape](cos * dx + sin * dy, cos * dy - sin * dx)  # (T, h, w)
    cover = np.clip(inside * (radius * size) + np.float32(0.5), 0, 1) * path.visible[:, None, None]
    region = frames[:, rows, columns]
    region += cover[..., None] * (np.array(_RGB[thing.colour], np.float32) - region)


def _reach(centre: Floats, radius: Floats, *, size: int) -> slice:
    """Pixels of one axis that a thing touches in some frame; no shape is wider than 1.25 radii."""
    low, high = float((centre - 1.25 * radius).min()), float((centre + 1.25 * radius).max())
    return slice(max(0, int(low * size) - 1), min(size, int(high * size) + 2))


@dataclass(frozen=True, slots=True)
class _Path:
    """Where and how a thing is in each frame; all (T,)."""

    x: Floats
    y: Floats
    radius: Floats
    angle: Floats
    visible: Floats


def _path(thing: Thing, *, num_frames: int, other: Thing | None) -> _Path:
    whole = np.linspace(-1, 1, num_frames, dtype=np.float32)
    phase = _event_phase(thing, num_frames=num_frames)
    x, y = np.full(num_frames, thing.x, np.float32), np.full(num_frames, thing.y, np.float32)
    scale, angle, visible = np.ones_like(x), np.zeros_like(x), np.ones_like(x)
    if thing.motion in MOVES:
        sign = -1 if thing.motion in ("left", "up") else 1
        (x if thing.motion in ("left", "right") else y)[:] += sign * thing.travel * whole
    elif other is not None:
        x += (other.x - thing.x) * (whole + 1) / 2
        y += (other.y - thing.y) * (whole + 1) / 2
    elif thing.motion == "spin":
        angle += np.deg2rad(_SPIN[thing.shape]) * phase
    elif thing.motion == "grow":
        scale += 0.55 * np.sin(np.pi * phase)
    elif thing.motion == "shrink":
        scale -= 0.55 * np.sin(np.pi * phase)
    elif thing.motion == "blink":
        visible[((phase > 0.1) & (phase < 0.4)) | ((phase > 0.6) & (phase < 0.9))] = 0
    elif thing.motion == "jump":
        y -= 0.16 * np.sin(np.pi * phase)
    elif thing.motion == "shake":
        x += 0.12 * np.sin(2 * np.pi * phase)
    return _Path(x, y, thing.radius * scale, angle, visible)


def _event_phase(thing: Thing, *, num_frames: int) -> Floats:
    """How far the event is, 0 to 1, (T,); 0 outside its windows. A frame left over at the end is at rest."""
    phase, length = np.zeros(num_frames, np.float32), num_frames // 2
    for window in thing.windows:
        phase[window * length : (window + 1) * length] = np.linspace(0, 1, length, dtype=np.float32)
    return phase


def _floats(values: NDArray[np.floating]) -> Floats:
    return values.astype(np.float32, copy=False)


def _circle(u: Floats, v: Floats) -> Floats:
    return _floats(1 - np.hypot(u, v))


def _square(u: Floats, v: Floats) -> Floats:
    return _floats(0.88 - np.maximum(np.abs(u), np.abs(v)))


def _triangle(u: Floats, v: Floats) -> Floats:
    return _floats(0.6 - np.maximum(v, 0.866 * np.abs(u) - 0.5 * v))


def _star(u: Floats, v: Floats) -> Floats:
    """Five points; one half of one point is compared, all others are folded onto it."""
    tip, notch, part = 1.2, 0.52, math.pi / 5
    angle = np.abs((np.arctan2(u, -v) + part) % (2 * part) - part)
    distance = np.hypot(u, v)
    along, across = distance * np.cos(angle), distance * np.sin(angle)
    edge_x, edge_y = notch * math.cos(part) - tip, notch * math.sin(part)
    return _floats(((tip - along) * edge_y + across * edge_x) / math.hypot(edge_x, edge_y))


def _cross(u: Floats, v: Floats) -> Floats:
    u, v = np.abs(u), np.abs(v)
    long, short = 1.05, 0.36
    return _floats(np.maximum(np.minimum(long - u, short - v), np.minimum(short - u, long - v)))


def _moon(u: Floats, v: Floats) -> Floats:
    return _floats(np.minimum(1.1 - np.hypot(u, v), np.hypot(u - 0.6, v) - 0.85))


_INSIDE: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "moon": _moon,
}
"""Distance to the edge, positive inside, in radii; ``u`` to the right and ``v`` downwards from the centre."""


def _background(scene: Scene, *, size: int) -> Floats:
    """A dark, greyish texture (H, W, 3) from 0 to about 110, still during the clip."""
    rng = np.random.default_rng(scene.background_seed)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    turn, period = rng.uniform(0, np.pi), rng.uniform(0.15, 0.3)
    slope = x * np.cos(turn) + y * np.sin(turn)
    if scene.background == "noise":
        cells = rng.random((12, 12), np.float32)
        row = np.arange(size) * 12 // size
        pattern = cells[row][:, row]
    elif scene.background == "stripes":
        pattern = 0.5 + 0.5 * np.sin(2 * np.pi * slope / period)
    elif scene.background == "checker":
        pattern = ((x // period).astype(int) + (y // period).astype(int)) % 2
    elif scene.background == "dots":
        pattern = (np.hypot(x % period - period / 2, y % period - period / 2) < 0.3 * period).astype(np.float32)
    else:
        pattern = (slope - slope.min()) / (slope.max() - slope.min())
    low, high = rng.uniform(15, 35), rng.uniform(60, 85)
    tint = rng.uniform(0.8, 1.2, 3)
    grain = rng.uniform(-6, 6, (size, size))
    texture = (low + (high - low) * pattern + grain)[..., None] * tint
    return np.clip(texture, 0, 255).astype(np.float32)
