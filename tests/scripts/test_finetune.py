"""The scripts of fine-tuning: one a recipe, and those of each task train and predict, with small encoders."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from antmmf.plan import plan_run
from antmmf.recipes import recipe_files
from antmmf.registry import Registry
from antmmf.run import Run, assemble
from antmmf_tasks.miniatures import write_miniature

HERE = Path(__file__).parent / "finetune"
VISION = "{type: antmmf-vision:small_video, params: {depth: 1, image_size: 32}}"
SMALL = (
    f"model_attributes.vision_encoder={VISION}",
    "model_attributes.text_encoder.params.name=google/bert_uncased_L-2_H-128_A-2",
    "model_attributes.text_encoder.params.pretrained=false",
    "input_attributes.sampler.params.n_clips=2",
    "input_attributes.train_transform.params.size=32",
    "input_attributes.eval_transform.params.size=32",
    "training_parameters.batch_size=4",
    "training_parameters.test_batch_size=4",
    "training_parameters.num_workers=0",
    "training_parameters.num_threads=1",
    "training_parameters.device=cpu",
)

pytestmark = pytest.mark.skipif(shutil.which("dash") is None, reason="dash is not here")


def carried_out(script: str, folder: Path, *arguments: str) -> Run:
    """What the script starts, on one process and inside this one: a stand-in for ``antmmf`` notes what it is given."""
    stand_in = folder / "bin" / "antmmf"
    stand_in.parent.mkdir(exist_ok=True)
    stand_in.write_text('#!/bin/sh\nfor each in "$@"; do printf "%s\\n" "$each"; done\n', encoding="utf-8")
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["dash", str(HERE / script), *SMALL, f"dataset_attributes.data_root_dir={folder / 'data'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    verb, recipe, option, processes, *given = done.stdout.splitlines()
    assert (verb, option, processes) == ("run", "--nproc-per-node", "auto")
    run = assemble(plan_run(recipe, given, registry=Registry()))
    run.execute()
    return run


def predicting(script: str) -> list[str]:
    """The arguments that a script's own comment gives for predictions."""
    said = (HERE / script).read_text(encoding="utf-8")
    (command,) = re.findall(rf"^#   sh {re.escape(script)} ((?:.*\\\n)?.*)$", said, flags=re.MULTILINE)
    return shlex.split(command.replace("\\\n#", " "))


def test_every_recipe_of_fine_tuning_has_a_script_that_saves_under_its_name() -> None:
    found = []
    for script in HERE.glob("*.sh"):
        (recipe,) = re.findall(r"antmmf run (finetune/\w+)", script.read_text(encoding="utf-8"))
        assert f" training_parameters.save_dir=save/{recipe} " in script.read_text(encoding="utf-8")
        found.append(recipe)
    assert sorted(found) == sorted(name for name in recipe_files(Registry()) if name.startswith("finetune/"))


def test_scripts_train_and_then_predict_as_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where they save
    for name in ("msrvtt", "msrvtt_mc", "msrvtt_qa"):
        write_miniature(name, tmp_path / "data" / name, num=12)
    short = ("training_parameters.max_iterations=1", "training_parameters.resume_file=null")
    for script in ("ret_msr_vtt_videoswin.sh", "vqa_msrvtt_qa_videoswin.sh"):
        trained = carried_out(script, tmp_path, *short)
        assert trained.state.step == 1
        assert (trained.folder / "report.html").is_file()
        predicted = carried_out(script, tmp_path, *predicting(script))
        assert predicted.state.step == 0
        assert predicted.folder != trained.folder
        own, same = trained.task.state_dict(), predicted.task.state_dict()
        assert all(own[name].equal(same[name]) for name in own)
        lines = [run.folder.joinpath("predictions", "test.jsonl").read_text("utf-8") for run in (trained, predicted)]
        assert lines[0] == lines[1] != ""
    script = "mcvqa_msr_vtt_mc_qa_videoswin.sh"
    folder = carried_out(script, tmp_path).folder
    assert "test/accuracy" in (folder / "results.json").read_text(encoding="utf-8")
    assert {path.name for path in (folder / "predictions").iterdir()} == {"test.jsonl", "test.parquet"}
    answers = carried_out(script, tmp_path, *predicting(script)).folder / "predictions" / "test.jsonl"
    assert answers.read_text(encoding="utf-8").count("\n") == 12
