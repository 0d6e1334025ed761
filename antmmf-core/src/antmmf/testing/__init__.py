"""For authors of plugins: checks that a component keeps its contract, and distributions made up for a test.

Importing this package imports no torch; a check does when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers only; a test compares this list with the next one
    from antmmf.testing.checks import check_component as check_component
    from antmmf.testing.checks import check_dataset as check_dataset
    from antmmf.testing.checks import check_loss as check_loss
    from antmmf.testing.checks import check_metric as check_metric
    from antmmf.testing.checks import check_plugin_module as check_plugin_module
    from antmmf.testing.checks import check_reader as check_reader
    from antmmf.testing.checks import check_sampler as check_sampler
    from antmmf.testing.checks import check_transform as check_transform
    from antmmf.testing.distributions import fake_distribution as fake_distribution
    from antmmf.testing.distributions import on_path as on_path
    from antmmf.testing.encoders import check_text_encoder as check_text_encoder
    from antmmf.testing.encoders import check_vision_encoder as check_vision_encoder

_HOMES = {
    "antmmf.testing.checks": (
        "check_component",
        "check_dataset",
        "check_loss",
        "check_metric",
        "check_plugin_module",
        "check_reader",
        "check_sampler",
        "check_transform",
    ),
    "antmmf.testing.encoders": ("check_text_encoder", "check_vision_encoder"),
    "antmmf.testing.distributions": ("fake_distribution", "on_path"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'antmmf.testing' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
