from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from antmmf import torchvision_shim
from antmmf.errors import CheckpointError, ComponentError
from antmmf.testing import check_component, check_vision_encoder
from antmmf_vision.encoders import video_swin
from antmmf_vision.encoders.video_swin import VideoSwin
from encoder_tools import check_recomputing, noise, normalised, randomised, sizes, whole, with_rubbish
from safetensors.torch import save_file
from torch import Tensor, nn

torchvision_shim.apply()
from torchvision.models import video as tv  # noqa: E402


@pytest.fixture(autouse=True)
def small_tiny(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """``tiny`` is a smaller network in the tests that do not compare it with torchvision."""
    if "library" not in request.fixturenames:
        monkeypatch.setitem(video_swin._SIZES, "tiny", (8, [2, 1, 1, 2], [1, 1, 2, 2]))


def encoder(**params: Any) -> VideoSwin:
    made = VideoSwin(**{"size": "tiny", "pretrained": False, **params})
    randomised(made.backbone)
    return made.eval()


@torch.no_grad()
def run(model: Any, frames: Tensor) -> Any:
    return model(frames, whole(frames))


def test_its_defaults_can_stand_in_a_config() -> None:
    check_component("vision_encoders", "video_swin")


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temporal_stride": 2},
        {"output": "grid", "across_clips": False},
        {"image_size": 64},
        {"image_size": 64, "output": "grid", "temporal_stride": 2, "across_clips": False},
    ],
)
def test_it_keeps_the_contract(params: dict[str, Any]) -> None:
    check_vision_encoder(encoder(**params), clips=3, frames=1)
    check_vision_encoder(encoder(**params), clips=2, frames=3)


# --- equal to the library ---------------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path) -> tuple[nn.Module, Path]:
    """torchvision's own swin3d_t without its head, and its weights in a file."""
    network = randomised(tv.swin3d_t())
    torch.save(network.state_dict(), tmp_path / "swin3d_t.pth")
    network.head = nn.Identity()
    return network, tmp_path / "swin3d_t.pth"


def test_it_equals_torchvisions_own_forward_on_the_same_weights(library: tuple[nn.Module, Path]) -> None:
    network, file = library
    frames = noise(2, 2, 2, 64, 96)
    made = VideoSwin(size="tiny", temporal_stride=2, pretrained=str(file)).eval()
    pixels = made.pixels(frames, whole(frames))
    settings = tv.Swin3D_T_Weights.KINETICS400_V1.transforms()
    torch.testing.assert_close(pixels, normalised(frames, settings.mean, settings.std).flatten(1, 2))
    with torch.no_grad():
        expected = network(pixels.transpose(1, 2))  # the mean of all cells and pairs of frames
    torch.testing.assert_close(run(made, frames).pooled, expected)


def test_with_stride_1_every_frame_keeps_cells_of_its_own(library: tuple[nn.Module, Path]) -> None:
    """As in AntMMF: what torchvision makes of a video in which every frame stands twice, and a black one at the end."""
    network, file = library
    frames = noise(1, 4, 1, 64, 64)
    made = VideoSwin(size="tiny", pretrained=str(file), output="grid").eval()
    pixels = made.pixels(frames, whole(frames))  # (1, 4, 3, H, W)
    filled = torch.cat([pixels, torch.zeros_like(pixels[:, :1])], dim=1)
    pairs = filled[:, [0, 1, 1, 2, 2, 3, 3, 4]].transpose(1, 2)
    with torch.no_grad():
        cells = network.norm(network.features(network.patch_embed(pairs)))  # (1, 4, 2, 2, 768)
    out = run(made, frames)
    torch.testing.assert_close(out.tokens, cells.flatten(1, 3))
    torch.testing.assert_close(out.clips, cells.mean((2, 3)))


@pytest.mark.parametrize(("size", "weights"), [("tiny", "T"), ("small", "S"), ("base", "B")])
def test_its_parameters_are_as_many_as_published(monkeypatch: pytest.MonkeyPatch, size: Any, weights: str) -> None:
    """torchvision publishes them with the head for 400 classes. Swin-S: 49.8 M, as in table 2 of the paper."""
    published = getattr(tv, f"Swin3D_{weights}_Weights").KINETICS400_V1.meta["num_params"]
    monkeypatch.undo()  # the real sizes
    with torch.device("meta"):
        made = VideoSwin(size=size, pretrained=False)
    head = made.dim * 400 + 400
    assert sum(parameter.numel() for parameter in made.parameters()) + head == published
    if size == "small":
        assert round(published / 1e6, 1) == 49.8


