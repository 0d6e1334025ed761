"""The hook that answers for whole families of visual encoders: ``timm/<model>`` and ``hf/<id or folder>``.

The families themselves are imported only when a config names one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from antmmf import hookimpl
from antmmf.families import bound


@hookimpl
def antmmf_resolve(kind: str, name: str) -> Callable[..., Any] | None:
    """The encoder that ``name`` stands for; raises ``ComponentError`` for a model that timm does not know."""
    family, _, model = name.removeprefix("antmmf-vision:").partition("/")
    if kind != "vision_encoders" or not model:
        return None
    if family == "timm":
        from antmmf_vision.encoders.timm_frames import TimmFrames, check_name

        check_name(model)
        return bound(TimmFrames, model)
    if family == "hf":
        from antmmf_vision.encoders.hf_vision import HfVision

        return bound(HfVision, model)
    return None
