from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from antmmf_vision.randaugment import OPERATIONS, randaugment
from torch import Tensor


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def plain(*values: int, size: int = 16) -> Tensor:
    """One frame of one grey for each value; (T, 3, size, size)."""
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, size, size)


def blob(row: int, column: int, size: int = 61) -> Tensor:
    """A white square of 3 x 3 around a pixel, on black."""
    picture = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    picture[..., row - 1 : row + 2, column - 1 : column + 2] = 255
    return picture


def centre(picture: Tensor) -> tuple[float, float]:
    """Row and column of what is white; what is uncovered is grey, not white."""
    light = (picture[0, 0].double() - 128).clamp(min=0)
    rows, columns = torch.meshgrid(torch.arange(light.shape[0]), torch.arange(light.shape[1]), indexing="ij")
    return float((rows * light).sum() / light.sum()), float((columns * light).sum() / light.sum())


# --- which, how often, how strong -------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The operations that were applied, with their strengths."""
    made: list[tuple[str, float]] = []

    def record(name: str, frames: Tensor, strength: float) -> Tensor:
        made.append((name, strength))
        return frames

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, lambda frames, strength, name=name: record(name, frames, strength))
    return made


def test_operations_of_one_clip_differ_and_all_can_be_chosen(calls: list[tuple[str, float]]) -> None:
    rng, chosen = np.random.default_rng(0), set()
    for _ in range(200):
        calls.clear()
        randaugment(noise(1, 3, 4, 4), rng, prob=1)
        names = {name for name, _ in calls}
        assert len(names) == 2
        chosen |= names
    assert chosen == set(OPERATIONS)
    assert len(chosen) == 14


