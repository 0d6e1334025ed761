from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from antmmf.errors import ComponentError
from antmmf.testing import check_vision_encoder
from antmmf_vision.encoders.hf_vision import HfVision
from encoder_tools import check_recomputing, noise, randomised, sizes, whole, with_rubbish
from hf_tools import (
    FRAMES,
    KINDS,
    PATCH,
    SIDE,
    VIDEO_MODELS,
    config,
    encoder,
    pixels_of,
    run,
    saved,
    transformers,
)
from torch import Tensor


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_the_contract(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path)
    check_vision_encoder(encoder(tmp_path), clips=2, frames=FRAMES)
    other = encoder(tmp_path, output="grid", pool="mean", temporal="transformer", temporal_depth=1, dim=16)
    check_vision_encoder(other, clips=2, frames=FRAMES)


def test_weights_to_be_filled_are_float32_whatever_type_the_config_names(tmp_path: Path) -> None:
    saved("clip", tmp_path)
    named = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**named, "dtype": "bfloat16"}))
    assert {weight.dtype for weight in encoder(tmp_path, pretrained=False).parameters()} == {torch.float32}


# --- equal to the library ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["clip", "chinese_clip", "siglip"])
def test_a_frames_vector_is_that_of_get_image_features(kind: str, tmp_path: Path) -> None:
    library = saved(kind, tmp_path)
    made, frames = encoder(tmp_path), noise(2, 3, 1, SIDE, SIDE)
    with torch.no_grad():
        features = library.get_image_features(pixel_values=pixels_of(made, frames).flatten(0, 2))
    vectors = features if isinstance(features, Tensor) else features.pooler_output
    out = run(made, frames)
    torch.testing.assert_close(out.tokens, vectors.reshape(2, 3, -1))
    torch.testing.assert_close(out.pooled, vectors.reshape(2, 3, -1).mean(1))
    one = frames[:1, :1]
    torch.testing.assert_close(run(made, one).pooled, vectors[:1])


@pytest.mark.parametrize("kind", ["clip", "chinese_clip", "siglip"])
def test_normalize_takes_the_mean_of_frames_of_length_one(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path)
    frames = noise(2, 3, 1, SIDE, SIDE)
    raw = run(encoder(tmp_path), frames).tokens  # (2, 3, D), a frame each
    out = run(encoder(tmp_path, normalize=True), frames)
    torch.testing.assert_close(out.tokens, raw / (raw**2).sum(-1, keepdim=True).sqrt())
    torch.testing.assert_close(out.pooled, out.tokens.mean(1))
    assert not torch.allclose(out.pooled, raw.mean(1))


def test_the_cells_of_clip_pass_its_norm_and_projection_or_neither(tmp_path: Path) -> None:
    library = saved("clip", tmp_path)
    made, frames = encoder(tmp_path, output="grid"), noise(1, 1, 1, SIDE, SIDE)
    with torch.no_grad():
        states = library.vision_model(pixels_of(made, frames).flatten(0, 2)).last_hidden_state
        projected = states[:, 1:] @ library.visual_projection.weight.T
    plain = run(encoder(tmp_path, output="grid", projection=False), frames)
    torch.testing.assert_close(plain.tokens, states[:, 1:])
    torch.testing.assert_close(plain.pooled, library.vision_model.post_layernorm(states[:, 0]))
    normed = library.vision_model.post_layernorm(states[:, 1:]) @ library.visual_projection.weight.T
    torch.testing.assert_close(run(made, frames).tokens, normed)
    assert not torch.allclose(normed, projected)


def test_a_clips_vector_is_that_of_x_clips_get_video_features(tmp_path: Path) -> None:
    library = saved("xclip", tmp_path)
    made, frames = encoder(tmp_path), noise(2, 2, FRAMES, SIDE, SIDE)
    with torch.no_grad():
        features = library.get_video_features(pixel_values=pixels_of(made, frames).flatten(0, 1))
    vectors = features if isinstance(features, Tensor) else features.pooler_output
    torch.testing.assert_close(run(made, frames).clips, vectors.reshape(2, 2, -1))


