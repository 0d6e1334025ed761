from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from antmmf import torchvision_shim
from antmmf.errors import CheckpointError, ComponentError
from antmmf.testing import check_vision_encoder
from antmmf_vision.encoders.timm_frames import TimmFrames, stages
from encoder_tools import check_recomputing, noise, normalised, randomised, sizes, whole, with_rubbish
from safetensors.torch import save_file
from torch import Tensor

torchvision_shim.apply()
import timm  # noqa: E402

KINDS = ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_byobnet", "pvt_v2_b0"]
"""A plain convolutional network, a ViT, and networks between them; most are timm's own tiny models."""


def encoder(model: str, **params: Any) -> TimmFrames:
    made = TimmFrames(model=model, **{"pretrained": False, "dim": 24, **params})
    randomised(made.backbone)
    return made.eval()


@torch.no_grad()
def run(model: Any, frames: Tensor) -> Any:
    return model(frames, whole(frames))


def library(model: str, file: Path, **params: Any) -> Any:
    """timm's own classifier, and its weights in a file."""
    network: Any = randomised(timm.create_model(model, num_classes=10, **params))
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, file)
    return network


@pytest.mark.parametrize("model", KINDS)
def test_it_keeps_the_contract(model: str) -> None:
    check_vision_encoder(encoder(model, image_size=64), clips=2, frames=2)
    if model in ("test_resnet", "pvt_v2_b0"):
        check_vision_encoder(encoder(model, dim=None, output="grid"), clips=2, frames=2)


@pytest.mark.parametrize("temporal", ["attention", "transformer"])
@pytest.mark.parametrize("output", ["clip", "grid"])
def test_it_keeps_the_contract_with_every_temporal_pooling(temporal: Any, output: Any) -> None:
    made = encoder("test_resnet", temporal=temporal, output=output, image_size=64)
    check_vision_encoder(made, clips=2, frames=3)


# --- equal to the library ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "params"),
    [
        *((name, {}) for name in KINDS),
        ("swin_tiny_patch4_window7_224", {}),  # its features are (N, h, w, D)
        ("deit_tiny_distilled_patch16_224", {"img_size": 64}),  # two tokens before the patches
    ],
)
def test_it_equals_timms_own_forward_on_the_same_weights(model: str, params: dict[str, Any], tmp_path: Path) -> None:
    network = library(model, tmp_path / "w.safetensors", **params)
    side = params.get("img_size") or network.pretrained_cfg["input_size"][-1]
    frames = noise(2, 2, 1, side, side)
    size = {"image_size": side} if params else {}
    made = TimmFrames(model=model, pretrained=str(tmp_path / "w.safetensors"), dim=None, output="grid", **size).eval()
    images = made.pixels(frames, whole(frames)).flatten(0, 1)
    facts = network.pretrained_cfg
    torch.testing.assert_close(images, normalised(frames, facts["mean"], facts["std"]).flatten(0, 2))
    with torch.no_grad():
        features = network.forward_features(images)  # (4, ...)
        vectors = network.forward_head(features, pre_logits=True)
    width = made.dim
    if features.ndim == 4 and features.shape[-1] == width:
        cells = features.reshape(2, -1, width)
    elif features.ndim == 4:
        cells = features.movedim(1, -1).reshape(2, -1, width)
    else:
        cells = features[:, network.num_prefix_tokens :].reshape(2, -1, width)
    out = run(made, frames)
    torch.testing.assert_close(out.tokens, cells)
    torch.testing.assert_close(out.pooled, cells.mean(1))
    made._pool = "own"
    torch.testing.assert_close(run(made, frames).clips, vectors.reshape(2, 2, width))


