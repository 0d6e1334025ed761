"""Video models and CLIP's relatives from transformers: ``hf/<id or folder>``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from antmmf.contracts import Encoded
from antmmf.errors import ComponentError
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize as unit

from antmmf_vision.encoders.building import Checkpointing, recompute_stages
from antmmf_vision.encoders.cells import Output, encoded, mean_of_real, real_cells
from antmmf_vision.encoders.hf_models import TOWERS, VIDEO_MODELS, VisionModel, layers, load
from antmmf_vision.encoders.pixels import Pixels
from antmmf_vision.encoders.temporal import Pooling, TemporalPool

Positive = Annotated[int, Field(gt=0)]


class HfVision(nn.Module):
    """VideoMAE, TimeSformer, ViViT and X-CLIP on each clip, the vision towers of CLIP, Chinese-CLIP and SigLIP on each
    frame, then ``temporal`` pooling over clips or frames; ``hf/<id or folder>``, which needs ``antmmf-vision[hf]``.

    What is pooled is the model's own vector (``pool: own``): as ``get_image_features`` or X-CLIP's
    ``get_video_features`` give it, else the class token; or the mean of the real cells (``mean``). VideoMAE's own is
    that mean, through the norm before its classifier where it has one. Cells of CLIP and X-CLIP pass the same norm
    and projection as its own vector; ``projection: false`` takes CLIP and Chinese-CLIP before theirs. ``dim`` adds a
    linear layer to that size. ``normalize`` scales the vector of each frame, or clip, to length 1 before they are
    pooled over time, as CLIP4Clip does.

    A folder is read without the network, also ``weights_dir/<id>``. With ``pretrained: false`` only ``config.json``
    is needed. Frames are laid on a square of the model's own size, so that padding changes nothing.
    """

    masks_padding = True

    def __init__(
        self,
        *,
        model: str,
        pretrained: bool = True,
        weights_dir: Path | None = None,
        dim: Positive | None = None,
        output: Output = "clip",
        pool: Literal["own", "mean"] = "own",
        projection: bool = True,
        normalize: bool = False,
        temporal: Pooling = "mean",
        temporal_depth: Positive = 4,
        max_frames: Positive = 64,
        gradient_checkpointing: Checkpointing = False,
    ) -> None:
        super().__init__()
        loaded = load(model, pretrained=pretrained, weights_dir=weights_dir)
        self._name, self._kind, self._config, self._output = f"hf/{model}", loaded.kind, loaded.config, output
        self._check(loaded, pool=pool, projection=projection)
        self.image_size = _side(self._name, self._config)
        self.pixels = Pixels(owner=self._name, side=self.image_size, **loaded.settings)
        self.backbone: Any = loaded.network
        self.visual_projection: Any = loaded.projection if projection else None
        self.mit: Any = loaded.mit
        self.fc_norm = loaded.norm if pool == "own" else None
        self._pool = "mean" if loaded.kind == "videomae" else pool
        self._normalize = normalize
        given = self._config.hidden_size
        if self.visual_projection is not None:
            given = self.visual_projection.out_features
        self.dim: int = dim or given
        self.projection = nn.Linear(given, dim) if dim else nn.Identity()
        self.temporal = TemporalPool(temporal, dim=self.dim, depth=temporal_depth, max_frames=max_frames)
        recompute_stages([self._layers()], gradient_checkpointing)

    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
        """``frames`` (B, C, F, 3, H, W) uint8, ``sizes`` (B, 2).

        Tokens are the clips, (B, C, dim), or with ``output: grid`` all cells in the order of time. Raises
        ``ValueError`` for clips of a length that the model does not take.
        """
        b, c, f = frames.shape[:3]
        pixels = self.pixels(frames, sizes)  # (B, C * F, 3, side, side)
        if self._kind in TOWERS:
            units = f
            states, own = self._see(pixels.flatten(0, 1))
        else:
            units = 1
            states, own = self._watch(pixels.reshape(b * c, f, *pixels.shape[2:]))
        cells = self.projection(states).reshape(b, c, units, -1, self.dim)
        rows = self.image_size // self._patch
        real = real_cells(sizes, grid=(rows, rows), stride=self._patch).flatten(1)
        real = real.repeat(1, cells.shape[3] // real.shape[1])  # (B, K), for each slot of a clip
        if self._pool == "own":
            vectors = self.projection(own).reshape(b, c, units, self.dim)
        elif self.fc_norm is not None:
            means = mean_of_real(states.reshape(b, c, units, -1, states.shape[-1]), real)
            vectors = self.projection(self.fc_norm(means))
        else:
            vectors = mean_of_real(cells, real)
        if self._normalize:
            vectors = unit(vectors, dim=-1)
        return encoded(cells, vectors, real, output=self._output, temporal=self.temporal)

    def blocks(self) -> Sequence[nn.Module]:
        """The layers of the model, of X-CLIP's transformer over frames, and of the temporal transformer."""
        return [*self._layers(), *self.temporal.blocks()]

    @property
    def _patch(self) -> int:
        """Pixels from one cell to the next."""
        tubelet = getattr(self._config, "tubelet_size", None)  # ViViT's is (time, height, width), VideoMAE's is time
        size = tubelet[1] if isinstance(tubelet, Sequence) else self._config.patch_size
        return int(size[0] if isinstance(size, Sequence) else size)

    def _layers(self) -> list[nn.Module]:
        return layers(self.backbone) + (layers(self.mit) if self.mit is not None else [])

    def _see(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, 3, side, side) to the states of the patches (N, K, given) and the tower's own vectors (N, given)."""
        out = self.backbone(pixels)
        states, own = out.last_hidden_state[:, {**TOWERS, **VIDEO_MODELS}[self._kind] :], out.pooler_output
        if self.visual_projection is None:
            return states, own
        return self.visual_projection(self.backbone.post_layernorm(states)), self.visual_projection(own)

    def _watch(self, clips: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, F, 3, side, side) to states (N, slots * K, given), slot by slot, and the model's own vectors."""
        n, f = clips.shape[:2]
        if f != self._config.num_frames:
            raise ValueError(
                f"{self._name} takes clips of {self._config.num_frames} frames, got {f}: "
                f"set num_frm: {self._config.num_frames} in the sampler"
            )
        if self._kind == "xclip":
            states, own = self._see(clips.flatten(0, 1))
            assert own is not None
            return states.reshape(n, -1, states.shape[-1]), self.mit(own.reshape(n, f, -1))[1]
        states = self.backbone(clips).last_hidden_state
        prefix = VIDEO_MODELS[self._kind]
        own, states = states[:, 0], states[:, prefix:]
        if self._kind == "timesformer":  # patch by patch, each with its frames
            states = states.reshape(n, -1, f, states.shape[-1]).transpose(1, 2).flatten(1, 2)
        return states, own

    def _check(self, loaded: VisionModel, *, pool: str, projection: bool) -> None:
        if loaded.kind == "xclip" and not projection:
            raise ComponentError(f"projection: must be true, {self._name} pools what it projects")
        has_head = getattr(loaded.config, "vision_use_head", True)  # SigLIP's
        if pool == "own" and not has_head:
            raise ComponentError(f"pool: must be mean, {self._name} has no pooling head")
        if loaded.kind == "timesformer" and loaded.config.attention_type == "space_only":
            raise ComponentError(
                f"{self._name}: attention_type space_only has no vector of a clip; there is no use for it"
            )


def _side(name: str, config: Any) -> int:
    size = config.image_size
    height, width = size if isinstance(size, Sequence) else (size, size)
    if height != width:
        raise ComponentError(f"{name}: its pictures must be square, are {height} x {width}")
    return int(height)
