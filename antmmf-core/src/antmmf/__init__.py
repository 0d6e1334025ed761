"""AntMMF: multimodal (video, image and text) pre-training, fine-tuning and inference.

Importing this package imports no torch; every public name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "antmmf.errors": ("AntmmfError", "CheckpointError", "ComponentError", "ConfigError", "DataError", "PluginError"),
    "antmmf.contracts": (
        "Assets",
        "Clip",
        "Collator",
        "ContrastiveLoss",
        "Dataset",
        "Encoded",
        "Figure",
        "FrameReader",
        "FusionEncoder",
        "Metric",
        "Record",
        "Sample",
        "Sampler",
        "Segment",
        "Term",
        "TextEncoder",
        "Tokenizer",
        "Transform",
        "VisionEncoder",
    ),
    "antmmf.batch": ("Batch",),
    "antmmf.task": ("Task", "TaskOutput"),
    "antmmf.hookspecs": ("hookimpl",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'antmmf' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
