"""Let torchvision be imported beside a torch that it was not compiled for.

PyPI's torchvision is a CUDA build. Beside a CPU torch its compiled operators cannot be loaded, and then the import
itself raises ``operator torchvision::nms does not exist``, and with it those of timm, transformers and torchmetrics.
Two operators whose schemas are known, though nothing computes them, are all that the import needs. Only detection
models call them. Where the builds match, nothing is changed.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_MARK = "antmmf_shim"  # an operator of ours in torchvision's namespace says that the schemas are the shim's


def apply() -> bool:
    """Define the missing schemas where torchvision's operators cannot be loaded; say whether the shim is in use.

    Call it before the first import of torchvision. Calling it again changes nothing.
    """
    import torch

    if _defined(_MARK):
        return True
    if _defined("nms") or not _is_installed() or _loads():
        return False
    for name, schema in {**_SCHEMAS, _MARK: "() -> ()"}.items():
        torch.library.define(f"torchvision::{name}", schema)
    return True


def apply_when_needed() -> None:
    """Apply it once somebody looks for torchvision, in a process that may do without it and without torch."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds nothing, but hears what is looked for."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            apply()


def describe() -> str:
    """One line on the state of torchvision's operators, for ``antmmf doctor``."""
    if not _is_installed():
        return "torchvision is not installed"
    if apply():
        return (
            "torchvision's compiled operators do not fit this torch; the shim stands in (detection models cannot run)"
        )
    return "torchvision's compiled operators are loaded; the shim is not needed"


def _defined(name: str) -> bool:
    import torch

    return hasattr(torch.ops.torchvision, name)


def _is_installed() -> bool:
    return find_spec("torchvision") is not None


def _loads() -> bool:
    """Load the compiled operators as torchvision would; False when they are absent or do not fit."""
    import torch

    spec = find_spec("torchvision")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    for library in (Path(folder) / f"_C{suffix}" for folder in folders for suffix in EXTENSION_SUFFIXES):
        if library.is_file():
            try:
                torch.ops.load_library(library)  # type: ignore[no-untyped-call]
            except OSError:
                return False
            return _defined("nms")
    return False