def test_the_projection_is_a_1x1_convolution_over_the_cells() -> None:
    made, frames = encoder("test_resnet", output="grid"), noise(1, 1, 2, 64, 96)
    images = made.pixels(frames, whole(frames)).flatten(0, 1)
    with torch.no_grad():
        features = made.backbone.forward_features(images)  # (2, 96, 2, 3)
        kernel = made.projection.weight[:, :, None, None]  # (24, 96, 1, 1)
        expected = torch.nn.functional.conv2d(features, kernel, made.projection.bias)
    torch.testing.assert_close(run(made, frames).tokens, expected.movedim(1, -1).reshape(1, 12, 24))


def test_its_parameters_are_as_many_as_published() -> None:
    """PVTv2-B2 has 25.4 M with a head for 1000 classes (arXiv:2106.13797, table 1), ResNet-50 25.6 M (torchvision)."""
    from torchvision.models import ResNet50_Weights

    published = {"pvt_v2_b2": 25.4e6, "resnet50": ResNet50_Weights.IMAGENET1K_V1.meta["num_params"]}
    for model, width in (("pvt_v2_b2", 512), ("resnet50", 2048)):
        with torch.device("meta"):
            made = TimmFrames(model=model, pretrained=False)
        projection, head = width * 768 + 768, width * 1000 + 1000
        whole_network = sum(parameter.numel() for parameter in made.parameters()) - projection + head
        assert round(whole_network / 1e6, 1) == round(published[model] / 1e6, 1)
        assert made.dim == 768
        if model == "resnet50":
            assert whole_network == published[model] == 25_557_032


# --- batches and padding ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_a_frame_alone_equals_the_frame_in_a_batch(model: str) -> None:
    made, frames = encoder(model, image_size=64), noise(2, 2, 2, 64, 64)
    together = run(made, frames)
    alone = torch.stack([run(made, frames[b, c, f][None, None, None]).pooled[0] for b, c, f in product_of(2, 2, 2)])
    torch.testing.assert_close(together.clips, alone.reshape(2, 2, 2, -1).mean(2))


def product_of(*counts: int) -> list[tuple[int, ...]]:
    return [tuple(index.tolist()) for index in torch.cartesian_prod(*(torch.arange(count) for count in counts))]


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "pvt_v2_b0"])
@pytest.mark.parametrize("pool", ["mean", "own"])
def test_padding_changes_nothing_on_a_square(model: str, pool: Any) -> None:
    made, frames = encoder(model, image_size=96, output="grid", pool=pool), noise(2, 2, 1, 40, 64)
    assert made.masks_padding
    padded = with_rubbish(frames, height=80, width=96)
    alone, within = run(made, frames), made(padded, sizes(2, 40, 64))
    torch.testing.assert_close(within.pooled, alone.pooled)
    torch.testing.assert_close(within.tokens, alone.tokens)
    assert within.mask.equal(alone.mask)


def test_a_convolutional_network_takes_any_size_and_promises_nothing() -> None:
    made = encoder("test_resnet")
    assert made.image_size is None
    assert not made.masks_padding
    assert run(made, noise(1, 2, 1, 70, 130)).pooled.shape == (1, 24)


def test_the_mask_and_the_mean_leave_out_padding() -> None:
    frames, real = noise(2, 1, 2, 96, 96), torch.tensor([[96, 96], [33, 64]])
    with torch.no_grad():
        out = encoder("test_resnet", output="grid")(frames, real)
    expected = [[True, True, False], [True, True, False], [False] * 3]
    assert out.mask.reshape(2, 2, 3, 3)[1].tolist() == [expected, expected]
    cells = out.tokens[1].reshape(2, 3, 3, 24)
    torch.testing.assert_close(out.pooled[1], cells[:, :2, :2].mean((0, 1, 2)))