# --- clips ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
def test_all_clips_are_one_video(stride: Any) -> None:
    made, frames = encoder(temporal_stride=stride, output="grid"), noise(2, 2, 2, 64, 64)
    as_one = run(made, frames.reshape(2, 1, 4, 3, 64, 64))
    torch.testing.assert_close(run(made, frames).tokens, as_one.tokens)


@pytest.mark.parametrize("stride", [1, 2])
def test_or_each_clip_stands_alone(stride: Any) -> None:
    made, frames = encoder(temporal_stride=stride, output="grid", across_clips=False), noise(2, 3, 3, 64, 64)
    together = run(made, frames)
    alone = [run(made, frames[:, k : k + 1]) for k in range(3)]
    torch.testing.assert_close(together.tokens, torch.cat([out.tokens for out in alone], dim=1))
    torch.testing.assert_close(together.clips, torch.cat([out.clips for out in alone], dim=1))
    across = run(encoder(temporal_stride=stride, output="grid"), frames)
    assert not torch.allclose(across.clips, together.clips)


def test_a_pair_of_frames_counts_for_the_clips_of_both() -> None:
    made = encoder(temporal_stride=2, output="grid")
    out = run(made, noise(1, 2, 3, 64, 64))
    slots = out.tokens.reshape(3, 4, made.dim).mean(1)  # frames 0 and 1, 2 and 3, 4 and 5
    torch.testing.assert_close(out.clips[0, 0], (2 * slots[0] + slots[1]) / 3)
    torch.testing.assert_close(out.clips[0, 1], (slots[1] + 2 * slots[2]) / 3)


@pytest.mark.parametrize("params", [{}, {"temporal_stride": 2, "across_clips": False}])
def test_a_video_alone_equals_the_video_in_a_batch(params: dict[str, Any]) -> None:
    made, frames = encoder(output="grid", **params), noise(3, 2, 2, 64, 64)
    together = run(made, frames)
    for k in range(3):
        torch.testing.assert_close(run(made, frames[k : k + 1]).tokens, together.tokens[k : k + 1])


# --- padding ----------------------------------------------------------------------------------------------------------


def test_padding_changes_nothing_with_an_image_size() -> None:
    made, frames = encoder(image_size=96), noise(2, 2, 1, 40, 64)
    padded = with_rubbish(frames, height=80, width=96)
    alone, within = run(made, frames), made(padded, sizes(2, 40, 64))
    torch.testing.assert_close(within.pooled, alone.pooled)
    torch.testing.assert_close(within.tokens, alone.tokens)


def test_without_one_it_promises_nothing_but_what_lies_there_does_not_matter() -> None:
    made, frames = encoder(), noise(1, 2, 1, 40, 64)
    assert not made.masks_padding
    one, other = (with_rubbish(frames, height=96, width=96) for _ in range(2))
    other[..., 40:, :] = 0
    torch.testing.assert_close(made(one, sizes(1, 40, 64)).tokens, made(other, sizes(1, 40, 64)).tokens)


def test_the_mask_and_the_mean_leave_out_padding() -> None:
    frames, real = noise(2, 2, 1, 96, 96), torch.tensor([[96, 96], [33, 64]])
    with torch.no_grad():
        grid = encoder(output="grid")(frames, real)
    assert grid.mask.reshape(2, 2, 3, 3)[0].all()
    expected = [[True, True, False], [True, True, False], [False] * 3]
    assert grid.mask.reshape(2, 2, 3, 3)[1].tolist() == [expected, expected]
    cells = grid.tokens[1].reshape(2, 3, 3, -1)
    torch.testing.assert_close(grid.clips[1], cells[:, :2, :2].mean((1, 2)))


# --- weights ----------------------------------------------------------------------------------------------------------


def theirs(name: str) -> str:
    """torchvision's name of a tensor to that in Video Swin's own code."""
    parts = name.split(".")
    if parts[0] == "features":
        stage, is_merge = divmod(int(parts[1]), 2)
        parts = (
            ["layers", str(stage), "downsample", *parts[2:]]
            if is_merge
            else ["layers", str(stage), "blocks", *parts[2:]]
        )
    return ".".join(
        {"0": "fc1", "3": "fc2"}.get(part, part) if before == "mlp" else part
        for before, part in zip(["", *parts[:-1]], parts, strict=True)
    )


