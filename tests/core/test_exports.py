"""What ``antmmf`` and ``antmmf.testing`` export lazily is what type checkers see."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import antmmf
import antmmf.testing
import pytest


@pytest.mark.parametrize("package", [antmmf, antmmf.testing], ids=lambda package: package.__name__)
def test_lazy_names_are_those_that_type_checkers_see(package: object) -> None:
    path = Path(str(package.__file__))  # type: ignore[attr-defined]
    block = next(node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If))
    seen = {name.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert seen == package._HOME  # type: ignore[attr-defined]


@pytest.mark.parametrize("package", [antmmf, antmmf.testing], ids=lambda package: package.__name__)
def test_every_exported_name_exists(package: object) -> None:
    for name, module in package._HOME.items():  # type: ignore[attr-defined]
        assert getattr(package, name) is getattr(import_module(module), name)
    assert set(dir(package)) >= set(package._HOME)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("statement", ["import antmmf", "from antmmf.testing import fake_distribution"])
def test_importing_loads_no_torch(statement: str) -> None:
    code = f"{statement}\nimport sys\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