def test_a_network_made_for_one_size_gets_another() -> None:
    own = TimmFrames(model="test_vit", pretrained=False)
    assert own.image_size == 160
    assert TimmFrames(model="test_vit", pretrained=False, image_size=64).backbone.pos_embed.shape[1] == 17  # 4 x 4 + 1
    with pytest.raises(ValueError, match="timm/test_vit takes 160 pixels at most, got 160 x 161"):
        run(own, noise(1, 1, 1, 160, 161))


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    ["test_resnet.safetensors", "test_resnet.r160_in1k.safetensors", "timm/test_resnet.r160_in1k/model.safetensors"],
)
def test_weights_are_found_in_weights_dir(place: str, tmp_path: Path, no_network: list[object]) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    network = library("test_resnet", file)
    for model in ("test_resnet", "test_resnet.r160_in1k"):
        if model in place or model == "test_resnet":
            made = TimmFrames(model=model, weights_dir=tmp_path)
            assert made.backbone.conv1[0].weight.equal(network.conv1[0].weight)
    assert no_network == []


def test_a_head_in_the_file_is_left_out_and_need_not_be_there(tmp_path: Path) -> None:
    network = library("test_vit", tmp_path / "with.safetensors")
    tensors = {name: value for name, value in network.state_dict().items() if not name.startswith("head.")}
    torch.save({"state_dict": {f"module.{name}": value for name, value in tensors.items()}}, tmp_path / "without.pth")
    for file in ("with.safetensors", "without.pth"):
        made = TimmFrames(model="test_vit", pretrained=file, weights_dir=tmp_path)
        assert made.backbone.state_dict().keys() == tensors.keys()
        assert all(value.equal(tensors[name]) for name, value in made.backbone.state_dict().items())
        assert "state_dict" not in made.backbone.pretrained_cfg


@pytest.mark.parametrize("spoil", ["lacks", "has besides"])
def test_weights_that_do_not_fit_are_refused(spoil: str, tmp_path: Path) -> None:
    tensors = dict(library("test_vit", tmp_path / "w.safetensors").state_dict())
    tensors["blocks.9.norm1.weight"] = tensors.pop("blocks.0.norm1.weight") if spoil == "lacks" else torch.zeros(64)
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w.pth: does not fit timm/test_vit: .*norm1.weight"):
        TimmFrames(model="test_vit", pretrained=str(tmp_path / "w.pth"))