@pytest.mark.parametrize("dim", [None, 16])
def test_the_vector_of_a_videomae_that_classifies_is_what_it_classifies(dim: int | None, tmp_path: Path) -> None:
    sizes_of_it = {**config("videomae").to_dict(), "use_mean_pooling": True}
    library = transformers.VideoMAEForVideoClassification(transformers.VideoMAEConfig(**sizes_of_it))
    randomised(library).save_pretrained(tmp_path)
    made, frames = encoder(tmp_path, dim=dim), noise(2, 1, FRAMES, SIDE, SIDE)
    with torch.no_grad():
        pixels = pixels_of(made, frames)[:, 0]
        states = library.eval().videomae(pixel_values=pixels).last_hidden_state
        normed = torch.nn.functional.layer_norm(
            states.mean(1), (32,), library.fc_norm.weight, library.fc_norm.bias, library.fc_norm.eps
        )
        torch.testing.assert_close(library.classifier(normed), library(pixel_values=pixels).logits)
        torch.testing.assert_close(run(made, frames).pooled, made.projection(normed))
    torch.testing.assert_close(run(encoder(tmp_path, pool="mean"), frames).pooled, states.mean(1))


def test_a_tower_of_clip_that_was_saved_with_its_projection_keeps_it(tmp_path: Path) -> None:
    library = randomised(transformers.CLIPVisionModelWithProjection(config("clip_vision_model"))).eval()
    library.save_pretrained(tmp_path)
    made, frames = encoder(tmp_path), noise(2, 1, 1, SIDE, SIDE)
    with torch.no_grad():
        vectors = library(pixel_values=pixels_of(made, frames).flatten(0, 2)).image_embeds
    torch.testing.assert_close(run(made, frames).pooled, vectors)
    assert made.dim == vectors.shape[1] != encoder(tmp_path, projection=False).dim
    assert encoder(tmp_path, pretrained=False).dim == made.dim