@pytest.mark.parametrize(("wrapper", "prefix"), [(None, ""), ("state_dict", "backbone."), ("model", "module.")])
def test_weights_under_video_swins_own_names_are_read(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    """As in VIOLET's ckpt_video-swin.pt, mmaction2's files, and behind DDP."""
    made = encoder()
    tensors = {f"{prefix}{theirs(name)}": tensor for name, tensor in made.backbone.state_dict().items()}
    assert "layers.0.blocks.1.mlp.fc1.weight" in {name.removeprefix(prefix) for name in tensors}
    torch.save({wrapper: tensors} if wrapper else tensors, tmp_path / "ckpt_video-swin.pt")
    loaded = VideoSwin(size="tiny", pretrained="ckpt_video-swin.pt", weights_dir=tmp_path).eval()
    frames = noise(1, 2, 1, 64, 64)
    torch.testing.assert_close(run(loaded, frames).tokens, run(made, frames).tokens)


def test_torchvisions_file_is_found_by_its_name_in_weights_dir(tmp_path: Path, no_network: list[object]) -> None:
    made = encoder()
    head = {"head.weight": torch.zeros(400, 64), "head.bias": torch.zeros(400)}
    for file in ("swin3d_t-7615ae03.pth", "swin3d_tiny_kinetics400.safetensors"):
        folder = tmp_path / file.replace(".", "_")
        folder.mkdir()
        tensors = {name: tensor.contiguous() for name, tensor in made.backbone.state_dict().items()} | head
        save_file(tensors, folder / file) if file.endswith("tensors") else torch.save(tensors, folder / file)
        for name in (True, "kinetics400"):
            loaded = VideoSwin(size="tiny", pretrained=name, weights_dir=folder)
            assert loaded.backbone.norm.weight.equal(made.backbone.norm.weight)
    assert no_network == []


def test_weights_of_another_size_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tensors of the smaller network are in the larger one's file, with the same shapes."""
    monkeypatch.setitem(video_swin._SIZES, "small", (8, [2, 1, 3, 2], [1, 1, 2, 2]))
    torch.save(encoder(size="small").backbone.state_dict(), tmp_path / "small.pt")
    torch.save(encoder().backbone.state_dict(), tmp_path / "tiny.pt")
    with pytest.raises(CheckpointError, match=r"does not fit: it has besides features\.4\.1.* more"):
        VideoSwin(size="tiny", pretrained=str(tmp_path / "small.pt"))
    with pytest.raises(CheckpointError, match=r"does not fit: it lacks features\.4\.1"):
        VideoSwin(size="small", pretrained=str(tmp_path / "tiny.pt"))


def test_without_a_network_the_error_says_what_to_download_and_where_to_put_it(
    tmp_path: Path, no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    with pytest.raises(CheckpointError) as caught:
        VideoSwin(size="small", weights_dir=tmp_path)
    url = tv.Swin3D_S_Weights.KINETICS400_V1.url
    assert f"get {url}; put it at {tmp_path / url.rpartition('/')[2]}" in str(caught.value)
    with pytest.raises(CheckpointError, match="set weights_dir and put it at weights_dir/swin3d_s-"):
        VideoSwin(size="small")
    assert no_network


def test_imagenet22k_is_only_of_base() -> None:
    with pytest.raises(ComponentError, match="there is no kinetics400_imagenet22k of size tiny, only of base"):
        VideoSwin(size="tiny", pretrained="kinetics400_imagenet22k")


# --- training ---------------------------------------------------------------------------------------------------------


def test_recomputing_stages_changes_no_gradient() -> None:
    def make(recomputes: bool) -> VideoSwin:
        flags = [recomputes, False, recomputes, recomputes]
        return VideoSwin(size="tiny", pretrained=False, drop_path=0.0, gradient_checkpointing=flags)

    check_recomputing(make, noise(1, 2, 1, 64, 64))


def test_there_must_be_a_flag_for_each_stage() -> None:
    with pytest.raises(ComponentError, match="gradient_checkpointing: must have 4 values, one a stage, has 3"):
        VideoSwin(size="tiny", pretrained=False, gradient_checkpointing=[True] * 3)


def test_blocks_are_those_of_all_stages_and_the_last_drops_its_path() -> None:
    made = VideoSwin(size="tiny", pretrained=False, drop_path=0.3)
    assert [type(block).__name__ for block in made.blocks()] == ["SwinTransformerBlock"] * 6
    assert [round(block.stochastic_depth.p, 2) for block in made.blocks()] == [0.0, 0.06, 0.12, 0.18, 0.24, 0.3]
