"""The vision half of a transformers model: from a folder, ``weights_dir`` or the Hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from antmmf import torchvision_shim
from antmmf.errors import CheckpointError, ComponentError, did_you_mean
from antmmf.pretrained import missing, only_shapes, shaped, stored
from torch import nn

TOWERS = {
    # model_type in config.json: tokens before those of the patches; each sees one frame
    "clip": 1,
    "clip_vision_model": 1,
    "chinese_clip": 1,
    "chinese_clip_vision_model": 1,
    "siglip": 0,
    "siglip_vision_model": 0,
}
VIDEO_MODELS = {"videomae": 0, "timesformer": 1, "vivit": 1, "xclip": 1}
"""The same for models that see all frames of a clip."""

_OWN_CLASSES = ("CLIPVisionModelWithProjection", "VideoMAEForVideoClassification")
"""Classes in config.json that have something which the library's AutoModel of their kind leaves out."""

_KEPT = ("vision_model.", "visual_projection.", "mit.")  # of a model with a text half
_CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_SETTINGS: dict[str, dict[str, Any]] = {
    # how pixels are normalised where no file says so: the defaults of the library's own processors
    "clip": _CLIP,
    "chinese_clip": _CLIP,
    "xclip": _CLIP,
    "siglip": _HALF,
    "videomae": _HALF,
    "timesformer": _HALF,
    "vivit": {**_HALF, "unit": 1 / 127.5, "offset": 1.0},
}
_PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class VisionModel:
    """``network`` gives the states of patches; ``projection``, ``mit`` (X-CLIP's transformer over frames) and ``norm``
    (of VideoMAE's mean, before its classifier) are None where the model has none. ``config``
    is that of the vision half, ``settings`` are arguments of ``Pixels``.
    """

    kind: str
    config: Any
    network: nn.Module
    projection: nn.Module | None
    mit: nn.Module | None
    norm: nn.Module | None
    settings: dict[str, Any]


def load(name: str, *, pretrained: bool, weights_dir: Path | None) -> VisionModel:
    """The model called ``name``, a folder or a Hub id; without ``pretrained`` only its config is read.

    A folder is read without the network, and the network is not asked for the config of a model that this package
    knows, where that is all that is needed. Raises ``ComponentError`` or ``CheckpointError``.
    """
    transformers = _transformers(name)
    source, is_local = _source(name, weights_dir)
    known = shipped(name) if not is_local and (only_shapes() or not pretrained) else None
    try:
        if known is not None:
            config = transformers.AutoConfig.for_model(**known)
        else:
            config = transformers.AutoConfig.from_pretrained(source, local_files_only=is_local)
        _check_kind(name, config.model_type)
        settings = _settings(config.model_type, {} if known is not None else _processor(source, is_local))
        own = next((name for name in config.architectures or () if name in _OWN_CLASSES), None)
        kind = getattr(transformers, own or "AutoModel")
        if pretrained and not only_shapes():
            whole = _filled(kind, source, is_local, config)
        else:
            whole = shaped(lambda: kind(config) if own else kind.from_config(config, dtype=torch.get_default_dtype()))
    except (OSError, RuntimeError, ValueError) as error:
        if is_local:
            raise CheckpointError(f"hf/{name}: {source} cannot be read: {_first_line(error)}") from error
        files = "config.json, model.safetensors and preprocessor_config.json"
        raise missing(
            f"hf/{name}",
            source=f"{files} of https://huggingface.co/{name}",
            place=name,
            weights_dir=weights_dir,
            reason=error,
        ) from error
    if getattr(whole, "pooler", None) is not None:
        whole.pooler = None  # ViViT's, which no classifier uses and no checkpoint has
    return VisionModel(
        kind=config.model_type,
        config=getattr(config, "vision_config", config),
        network=getattr(whole, "vision_model", None) or getattr(whole, "videomae", whole),
        projection=getattr(whole, "visual_projection", None),
        mit=getattr(whole, "mit", None),
        norm=getattr(whole, "fc_norm", None),
        settings=settings,
    )


def shipped(name: str) -> dict[str, Any] | None:
    """The config of a model whose name this package knows; the pixels of all of them are normalised as is usual."""
    text = (resources.files("antmmf_vision") / "configs" / "towers.json").read_text(encoding="utf-8")
    known: dict[str, dict[str, Any]] = json.loads(text)
    return known.get(name)


def layers(module: nn.Module) -> list[nn.Module]:
    """The members of the outermost lists inside ``module``: a transformer's layers."""
    found: list[nn.Module] = []
    for child in module.children():
        found += list(child) if isinstance(child, nn.ModuleList) else layers(child)
    return found


def _transformers(name: str) -> Any:
    torchvision_shim.apply()
    try:
        import transformers
    except ImportError as error:
        raise ComponentError(f"hf/{name} needs transformers: pip install 'antmmf-vision[hf]'") from error
    return transformers


def _source(name: str, weights_dir: Path | None) -> tuple[str, bool]:
    """The folder of ``name`` and True, or its Hub id and False; raises ``CheckpointError``."""
    own = Path(name).expanduser()
    folder = own if own.is_dir() else stored([name], weights_dir)
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"hf/{name}: {folder} must be a folder with config.json and weights; it has none")
        return str(folder), True
    if name.startswith((".", "~", "/")) or name.count("/") > 1:
        raise CheckpointError(f"hf/{name}: there is no folder {own}")
    return name, False


def _check_kind(name: str, kind: str) -> None:
    known = [*TOWERS, *VIDEO_MODELS]
    if kind not in known:
        hint = did_you_mean(kind, known) or f"; there are: {', '.join(known)}"
        raise ComponentError(f"hf/{name}: its model_type must be one that has a vision half, is {kind!r}{hint}")


def _filled(kind: Any, source: str, is_local: bool, config: Any) -> Any:
    """The whole model with its weights, in float32; raises ``CheckpointError`` where the vision half lacks some."""
    whole, report = kind.from_pretrained(source, config=config, local_files_only=is_local, output_loading_info=True)
    has_text = hasattr(config, "text_config")
    lacking = [
        key
        for key in sorted(report["missing_keys"])
        if not key.startswith(("pooler.", "classifier.")) and (key.startswith(_KEPT) or not has_text)
    ]
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise CheckpointError(f"{source}: the weights must fill the model; {', '.join(lacking[:3])}{more} are missing")
    return whole.float()


def _settings(kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    """How pixels are normalised, as the processor's file says (``facts``), else as the library's processor of that
    kind does."""
    settings = dict(_SETTINGS[kind.removesuffix("_vision_model")])
    for ours, theirs in (("mean", "image_mean"), ("std", "image_std"), ("unit", "rescale_factor")):
        if theirs in facts:
            value = facts[theirs]
            settings[ours] = [value] * 3 if ours != "unit" and not isinstance(value, Sequence) else value
    if "offset" in facts:
        settings["offset"] = float(facts["offset"])
    if facts.get("do_normalize") is False:
        settings |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return settings


def _processor(source: str, is_local: bool) -> dict[str, Any]:
    for name in _PROCESSORS:
        path = Path(source) / name if is_local else _downloaded(source, name)
        if path is not None and path.is_file():
            facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return facts.get("image_processor") or facts.get("video_processor") or facts
    return {}


def _downloaded(source: str, name: str) -> Path | None:
    """A file of the Hub, or None where the repository has none, also by what the cache knows without a network.

    Raises ``OSError`` where that is not known.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, name))
    except LocalEntryNotFoundError:
        if try_to_load_from_cache(source, name) is None:  # else it is known not to exist
            raise
        return None
    except EntryNotFoundError:
        return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
