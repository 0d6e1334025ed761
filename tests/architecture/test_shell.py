"""The shell (names, hooks, config, command line) costs no torch, and the test that says so can fail."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tree import shell_modules

HEAVY = {"torch", "torchvision", "torchmetrics", "timm", "transformers", "tokenizers", "numpy", "pyarrow", "av"}
PROBE = """
import json, sys
{before}
try:
    from antmmf.cli.main import main
    main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
finally:
    print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})), file=sys.stderr)
"""


def loaded(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has imported after running ``code``."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return HEAVY & set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["list"], ["list", "--json"], ["list", "hooks"], ["version"]]
)
def test_commands_that_only_read_load_nothing_heavy(arguments: list[str]) -> None:
    assert loaded(PROBE.format(before="", arguments=arguments)) == set()


@pytest.mark.parametrize("package", ["torch", "numpy"])
def test_the_probe_notices_a_heavy_package(package: str) -> None:
    assert package in loaded(PROBE.format(before=f"import {package}", arguments=["list"]))


def test_no_module_of_the_shell_imports_torch_when_it_is_imported() -> None:
    imports = "\n".join(f"import {name}" for name in shell_modules())
    tail = (
        'import json, sys; print(json.dumps(sorted(name.partition(".")[0] for name in sys.modules)), file=sys.stderr)'
    )
    assert loaded(f"{imports}\n{tail}") == set()


def test_importing_antmmf_loads_nothing_heavy_until_a_name_needs_it() -> None:
    tail = (
        'import json, sys; print(json.dumps(sorted(name.partition(".")[0] for name in sys.modules)), file=sys.stderr)'
    )
    assert loaded(f"import antmmf; antmmf.Record\n{tail}") == set()
    assert "torch" in loaded(f"import antmmf; antmmf.Batch\n{tail}")