def test_without_a_network_the_error_says_what_to_download_and_where_to_put_it(
    tmp_path: Path, no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(CheckpointError) as caught:
        TimmFrames(model="pvt_v2_b0", weights_dir=tmp_path)
    file = tmp_path / "pvt_v2_b0.safetensors"
    assert f"get model.safetensors of https://huggingface.co/timm/pvt_v2_b0.in1k; put it at {file}" in str(caught.value)
    assert no_network
    library("pvt_v2_b0", file)
    TimmFrames(model="pvt_v2_b0", weights_dir=tmp_path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x.pth does not exist, nor does .*/x.pth; write a file or folder"):
        TimmFrames(model="test_vit", pretrained="x.pth", weights_dir=tmp_path)


def test_names_that_timm_does_not_know() -> None:
    with pytest.raises(ComponentError, match=r"timm has no model 'resnet5O' \(did you mean 'resnet50'\?\)"):
        TimmFrames(model="resnet5O", pretrained=False)
    with pytest.raises(ComponentError, match="timm has no weights 'a9' of pvt_v2_b0; there are: in1k"):
        TimmFrames(model="pvt_v2_b0.a9", pretrained=False)


def test_parameters_that_a_model_has_not_are_refused() -> None:
    told = "drop_path: timm/vgg11 has no such parameter; leave it out"
    with torch.device("meta"), pytest.raises(ComponentError, match=told):
        TimmFrames(model="vgg11", pretrained=False, drop_path=0.1)
    told = "pool: must be mean, the head of timm/mobilenetv3_small_050 is no vector of 288 channels"
    with torch.device("meta"), pytest.raises(ComponentError, match=told):
        TimmFrames(model="mobilenetv3_small_050", pretrained=False, pool="own")


@pytest.mark.parametrize(
    ("model", "params", "told"),
    [
        ("coat_lite_tiny", {}, "gives 50 cells for 224 x 224 pixels, which are no grid"),  # 7 x 7 and a class token
        ("crossvit_tiny_240", {}, "must make one grid of cells, makes several"),
        ("hrnet_w18_small", {}, "cannot see pictures of 225 x 225 pixels, and without image_size .* set it to 224"),
        ("hrnet_w18_small", {"image_size": 233}, "image_size: timm/hrnet_w18_small cannot see pictures of 233 x 233"),
        ("hrnet_w18_small", {"image_size": 224, "gradient_checkpointing": True}, "must be false, no blocks are found"),
    ],
)
def test_backbones_that_would_fail_later_are_refused_at_once(model: str, params: dict[str, Any], told: str) -> None:
    with torch.device("meta"), pytest.raises(ComponentError, match=told) as caught:
        TimmFrames(model=model, pretrained=False, **params)
    assert "\n" not in str(caught.value)


def test_a_backbone_that_wants_multiples_of_a_size_sees_squares_of_it() -> None:
    made = TimmFrames(model="hrnet_w18_small", pretrained=False, image_size=64).eval()
    assert run(made, noise(1, 1, 1, 33, 50)).pooled.shape == (1, 768)


# --- training ---------------------------------------------------------------------------------------------------------


def test_frozen_norms_keep_their_statistics_and_are_not_trained() -> None:
    made = TimmFrames(model="test_resnet", pretrained=False, freeze_norm=True, dim=None).train()
    free = TimmFrames(model="test_resnet", pretrained=False, dim=None).train()
    free.load_state_dict(made.state_dict())  # the same names
    frames = noise(2, 1, 2, 64, 64)
    for model, moves in ((made, False), (free, True)):
        before = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
        model(frames, whole(frames)).pooled.sum().backward()
        assert before
        moved = [name for name, value in before.items() if not value.equal(model.state_dict()[name])]
        assert bool(moved) == moves
        assert any(".bn" in name for name, _ in model.named_parameters()) == moves


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "pvt_v2_b0"])
def test_recomputing_changes_no_gradient(model: str) -> None:
    def make(recomputes: bool) -> TimmFrames:
        return TimmFrames(
            model=model, pretrained=False, image_size=64, dim=None, drop_path=0.0, gradient_checkpointing=recomputes
        ).eval()

    check_recomputing(make, noise(1, 2, 1, 64, 64))


@pytest.mark.parametrize(
    ("model", "counts"),
    [
        ("resnet50", [3, 4, 6, 3]),
        ("pvt_v2_b2", [3, 4, 6, 3]),
        ("vit_small_patch16_224", [12]),
        ("swin_tiny_patch4_window7_224", [2, 2, 6, 2]),
        ("convnext_tiny", [3, 3, 9, 3]),
        ("cait_xxs24_224", [24]),
    ],
)
def test_stages_are_those_of_the_paper(model: str, counts: list[int]) -> None:
    with torch.device("meta"):
        made = TimmFrames(model=model, pretrained=False)
    assert [len(blocks) for blocks in stages(made.backbone)] == counts
    assert len(made.blocks()) == sum(counts)


@pytest.mark.parametrize("model", KINDS)
def test_every_block_takes_part_in_the_forward_pass(model: str) -> None:
    """Sharding and recomputing work on blocks that are called, not on parts that a network reaches into."""
    made = encoder(model, temporal="transformer", temporal_depth=2)
    called: set[int] = set()
    for block in made.blocks():
        block.register_forward_pre_hook(lambda module, _: called.add(id(module)))
    side = made.image_size or 64
    run(made, noise(1, 2, 1, side, side))
    assert called == set(map(id, made.blocks()))
    inside = sum(parameter.numel() for block in made.blocks()[:-2] for parameter in block.parameters())
    assert inside > 0.6 * sum(parameter.numel() for parameter in made.backbone.parameters())
