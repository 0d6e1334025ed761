from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_after_the_shim_torchvision_and_timm_can_be_imported() -> None:
    code = "from antmmf.torchvision_shim import apply; apply(); import torchvision.transforms.v2, timm; print('whole')"
    assert run(code) == "whole"


def test_the_shim_can_be_applied_again_and_says_the_same() -> None:
    first, second = run("from antmmf.torchvision_shim import apply; print(apply(), apply())").split()
    assert first == second


def test_the_shim_leaves_operators_that_are_there_alone() -> None:
    code = """
import torch
torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from antmmf.torchvision_shim import apply
print(apply(), hasattr(torch.ops.torchvision, "qnms"))
"""
    assert run(code) == "False False"


def test_the_shim_imports_no_torchvision() -> None:
    code = "from antmmf.torchvision_shim import apply; apply(); import sys; print('torchvision' in sys.modules)"
    assert run(code) == "False"


def test_the_shim_can_wait_until_torchvision_is_imported() -> None:
    code = """
import sys
from antmmf.torchvision_shim import apply_when_needed
apply_when_needed()
print("torch" in sys.modules)
import torchvision.transforms.v2, timm
print("whole")
"""
    assert run(code).split() == ["False", "whole"]


@pytest.mark.parametrize("part", ["torchvision"])
def test_the_description_is_one_line_about(part: str) -> None:
    text = run("from antmmf.torchvision_shim import describe; print(describe())")
    assert part in text
    assert "\n" not in text
