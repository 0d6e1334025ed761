"""One constructor that answers for a whole family of components, such as ``timm/<model>``."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any


def bound(encoder: type, model: str) -> Callable[..., Any]:
    """``encoder`` for one model: a function whose signature, the config's schema, lacks the parameter ``model``."""

    def build(**params: Any) -> Any:
        return encoder(model=model, **params)

    functools.update_wrapper(build, encoder, assigned=("__doc__", "__module__"), updated=())
    del build.__wrapped__  # type: ignore[attr-defined]  # its signature is not this one's
    signature = inspect.signature(encoder)
    parameters = [parameter for name, parameter in signature.parameters.items() if name != "model"]
    hints = typing.get_type_hints(encoder.__init__, include_extras=True)  # type: ignore[misc]
    build.__name__ = build.__qualname__ = encoder.__name__
    build.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    build.__annotations__ = {parameter.name: hints[parameter.name] for parameter in parameters}
    return build