def test_each_operation_is_applied_with_the_probability(calls: list[tuple[str, float]]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        randaugment(noise(1, 3, 4, 4), rng, prob=0.25)
    assert 400 < len(calls) < 600  # of 2000


def test_strengths_are_gaussian_around_the_magnitude_and_of_both_signs(calls: list[tuple[str, float]]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        randaugment(noise(1, 3, 4, 4), rng, magnitude=5, prob=1)
    strengths = np.array([strength for _, strength in calls])
    assert np.abs(strengths).mean() == pytest.approx(0.5, abs=0.005)
    assert np.abs(strengths).std() == pytest.approx(0.05, abs=0.005)
    assert (strengths > 0).mean() == pytest.approx(0.5, abs=0.05)


def test_strengths_do_not_exceed_one(calls: list[tuple[str, float]]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        randaugment(noise(1, 3, 4, 4), rng, magnitude=10, prob=1)
    assert max(abs(strength) for _, strength in calls) == 1.0


def test_nothing_is_changed_at_probability_0() -> None:
    clip = noise(2, 3, 9, 7)
    assert torch.equal(randaugment(clip, np.random.default_rng(0), prob=0), clip)


# --- what each of them does -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (600, 3), (17, 31)])
def test_every_operation_keeps_bytes_and_shape_and_the_given_frames(name: str, shape: tuple[int, int]) -> None:
    clip = noise(2, 3, *shape)
    for strength in (-1.0, -0.9, 0.0, 0.9, 1.0):
        out = OPERATIONS[name](clip, strength)
        assert out.dtype == torch.uint8
        assert out.shape == clip.shape
    assert torch.equal(clip, noise(2, 3, *shape))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_changes_equal_frames_alike(name: str) -> None:
    picture = noise(1, 3, 24, 32) // 2 + 50
    out = OPERATIONS[name](picture.repeat(3, 1, 1, 1), 0.9)
    assert torch.equal(out, out[:1].expand_as(out))
    assert not torch.equal(out[:1], picture)


def test_autocontrast_stretches_the_clip_not_each_frame() -> None:
    stretched = OPERATIONS["autocontrast"](plain(100, 125, 150), 0.9)
    assert stretched[:, 0, 0, 0].tolist() == pytest.approx([0, 127, 255], abs=1)


def test_equalize_flattens_the_histogram_of_the_clip() -> None:
    ramp = (torch.arange(256) // 8 + 100).to(torch.uint8).reshape(1, 1, 16, 16).repeat(1, 3, 1, 1)  # 100 to 131
    flat = OPERATIONS["equalize"](torch.cat([ramp, ramp]), 0.9)
    assert (flat.min(), flat.max()) == (0, 255)
    two = OPERATIONS["equalize"](plain(100, 150), 0.9)
    assert two[:, 0, 0, 0].tolist() == [0, 255]


def test_contrast_moves_away_from_the_mean_of_the_clip() -> None:
    for strength in (0.5, -0.5):
        moved = OPERATIONS["contrast"](plain(50, 150), strength)[:, 0, 0, 0].tolist()
        factor = 1 + 0.9 * strength
        assert moved == pytest.approx([100 - 50 * factor, 100 + 50 * factor], abs=1)


def test_brightness_is_a_factor() -> None:
    for strength in (0.9, -0.9):
        bright = OPERATIONS["brightness"](plain(10, 60, 250), strength)[:, 0, 0, 0].tolist()
        assert bright == pytest.approx([min(v * (1 + 0.9 * strength), 255) for v in (10, 60, 250)], abs=1)


def test_saturation_scales_what_is_no_grey() -> None:
    red = torch.tensor([200, 100, 100], dtype=torch.uint8)[None, :, None, None].repeat(1, 1, 4, 4)
    grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 100
    pale = OPERATIONS["saturation"](red, -0.5)[0, :, 0, 0].tolist()
    assert pale == pytest.approx([grey + 0.55 * (value - grey) for value in (200, 100, 100)], abs=1.5)


def test_sharpness_blurs_or_sharpens() -> None:
    edge = plain(50, size=12)
    edge[..., 6:] = 200
    spread = [int(OPERATIONS["sharpness"](edge, s)[0, 0, 5, 5:7].int().diff()) for s in (-0.9, 0.0, 0.9)]
    assert spread[0] < spread[1] == 150 < spread[2]


def test_invert_is_the_negative() -> None:
    clip = noise(2, 3, 8, 8)
    assert torch.equal(OPERATIONS["invert"](clip, 0.9).int(), 255 - clip.int())


@pytest.mark.parametrize(("strength", "bits"), [(0.0, 4), (0.6, 2), (-0.6, 2), (0.9, 1), (1.0, 1)])
def test_posterize_keeps_the_first_bits_and_never_none(strength: float, bits: int) -> None:
    clip = noise(2, 3, 8, 8)
    step = 2 ** (8 - bits)
    assert torch.equal(OPERATIONS["posterize"](clip, strength).int(), clip.int() // step * step)


def test_solarize_inverts_what_is_above_a_threshold_in_bytes() -> None:
    clip = noise(2, 3, 8, 8).int()
    for strength in (0.6, -0.6):
        expected = torch.where(clip >= 255 * 0.4, 255 - clip, clip)
        assert torch.equal(OPERATIONS["solarize"](clip.to(torch.uint8), strength).int(), expected)


@pytest.mark.parametrize("strength", [0.9, -0.9])
def test_rotate_turns_about_the_middle_counter_clockwise(strength: float) -> None:
    row, column = centre(OPERATIONS["rotate"](blob(30, 50), strength))  # 20 to the right of the middle
    angle = math.radians(30 * strength)
    assert (row, column) == pytest.approx((30 - 20 * math.sin(angle), 30 + 20 * math.cos(angle)), abs=0.3)
    assert OPERATIONS["rotate"](plain(0, size=61), strength)[0, :, 0, 0].tolist() == [128] * 3


@pytest.mark.parametrize("strength", [0.9, -0.9])
def test_shear_moves_by_the_distance_from_the_edge(strength: float) -> None:
    row, column = centre(OPERATIONS["shear_x"](blob(40, 30), strength))
    assert (row, column) == pytest.approx((40, 30 + 40.5 * 0.3 * strength), abs=0.6)
    row, column = centre(OPERATIONS["shear_y"](blob(30, 40), strength))
    assert (row, column) == pytest.approx((30 + 40.5 * 0.3 * strength, 40), abs=0.6)


@pytest.mark.parametrize("strength", [0.9, -0.9])
def test_translate_moves_by_whole_pixels_and_uncovers_grey(strength: float) -> None:
    clip = noise(2, 3, 20, 20)
    moved = OPERATIONS["translate_x"](clip, strength)  # 0.45 * 0.9 * 20 = 8.1
    down = OPERATIONS["translate_y"](clip.mT, strength).mT
    for out in (moved, down):
        if strength > 0:
            assert torch.equal(out[..., 8:], clip[..., :-8])
            assert (out[..., :8] == 128).all()
        else:
            assert torch.equal(out[..., :-8], clip[..., 8:])
            assert (out[..., -8:] == 128).all()
