"""Any timm backbone, on each frame by itself: ``timm/<model>``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from antmmf import torchvision_shim
from antmmf.contracts import Encoded
from antmmf.errors import CheckpointError, ComponentError, did_you_mean
from antmmf.pretrained import given, missing, only_shapes, shaped, stored
from pydantic import Field
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from antmmf_vision.encoders import weights
from antmmf_vision.encoders.building import Checkpointing, recompute_stages
from antmmf_vision.encoders.cells import Output, encoded, mean_of_real, real_cells
from antmmf_vision.encoders.pixels import Pixels
from antmmf_vision.encoders.temporal import Pooling, TemporalPool

Positive = Annotated[int, Field(gt=0)]


class TimmFrames(nn.Module):
    """A timm backbone on each frame, a 1x1 projection to ``dim`` channels (none with ``dim: null``), then ``temporal``
    pooling over the frames.

    A frame's vector is the mean of its real cells (``pool: mean``) or what the backbone itself would classify
    (``own``: class token, attention pooling). ``timm/pvt_v2_b2``, and ``timm/resnet50`` with ``freeze_norm: true``,
    are the encoders of the SNP-S3 paper. Backbones that are made for one size of picture get it from ``image_size``
    (default: the size they were trained with); frames are laid on a square of that many pixels, so that padding
    changes nothing. The others take frames as they are, unless ``image_size`` asks for such a square.

    ``pretrained`` is true for timm's weights (which ones, the model's tag says: ``timm/resnet50.a1_in1k``), or a file
    or folder. ``freeze_norm`` keeps the batch norms' statistics and factors as they are. ``temporal_depth`` layers
    and positions for ``max_frames`` belong to ``temporal: transformer``.
    """

    def __init__(
        self,
        *,
        model: str,
        pretrained: bool | str = True,
        weights_dir: Path | None = None,
        dim: Positive | None = 768,
        image_size: Positive | None = None,
        output: Output = "clip",
        pool: Literal["mean", "own"] = "mean",
        temporal: Pooling = "mean",
        temporal_depth: Positive = 4,
        max_frames: Positive = 64,
        drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None,
        freeze_norm: bool = False,
        gradient_checkpointing: Checkpointing = False,
    ) -> None:
        check_name(model)
        super().__init__()
        self._name, self._output, self._pool = f"timm/{model}", output, pool
        facts, wanted = _facts(model, image_size=image_size, drop_path=drop_path)
        with unset_fake_temporarily(), torch.device("meta"):  # where nothing is computed
            self.backbone: Any = _created(model, wanted).eval()
            self._check_features(image_size)
        self.backbone = _backbone(model, pretrained, weights_dir, facts, wanted)
        if freeze_norm:
            from timm.layers import freeze_batch_norm_2d  # type: ignore[attr-defined]

            self.backbone = freeze_batch_norm_2d(self.backbone)  # type: ignore[no-untyped-call]
        facts = self.backbone.pretrained_cfg
        self.image_size = image_size or (facts["input_size"][-1] if facts.get("fixed_input_size") else None)
        self.masks_padding = self.image_size is not None
        self.pixels = Pixels(owner=self._name, side=self.image_size, mean=facts["mean"], std=facts["std"])
        width: int = self.backbone.num_features
        if pool == "own" and getattr(self.backbone, "head_hidden_size", width) != width:
            raise ComponentError(f"pool: must be mean, the head of {self._name} is no vector of {width} channels")
        self.dim = dim or width
        self.projection = nn.Linear(width, dim) if dim else nn.Identity()
        self.temporal = TemporalPool(temporal, dim=self.dim, depth=temporal_depth, max_frames=max_frames)
        recompute_stages(stages(self.backbone), gradient_checkpointing)

    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
        """``frames`` (B, C, F, 3, H, W) uint8, ``sizes`` (B, 2).

        Tokens are the clips, (B, C, dim), or with ``output: grid`` all cells, (B, C * F * h * w, dim).
        """
        b, c, f = frames.shape[:3]
        pixels = self.pixels(frames, sizes)  # (B, C * F, 3, H, W)
        features = self.backbone.forward_features(pixels.flatten(0, 1))
        grid, stride = self._grid(features, pixels.shape[-2], pixels.shape[-1])
        real = real_cells(sizes, grid=grid, stride=stride).flatten(1)  # (B, K)
        cells = self.projection(self._cells(features)).reshape(b, c, f, -1, self.dim)
        if self._pool == "own":
            own = self.backbone.forward_head(features, pre_logits=True)  # (B * C * F, width)
            vectors = self.projection(own).reshape(b, c, f, self.dim)
        else:
            vectors = mean_of_real(cells, real)
        return encoded(cells, vectors, real, output=self._output, temporal=self.temporal)

    def blocks(self) -> Sequence[nn.Module]:
        """The backbone's blocks, then the layers of the temporal transformer."""
        return [block for stage in stages(self.backbone) for block in stage] + list(self.temporal.blocks())

    def _check_features(self, image_size: int | None) -> None:
        """Raise ``ComponentError`` where the backbone cannot see pictures of every size that it may be given, or does
        not make a grid of cells of one."""
        facts = self.backbone.pretrained_cfg
        own: int = facts["input_size"][-1]
        only = image_size or (own if facts.get("fixed_input_size") else None)
        for side in [only] if only else [own, own + 1]:
            try:
                features = self.backbone.forward_features(torch.empty(1, 3, side, side))
            except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
                where, advice = (
                    (f"image_size: {self._name}", "take another") if only else (self._name, f"set it to {own}")
                )
                raise ComponentError(
                    f"{where} cannot see pictures of {side} x {side} pixels"
                    f"{'' if only else ', and without image_size sizes vary'}; {advice} "
                    f"({(str(error).splitlines() or [type(error).__name__])[0][:120]})"
                ) from error
            if not isinstance(features, Tensor):
                raise ComponentError(f"{self._name} must make one grid of cells, makes several; choose another model")
            (rows, columns), _ = self._grid(features, side, side)
            cells = self._cells(features)
            if cells.shape[1:] != (rows * columns, self.backbone.num_features):
                raise ComponentError(f"{self._name} must make a grid of cells, makes {tuple(features.shape)}")

    def _cells(self, features: Tensor) -> Tensor:
        """(N, width, h, w), (N, h, w, width) or (N, prefix + h * w, width) to (N, h * w, width)."""
        if features.ndim == 3:
            return features[:, getattr(self.backbone, "num_prefix_tokens", 0) :]
        return features.flatten(1, 2) if self._is_channels_last(features) else features.flatten(2).transpose(1, 2)

    def _grid(self, features: Tensor, height: int, width: int) -> tuple[tuple[int, int], float]:
        """Rows and columns of cells, and how many pixels one is apart from the next."""
        reduction: int = self.backbone.feature_info[-1]["reduction"]
        if features.ndim == 4:
            places = features.shape[1:3] if self._is_channels_last(features) else features.shape[2:]
            return (places[0], places[1]), reduction
        count = features.shape[1] - getattr(self.backbone, "num_prefix_tokens", 0)
        for rounded in (math.ceil, math.floor):
            h, w = rounded(height / reduction), rounded(width / reduction)
            if h * w == count:
                return (h, w), reduction
        raise ComponentError(f"{self._name} gives {count} cells for {height} x {width} pixels, which are no grid")

    def _is_channels_last(self, features: Tensor) -> bool:
        return getattr(self.backbone, "output_fmt", "NCHW") == "NHWC" or features.shape[1] != self.backbone.num_features


