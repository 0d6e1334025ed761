"""Tiny transformers models with random weights, as folders, and the encoders made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from antmmf import torchvision_shim
from encoder_tools import randomised, whole
from torch import Tensor

torchvision_shim.apply()
import transformers  # noqa: E402
from antmmf_vision.encoders.hf_vision import HfVision  # noqa: E402

SIDE, FRAMES, PATCH = 32, 4, 8
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": SIDE,
    "patch_size": PATCH,
}
_TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
_TEXT |= {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
_MIT = {"mit_hidden_size": 24, "mit_intermediate_size": 48, "mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}

TOWERS = ("clip", "chinese_clip", "siglip", "clip_vision_model", "siglip_vision_model")
VIDEO_MODELS = ("xclip", "videomae", "timesformer", "vivit")
KINDS = [*TOWERS, *VIDEO_MODELS]


def config(kind: str) -> Any:
    """A small config of a model_type."""
    halves = {"text_config": {**_TEXT, "projection_dim": 24}, "projection_dim": 24}
    made = {
        "clip": lambda: transformers.CLIPConfig(vision_config={**_SIZES, "projection_dim": 24}, **halves),
        "chinese_clip": lambda: transformers.ChineseCLIPConfig(vision_config=_SIZES, **halves),
        "siglip": lambda: transformers.SiglipConfig(vision_config=_SIZES, text_config={**_TEXT, "projection_size": 32}),
        "clip_vision_model": lambda: transformers.CLIPVisionConfig(**_SIZES),
        "siglip_vision_model": lambda: transformers.SiglipVisionConfig(**_SIZES),
        "xclip": lambda: transformers.XCLIPConfig(
            vision_config={**_SIZES, **_MIT, "num_frames": FRAMES}, prompt_num_attention_heads=2, **halves
        ),
        "videomae": lambda: transformers.VideoMAEConfig(**_SIZES, num_frames=FRAMES, use_mean_pooling=False),
        "timesformer": lambda: transformers.TimesformerConfig(**_SIZES, num_frames=FRAMES),
        "vivit": lambda: transformers.VivitConfig(**_SIZES, num_frames=FRAMES, tubelet_size=[2, PATCH, PATCH]),
    }
    return made[kind]()


def saved(kind: str, folder: Path) -> Any:
    """The library's model of a kind with random weights, which are also in ``folder``."""
    model = transformers.AutoModel.from_config(config(kind))
    randomised(model)
    model.save_pretrained(folder)
    return model.eval()


def encoder(folder: Path, **params: Any) -> HfVision:
    return HfVision(model=str(folder), **params).eval()


@torch.no_grad()
def run(model: Any, frames: Tensor) -> Any:
    return model(frames, whole(frames))


def pixels_of(made: HfVision, frames: Tensor) -> Tensor:
    """What the library is given: (B, C, F, 3, H, W)."""
    return made.pixels(frames, whole(frames)).reshape(frames.shape)
