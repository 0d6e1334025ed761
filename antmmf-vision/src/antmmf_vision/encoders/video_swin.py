"""Video Swin Transformer (Liu et al. 2021, arXiv:2106.13230) on torchvision's ``swin3d``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from antmmf import torchvision_shim
from antmmf.contracts import Encoded
from antmmf.errors import ComponentError
from antmmf.pretrained import given, missing, only_shapes, shaped, stored
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from antmmf_vision.encoders import weights
from antmmf_vision.encoders.building import Checkpointing, recompute_stages
from antmmf_vision.encoders.cells import Output, mean_of_real, real_cells
from antmmf_vision.encoders.pixels import Pixels

Size = Literal["tiny", "small", "base"]

_STRIDE = 32  # of the last stage: a patch of 4 pixels, halved three times
_SIZES: dict[Size, tuple[int, list[int], list[int]]] = {
    # width of the first stage, blocks and heads of each: table 1 of the paper, and torchvision's swin3d_t, _s, _b
    "tiny": (96, [2, 2, 6, 2], [3, 6, 12, 24]),
    "small": (96, [2, 2, 18, 2], [3, 6, 12, 24]),
    "base": (128, [2, 2, 18, 2], [4, 8, 16, 32]),
}
_NAMES: dict[str, dict[Size, str]] = {
    # what a config may call torchvision's weights, and how torchvision does
    "kinetics400": {
        "tiny": "Swin3D_T_Weights.KINETICS400_V1",
        "small": "Swin3D_S_Weights.KINETICS400_V1",
        "base": "Swin3D_B_Weights.KINETICS400_V1",
    },
    "kinetics400_imagenet22k": {"base": "Swin3D_B_Weights.KINETICS400_IMAGENET22K_V1"},
}


class VideoSwin(nn.Module):
    """Attention in windows that move over space and time; all clips of a video are one sequence of frames, as in
    AntMMF, or each stands alone (``across_clips: false``).

    ``small`` is what the SNP-S3 paper calls "VideoSwin-B": AntMMF's sizes are those of Swin-S. ``temporal_stride`` 1
    is AntMMF's too: patches of two frames that overlap, with one empty frame at the end, so that every frame keeps
    cells of its own. With 2, as in torchvision, two frames share theirs, and an odd number is filled up.

    ``pretrained`` is true or a name for torchvision's weights (``kinetics400``; for base also
    ``kinetics400_imagenet22k``), or a file or folder: torchvision's own, Video Swin's, or VIOLET's
    ``ckpt_video-swin.pt``, from which AntMMF starts. Attention sees what lies beside a picture: only with
    ``image_size``, the side of a square on which every frame is laid, does padding change nothing.
    """

    def __init__(
        self,
        *,
        size: Size = "small",
        temporal_stride: Literal[1, 2] = 1,
        across_clips: bool = True,
        pretrained: bool | str = True,
        weights_dir: Path | None = None,
        image_size: Annotated[int, Field(ge=_STRIDE)] | None = None,
        output: Output = "clip",
        drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        gradient_checkpointing: Checkpointing = False,
    ) -> None:
        super().__init__()
        self.image_size, self.masks_padding = image_size, image_size is not None
        self._temporal_stride, self._across_clips, self._output = temporal_stride, across_clips, output
        self.pixels = Pixels(owner="video_swin", side=image_size)
        self.backbone: Any = shaped(lambda: _backbone(size, drop_path))
        self.dim = _SIZES[size][0] * 8  # doubled at each of three merges
        if pretrained is not False:
            _load(self.backbone, size, "kinetics400" if pretrained is True else pretrained, weights_dir)
        recompute_stages(self._stages(), gradient_checkpointing)

    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
        """``frames`` (B, C, F, 3, H, W) uint8, ``sizes`` (B, 2).

        Tokens are the clips, (B, C, dim): the mean over their frames and real cells; or, with ``output: grid``, all
        cells in the order of time.
        """
        b, c, f = frames.shape[:3]
        pixels = self.pixels(frames, sizes)  # (B, C * F, 3, H, W)
        if not self._across_clips:
            pixels = pixels.reshape(b * c, f, *pixels.shape[2:])
        x = self.backbone.pos_drop(self._patches(pixels.transpose(1, 2)))  # (B or B * C, T, h, w, width)
        x = self.backbone.norm(self.backbone.features(x))
        real = real_cells(sizes, grid=(x.shape[2], x.shape[3]), stride=_STRIDE).flatten(1)  # (B, K)
        cells = x.flatten(2, 3).reshape(b, -1, real.shape[1], self.dim)  # (B, slots, K, D)
        clips = self._clips(mean_of_real(cells, real), c, f)
        tokens, mask = clips, real.new_ones(b, c)
        if self._output == "grid":
            tokens, mask = cells.flatten(1, 2), real.repeat(1, cells.shape[1])
        return Encoded(tokens=tokens, mask=mask, pooled=clips.mean(dim=1), clips=clips)

    def blocks(self) -> Sequence[nn.Module]:
        """The blocks of all stages."""
        return [block for stage in self._stages() for block in stage]

    def _stages(self) -> list[list[nn.Module]]:
        return [list(stage) for stage in self.backbone.features[::2]]  # between them, cells are merged

    def _patches(self, video: Tensor) -> Tensor:
        """``patch_embed``, which with stride 1 sees every pair of frames: (N, 3, T, H, W) to (N, T', h, w, width)."""
        embed = self.backbone.patch_embed
        if self._temporal_stride == 2:
            patches: Tensor = embed(video)
            return patches
        height, width = video.shape[-2:]
        filled = F.pad(video, (0, -width % 4, 0, -height % 4, 0, 1))
        x = F.conv3d(filled, embed.proj.weight, embed.proj.bias, stride=(1, 4, 4))
        normed: Tensor = embed.norm(x.permute(0, 2, 3, 4, 1))
        return normed

    def _clips(self, slots: Tensor, num_clips: int, num_frames: int) -> Tensor:
        """(B, slots, D) to (B, C, D). With stride 2 a slot is two frames, which may be of two clips."""
        if self._temporal_stride == 2:
            sequences = 1 if self._across_clips else num_clips
            slots = slots.view(len(slots), sequences, -1, self.dim).repeat_interleave(2, dim=2)
            slots = slots[:, :, : num_clips * num_frames // sequences]  # (B, sequences, frames of each, D)
        return slots.reshape(len(slots), num_clips, num_frames, self.dim).mean(dim=2)


def _backbone(size: Size, drop_path: float) -> nn.Module:
    torchvision_shim.apply()
    from torchvision.models.video import SwinTransformer3d  # type: ignore[import-untyped]

    width, depths, heads = _SIZES[size]
    network: nn.Module = SwinTransformer3d(
        patch_size=[2, 4, 4],
        embed_dim=width,
        depths=depths,
        num_heads=heads,
        window_size=[8, 7, 7],
        stochastic_depth_prob=drop_path,
    )
    network.avgpool, network.head = nn.Identity(), nn.Identity()
    return network


def _load(network: nn.Module, size: Size, source: str, weights_dir: Path | None) -> None:
    """Fill ``network`` from a file, or from torchvision's weights, here or downloaded; raises ``CheckpointError``."""
    if source in _NAMES and size not in _NAMES[source]:
        raise ComponentError(f"pretrained: there is no {source} of size {size}, only of {', '.join(_NAMES[source])}")
    path = _stored(size, source, weights_dir) if source in _NAMES else given(source, weights_dir)
    if only_shapes():
        return
    tensors = weights.read(path) if path else _download(size, source, weights_dir)
    weights.load(network, torchvision_names(tensors), source=str(path or source), surplus=("head.", "cls_head."))


def _stored(size: Size, source: str, weights_dir: Path | None) -> Path | None:
    """Torchvision's file in ``weights_dir``, by its own name or ours."""
    file = _url(size, source).rpartition("/")[2]
    return stored([file, f"swin3d_{size}_{source}"], weights_dir)


def _url(size: Size, source: str) -> str:
    torchvision_shim.apply()
    from torchvision.models import get_weight  # type: ignore[import-untyped]

    url: str = get_weight(_NAMES[source][size]).url
    return url


def _download(size: Size, source: str, weights_dir: Path | None) -> Mapping[str, Tensor]:
    url = _url(size, source)
    try:
        tensors: Mapping[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        place = url.rpartition("/")[2]
        raise missing(f"video_swin {source}", source=url, place=place, weights_dir=weights_dir, reason=error) from error
    return tensors


_RENAMED = (
    # in Video Swin's own code, VIOLET and mmaction2 -> in torchvision
    (re.compile(r"^backbone\."), ""),
    (re.compile(r"^norm3\."), "norm."),
    (re.compile(r"^layers\.(\d+)\.blocks\.(\d+)\."), lambda found: f"features.{2 * int(found[1])}.{found[2]}."),
    (re.compile(r"^layers\.(\d+)\.downsample\."), lambda found: f"features.{2 * int(found[1]) + 1}."),
    (re.compile(r"(?<=\.mlp\.)fc1\."), "0."),
    (re.compile(r"(?<=\.mlp\.)fc2\."), "3."),
)


def torchvision_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` under torchvision's names, whether they come from there or from Video Swin's own code."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)
        renamed[name] = tensor
    return renamed
