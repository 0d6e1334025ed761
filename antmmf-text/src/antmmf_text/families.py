"""The hook that answers for the family of text towers: ``hf/<id or folder>``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from antmmf import hookimpl
from antmmf.families import bound


@hookimpl
def antmmf_resolve(kind: str, name: str) -> Callable[..., Any] | None:
    """The encoder that ``name`` stands for; it is imported only then."""
    family, _, model = name.removeprefix("antmmf-text:").partition("/")
    if kind != "text_encoders" or family != "hf" or not model:
        return None
    from antmmf_text.encoders.hf_text import HfText

    return bound(HfText, model)