@pytest.mark.parametrize("kind", ["videomae", "timesformer", "vivit"])
def test_cells_are_the_librarys_states_in_the_order_of_time(kind: str, tmp_path: Path) -> None:
    library = saved(kind, tmp_path)
    made, frames = encoder(tmp_path, output="grid"), noise(2, 1, FRAMES, SIDE, SIDE)
    with torch.no_grad():
        states = library(pixel_values=pixels_of(made, frames)[:, 0]).last_hidden_state
    cells = (SIDE // PATCH) ** 2
    slots = FRAMES if kind == "timesformer" else FRAMES // 2
    out = run(made, frames)
    for slot in range(slots):
        for cell in range(cells):
            place = {
                "videomae": slot * cells + cell,
                "timesformer": 1 + cell * FRAMES + slot,
                "vivit": 1 + slot * cells + cell,
            }[kind]
            assert torch.allclose(out.tokens[:, slot * cells + cell], states[:, place], atol=1e-5), (slot, cell)
    expected = states.mean(1) if kind == "videomae" else states[:, 0]  # the class token
    torch.testing.assert_close(out.pooled, expected)


@pytest.mark.parametrize(
    ("kind", "processor"),
    [
        ("clip", "CLIPImageProcessor"),
        ("siglip", "SiglipImageProcessor"),
        ("videomae", "VideoMAEImageProcessor"),
        ("vivit", "VivitImageProcessor"),
    ],
)
@pytest.mark.parametrize("custom", [False, True])
def test_pixels_are_normalised_as_the_librarys_processor_does(
    kind: str, processor: str, custom: bool, tmp_path: Path
) -> None:
    saved(kind, tmp_path)
    changed = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]} if custom else {}
    made = getattr(transformers, processor)(**changed)
    if custom:
        made.save_pretrained(tmp_path)
    frames = noise(1, 1, FRAMES, SIDE, SIDE)
    pictures = [frame.movedim(0, -1).numpy() for frame in frames[0, 0]]
    given = made(pictures, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(
        encoder(tmp_path).pixels(frames, whole(frames)).flatten(0, 1), given.reshape(frames[0, 0].shape)
    )


# --- batches and padding ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["clip", "timesformer"])
def test_a_clip_alone_equals_the_clip_in_a_batch(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path)
    made, frames = encoder(tmp_path), noise(3, 2, FRAMES, SIDE, SIDE)
    together = run(made, frames)
    for b in range(3):
        for c in range(2):
            alone = run(made, frames[b : b + 1, c : c + 1])
            torch.testing.assert_close(alone.pooled, together.clips[b, c][None])


@pytest.mark.parametrize("kind", ["clip", "videomae", "vivit"])
def test_padding_changes_nothing_and_the_mask_covers_it(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path)
    made, frames = encoder(tmp_path, output="grid", pool="mean"), noise(1, 1, FRAMES, 17, 24)
    padded = with_rubbish(frames, height=32, width=30)
    alone, within = run(made, frames), made(padded, sizes(1, 17, 24))
    torch.testing.assert_close(within.pooled, alone.pooled)
    torch.testing.assert_close(within.tokens, alone.tokens)
    slots = FRAMES if kind == "clip" else FRAMES // 2
    expected = [[True, True, True, False]] * 3 + [[False] * 4]  # 17 pixels are three rows of cells
    assert within.mask.reshape(slots, 4, 4).tolist() == [expected] * slots
    real = within.tokens[within.mask].reshape(slots * 9, -1)
    torch.testing.assert_close(within.pooled[0], real.mean(0))


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", VIDEO_MODELS)
def test_clips_of_another_length_are_refused(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path)
    with pytest.raises(ValueError, match="takes clips of 4 frames, got 6: set num_frm: 4 in the sampler"):
        run(encoder(tmp_path), noise(1, 1, 6, SIDE, SIDE))


def test_parameters_that_a_model_cannot_follow_are_refused(tmp_path: Path) -> None:
    saved("xclip", tmp_path / "xclip")
    with pytest.raises(ComponentError, match="projection: must be true"):
        encoder(tmp_path / "xclip", projection=False)
    made = config("siglip_vision_model")
    made.vision_use_head = False
    made.save_pretrained(tmp_path / "siglip")
    with pytest.raises(ComponentError, match=r"pool: must be mean, .* has no pooling head"):
        encoder(tmp_path / "siglip", pretrained=False)
    check_vision_encoder(encoder(tmp_path / "siglip", pretrained=False, pool="mean"))
    made = config("timesformer")
    made.attention_type = "space_only"
    made.save_pretrained(tmp_path / "timesformer")
    with pytest.raises(ComponentError, match="attention_type"):
        encoder(tmp_path / "timesformer", pretrained=False)


def test_a_model_without_a_vision_half_is_refused(tmp_path: Path) -> None:
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(
        ComponentError, match="model_type must be one that has a vision half, is 'bert'; there are: clip"
    ):
        encoder(tmp_path)


def test_without_transformers_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ComponentError, match=r"^hf/x needs transformers: pip install 'antmmf-vision\[hf\]'$"):
        HfVision(model="x")


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["clip", "xclip", "timesformer"])
def test_recomputing_changes_no_gradient(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path)

    def make(recomputes: bool) -> HfVision:
        return encoder(tmp_path, gradient_checkpointing=recomputes)

    check_recomputing(make, noise(1, 2, FRAMES, SIDE, SIDE))


@pytest.mark.parametrize("kind", KINDS)
def test_every_block_takes_part_in_the_forward_pass(kind: str, tmp_path: Path) -> None:
    config(kind).save_pretrained(tmp_path)
    made = encoder(tmp_path, pretrained=False, temporal="transformer", temporal_depth=1)
    assert len(made.blocks()) == (4 if kind == "xclip" else 3)
    called: set[int] = set()
    for block in made.blocks():
        block.register_forward_pre_hook(lambda module, _: called.add(id(module)))
    run(made, noise(1, 2, FRAMES, SIDE, SIDE))
    assert called == set(map(id, made.blocks()))
