"""The shell scripts that AntMMF's README names: POSIX, tiny, and of recipes that exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from antmmf.recipes import recipe_files
from antmmf.registry import Registry

HERE = Path(__file__).parent
SCRIPTS = sorted(HERE.rglob("*.sh"))
LOCAL = HERE / "local_test" / "coco_vg.local.sh"
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

pytestmark = pytest.mark.skipif(shutil.which("dash") is None, reason="dash is not here")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_posix_runs_a_recipe_that_exists_and_lets_arguments_override(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert subprocess.run(["dash", "-n", str(script)], capture_output=True, text=True).stderr == ""
    (recipe,) = re.findall(r"\bantmmf run (\S+)", text)
    assert recipe in recipe_files(Registry())
    assert text.rstrip().endswith('"$@"')


def test_every_pretraining_recipe_has_a_script_of_its_name() -> None:
    recipes = {name for name in recipe_files(Registry()) if name.startswith("pretrain/")}
    assert {f"pretrain/{path.stem}" for path in (HERE / "pretrain").glob("*.sh")} == recipes


def test_a_script_goes_on_in_the_folder_that_the_recipe_of_the_second_part_reads() -> None:
    for script in (HERE / "pretrain").glob("*.sh"):
        assert f"save_dir=save/pretrain/{script.stem} " in script.read_text(encoding="utf-8")


def test_the_local_script_trains_on_miniatures_of_coco_and_visual_genome_under_dash(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": PATH, "DATA": str(tmp_path)}
    command = ["dash", str(LOCAL), "training_parameters.max_iterations=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, cwd=tmp_path)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, said[-3000:]
    assert "train: antmmf-tasks:coco: 16 videos" in said
    assert "train: antmmf-tasks:visual_genome: 24 videos" in said
    (run,) = tmp_path.glob("run-*")
    assert (run / "checkpoints" / "step_000002").is_dir()
    assert (run / "predictions" / "val.jsonl").is_file()