def check_name(model: str) -> None:
    """Raise ``ComponentError`` when timm knows no such model, or no such weights of it."""
    torchvision_shim.apply()
    import timm

    name, _, tag = model.partition(".")
    if not timm.is_model(name):
        raise ComponentError(f"timm has no model {name!r}{did_you_mean(name, timm.list_models())}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        raise ComponentError(f"timm has no weights {tag!r} of {name}; there are: {', '.join(sorted(tags)) or 'none'}")


def stages(backbone: Any) -> list[list[nn.Module]]:
    """The blocks of each stage, as timm itself groups parameters by layers; a plain ViT is one stage."""
    grouping = backbone.group_matcher(coarse=False) if hasattr(backbone, "group_matcher") else None
    given = grouping.get("blocks") if isinstance(grouping, dict) else None
    given = [(given, None)] if isinstance(given, str) else given or [(r"^(?:blocks|stages|layers)\.(\d+)", None)]
    patterns = [re.compile(pattern) for pattern, level in given if level is None]  # others lie between blocks
    found: dict[str, list[nn.Module]] = {}
    taken = "\0"
    for name, module in backbone.named_modules():
        match = next(filter(None, (pattern.match(name) for pattern in patterns)), None)
        if match is None or match.end() != len(name) or name.startswith(f"{taken}.") or not _has_weights(module):
            continue
        taken = name
        inner = getattr(module, "blocks", None)
        if isinstance(inner, (nn.ModuleList, nn.Sequential)):  # this is a stage
            found[name] = list(inner)
        else:
            found.setdefault(match[1] if match.re.groups > 1 else "", []).append(module)
    return list(found.values())


def _has_weights(module: nn.Module) -> bool:
    return not isinstance(module, nn.ModuleList) and any(True for _ in module.parameters())


def _facts(model: str, *, image_size: int | None, drop_path: float | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What timm says of a model, and the arguments to create it with."""
    from timm.models import get_pretrained_cfg

    known: Any = get_pretrained_cfg(model)
    facts: dict[str, Any] = known.to_dict() if known else {}
    wanted: dict[str, Any] = {} if drop_path is None else {"drop_path_rate": drop_path}
    if facts.get("fixed_input_size") and image_size not in (None, facts["input_size"][-1]):
        wanted["img_size"] = image_size
    return facts, wanted


def _backbone(
    model: str, pretrained: bool | str, weights_dir: Path | None, facts: dict[str, Any], wanted: dict[str, Any]
) -> nn.Module:
    """The backbone without its head, filled as ``pretrained`` says. Raises ``AntmmfError``."""
    if pretrained is False:
        return _created(model, wanted)
    if isinstance(pretrained, str):
        path: Path | None = given(pretrained, weights_dir)
    else:
        path = stored(_names(model, facts), weights_dir)
    if only_shapes():
        return _created(model, wanted)
    if path is not None:
        return _from_file(model, wanted, facts, path)
    try:
        return _created(model, {**wanted, "pretrained": True})
    except Exception as error:  # each of the libraries below has its own kinds of failed downloads
        hub = facts.get("hf_hub_id")
        source = f"{facts.get('hf_hub_filename') or 'model.safetensors'} of https://huggingface.co/{hub}" if hub else ""
        source = source or facts.get("url") or "weights from elsewhere (timm has none of this model)"
        raise missing(
            f"timm/{model}", source=source, place=f"{model}.safetensors", weights_dir=weights_dir, reason=error
        ) from error


def _names(model: str, facts: dict[str, Any]) -> list[str]:
    """What timm's weights of a model may be called in ``weights_dir``."""
    full = f"{model.partition('.')[0]}.{facts['tag']}" if facts.get("tag") else model
    of_download = [str(facts["hf_hub_id"])] if facts.get("hf_hub_id") else []
    of_download += [str(facts["url"]).rpartition("/")[2]] if facts.get("url") else []
    return list(dict.fromkeys([full, model, model.partition(".")[0], *of_download]))


def _created(model: str, wanted: dict[str, Any]) -> nn.Module:
    import timm

    def make() -> nn.Module:
        network: Any = timm.create_model(model, **wanted)
        network.reset_classifier(0)  # only now, for timm loads strictly as long as the head is there
        made: nn.Module = network
        return made

    try:
        return shaped(make)
    except TypeError as error:
        given = {"drop_path_rate": "drop_path", "img_size": "image_size"}
        refused = next((ours for theirs, ours in given.items() if theirs in wanted and theirs in str(error)), None)
        if refused is None:
            raise
        raise ComponentError(f"{refused}: timm/{model} has no such parameter; leave it out") from error


def _from_file(model: str, wanted: dict[str, Any], facts: dict[str, Any], path: Path) -> nn.Module:
    """The backbone with the weights of a file, with or without a head, in any form that timm can read."""
    tensors = weights.read(path)
    heads = facts.get("classifier") or ()
    head = next((tensors.get(f"{name}.weight") for name in ((heads,) if isinstance(heads, str) else heads)), None)
    classes = 0 if head is None else len(head)
    overlay = {"state_dict": tensors, "num_classes": classes, "label_offset": 0}
    try:
        network = _created(
            model, {**wanted, "pretrained": True, "num_classes": classes, "pretrained_cfg_overlay": overlay}
        )
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise CheckpointError(f"{path}: does not fit timm/{model}: {text[:400]}") from error
    facts_of_network: Any = network.pretrained_cfg
    facts_of_network.pop("state_dict")  # it would stay in memory for good
    return network
