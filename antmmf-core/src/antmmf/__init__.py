"""AntMMF: multimodal (video, image and text) pre-training, fine-tuning and inference.

Importing this package imports no torch; every public name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers only; a test compares this list with the next one
    from antmmf.batch import Batch as Batch
    from antmmf.contracts import Assets as Assets
    from antmmf.contracts import Clip as Clip
    from antmmf.contracts import Collator as Collator
    from antmmf.contracts import ContrastiveLoss as ContrastiveLoss
    from antmmf.contracts import Dataset as Dataset
    from antmmf.contracts import Encoded as Encoded
    from antmmf.contracts import Figure as Figure
    from antmmf.contracts import FrameReader as FrameReader
    from antmmf.contracts import FusionEncoder as FusionEncoder
    from antmmf.contracts import Metric as Metric
    from antmmf.contracts import Pick as Pick
    from antmmf.contracts import Record as Record
    from antmmf.contracts import RunInfo as RunInfo
    from antmmf.contracts import RunState as RunState
    from antmmf.contracts import Sample as Sample
    from antmmf.contracts import Sampler as Sampler
    from antmmf.contracts import Segment as Segment
    from antmmf.contracts import Source as Source
    from antmmf.contracts import StepReport as StepReport
    from antmmf.contracts import Term as Term
    from antmmf.contracts import TextEncoder as TextEncoder
    from antmmf.contracts import Tokenizer as Tokenizer
    from antmmf.contracts import Transform as Transform
    from antmmf.contracts import VisionEncoder as VisionEncoder
    from antmmf.errors import AntmmfError as AntmmfError
    from antmmf.errors import CheckpointError as CheckpointError
    from antmmf.errors import ComponentError as ComponentError
    from antmmf.errors import ConfigError as ConfigError
    from antmmf.errors import DataError as DataError
    from antmmf.errors import PluginError as PluginError
    from antmmf.hookspecs import hookimpl as hookimpl
    from antmmf.inference.model import Answer as Answer
    from antmmf.inference.model import Model as Model
    from antmmf.inference.model import load as load
    from antmmf.task import ContrastiveTask as ContrastiveTask
    from antmmf.task import Features as Features
    from antmmf.task import Share as Share
    from antmmf.task import Task as Task
    from antmmf.task import TaskOutput as TaskOutput

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
        "Pick",
        "Record",
        "RunInfo",
        "RunState",
        "Sample",
        "Sampler",
        "Segment",
        "Source",
        "StepReport",
        "Term",
        "TextEncoder",
        "Tokenizer",
        "Transform",
        "VisionEncoder",
    ),
    "antmmf.batch": ("Batch",),
    "antmmf.task": ("ContrastiveTask", "Features", "Share", "Task", "TaskOutput"),
    "antmmf.hookspecs": ("hookimpl",),
    "antmmf.inference.model": ("Answer", "Model", "load"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'antmmf' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
