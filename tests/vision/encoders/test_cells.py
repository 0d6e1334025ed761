from __future__ import annotations

import pytest
import torch
from antmmf_vision.encoders.cells import encoded, mean_of_real, real_cells
from antmmf_vision.encoders.pixels import Pixels
from antmmf_vision.encoders.temporal import TemporalPool
from encoder_tools import noise, sizes, with_rubbish


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [(64, 64, 2, 2), (65, 64, 3, 2), (1, 96, 1, 3), (32, 33, 1, 2), (96, 96, 3, 3)],
)
def test_a_cell_is_real_if_one_of_its_pixels_is(height: int, width: int, rows: int, columns: int) -> None:
    real = real_cells(torch.tensor([[height, width]]), grid=(3, 3), stride=32)[0]
    pixels = torch.zeros(96, 96, dtype=torch.bool)
    pixels[:height, :width] = True
    assert real.equal(torch.stack([torch.stack([cell.any() for cell in row.split(32, 1)]) for row in pixels.split(32)]))
    assert real.sum() == rows * columns


def test_all_padded_rows_and_columns_are_left_out_not_only_the_corner() -> None:
    """Unlike AntMMF's mask, which covers only the corner that is beyond both height and width."""
    real = real_cells(torch.tensor([[64, 32]]), grid=(4, 4), stride=32)[0]
    assert real.tolist() == [[True, False, False, False]] * 2 + [[False] * 4] * 2


def test_the_mean_is_over_real_cells_only() -> None:
    cells = torch.randn(2, 3, 4, 5)  # (B, F, K, D)
    real = torch.tensor([[True, False, True, False], [True] * 4])
    mean = mean_of_real(cells, real)
    torch.testing.assert_close(mean[0], cells[0][:, [0, 2]].mean(1))
    torch.testing.assert_close(mean[1], cells[1].mean(1))


def test_pixels_are_normalised() -> None:
    frames = noise(1, 2, 1, 4, 6)
    pixels = Pixels(owner="x", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))(frames, sizes(1, 4, 6))
    expected = (frames[0, :, 0] / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.4, 0.5, 0.6]
    ).view(3, 1, 1)
    torch.testing.assert_close(pixels[0], expected)


def test_padding_becomes_the_mean_colour() -> None:
    frames = noise(2, 1, 1, 8, 8)
    pixels = Pixels(owner="x")(frames, torch.tensor([[8, 8], [5, 3]]))
    assert pixels[0].count_nonzero() > 180
    assert pixels[1, 0, :, 5:].count_nonzero() == 0
    assert pixels[1, 0, :, :, 3:].count_nonzero() == 0
    assert pixels[1, 0, :, :5, :3].count_nonzero() > 40


def test_on_a_square_a_frame_is_the_same_whatever_it_was_padded_to() -> None:
    frames = noise(2, 1, 2, 20, 12)
    padded = with_rubbish(frames, height=24, width=30)
    on_square = Pixels(owner="x", side=32)
    assert on_square(frames, sizes(2, 20, 12)).shape == (2, 2, 3, 32, 32)
    torch.testing.assert_close(on_square(padded, sizes(2, 20, 12)), on_square(frames, sizes(2, 20, 12)))


def test_a_frame_larger_than_the_square_is_refused() -> None:
    with pytest.raises(ValueError, match="mine takes 32 pixels at most, got 16 x 33: let the transform resize"):
        Pixels(owner="mine", side=32)(noise(1, 1, 1, 16, 33), sizes(1, 16, 33))


# --- pooling over time ------------------------------------------------------------------------------------------------


def pool(kind: str, **params: int) -> TemporalPool:
    return TemporalPool(kind, **{"dim": 8, "depth": 1, "max_frames": 6, **params}).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["mean", "attention", "transformer"])
def test_every_pooling_begins_as_the_mean(kind: str) -> None:
    vectors = torch.randn(2, 5, 8)
    pooled = pool(kind)
    torch.testing.assert_close(pooled.pool(pooled(vectors)), vectors.mean(1))


@pytest.mark.parametrize("kind", ["attention", "transformer"])
def test_what_is_learnt_is_reached_by_the_gradient(kind: str) -> None:
    pooled = pool(kind)
    pooled.pool(pooled(torch.randn(2, 5, 8))).square().sum().backward()
    first = pooled.score.weight if kind == "attention" else pooled.gate
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


def test_only_the_transformer_knows_the_order() -> None:
    vectors = torch.randn(1, 5, 8)
    for kind in ("mean", "attention", "transformer"):
        pooled = pool(kind)
        for parameter in pooled.parameters():
            torch.nn.init.normal_(parameter)
        there, back = pooled.pool(pooled(vectors)), pooled.pool(pooled(vectors.flip(1)))
        assert torch.allclose(there, back, atol=1e-5) == (kind != "transformer"), kind


def test_attention_weighs_frames_by_a_softmax_of_their_scores() -> None:
    pooled, vectors = pool("attention"), torch.randn(1, 3, 8)
    torch.nn.init.normal_(pooled.score.weight)
    score = torch.nn.functional.layer_norm(vectors[0], (8,)) @ pooled.score.weight[0]
    weight = score.exp() / score.exp().sum()
    torch.testing.assert_close(pooled.pool(vectors)[0], sum(weight[t] * vectors[0, t] for t in range(3)))


def test_more_frames_than_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="6 frames at most, got 7: raise max_frames"):
        pool("transformer")(torch.randn(1, 7, 8))


def test_tokens_of_clips_and_of_cells() -> None:
    cells = torch.randn(2, 3, 2, 4, 8)  # (B, C, F, K, D)
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    vectors = mean_of_real(cells, real)
    out = encoded(cells, vectors, real, output="clip", temporal=pool("mean"))
    torch.testing.assert_close(out.tokens[1, 2], cells[1, 2, :, :2].mean((0, 1)))
    assert out.clips is not None
    assert out.tokens.equal(out.clips)
    torch.testing.assert_close(out.pooled, out.clips.mean(1))
    grid = encoded(cells, vectors, real, output="grid", temporal=pool("mean"))
    assert grid.tokens.equal(cells.reshape(2, 24, 8))
    assert grid.mask.equal(real.repeat(1, 6))
    torch.testing.assert_close(grid.clips, out.clips)


def test_a_cell_gets_what_its_frame_gained_over_time() -> None:
    cells = torch.randn(1, 2, 1, 3, 8)
    real = torch.ones(1, 3, dtype=torch.bool)
    temporal = pool("transformer")
    torch.nn.init.normal_(temporal.gate)
    out = encoded(cells, mean_of_real(cells, real), real, output="grid", temporal=temporal)
    assert out.clips is not None
    torch.testing.assert_close(out.tokens.reshape(1, 2, 3, 8).mean(2), out.clips)
    assert not torch.allclose(out.tokens.reshape(cells.shape), cells)
