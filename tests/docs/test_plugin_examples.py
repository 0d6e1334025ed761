"""The examples in docs/plugins.md are whole modules that do what the text says."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from antmmf import AntmmfError, Figure
from antmmf.bind import signature_model
from antmmf.contracts import RunInfo, RunState, StepReport
from antmmf.plugins import apply_defaults, hook_names, new_manager, register

TEXT = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")


def example(heading: str) -> ModuleType:
    """The Python example below a heading, as a module."""
    section = TEXT.partition(f"\n## {heading}")[2] or TEXT.partition(f"\n### {heading}")[2]
    assert section, f"docs/plugins.md has no heading {heading}"
    code = re.search(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert code is not None
    module = ModuleType("example")
    exec(compile(code[1], f"docs/plugins.md: {heading}", "exec"), module.__dict__)
    return module


def hook_of(module: ModuleType) -> Any:
    manager = new_manager()
    register(manager, module, name="example")
    return manager.hook


@pytest.mark.parametrize("name", hook_names())
def test_each_example_implements_the_hook_of_its_heading_and_no_other(name: str) -> None:
    hook = hook_of(example(name))
    assert [each for each in hook_names() if getattr(hook, each).get_hookimpls()] == [name]


def test_the_sampler_repeats_the_last_frame_of_a_short_video() -> None:
    sampler = example("A component in two lines of TOML").First(num_frm=4)
    assert sampler(np.array([0.0, 0.5]), None).tolist() == [[0, 1, 1, 1]]


def test_the_loss_is_half_the_distance_of_the_owned_texts() -> None:
    module = example("Not packaged yet")
    vectors = torch.eye(2)
    term = module.ANTMMF_COMPONENTS["losses"]["half"]()(vectors, vectors, torch.tensor([0, -1]))
    assert (float(term.sum), int(term.count), term.weight) == (0.0, 1, 0.5)


def test_resolve_answers_for_its_family_only() -> None:
    hook = hook_of(example("antmmf_resolve"))
    sampler = hook.antmmf_resolve(kind="samplers", name="frames/4")()
    assert sampler(np.arange(8.0), None).shape == (1, 4)
    assert hook.antmmf_resolve(kind="readers", name="frames/4") is None
    signature_model(hook.antmmf_resolve(kind="samplers", name="frames/4"))


def test_defaults_are_offered_by_dotted_key() -> None:
    manager = new_manager()
    register(manager, example("antmmf_config_defaults"), name="example")
    assert apply_defaults(manager, {}) == [("example", "training_parameters.enable_amp", True)]


def test_run_start_writes_into_the_run_folder(tmp_path: Path) -> None:
    info = RunInfo("small", tmp_path, 1, 1, 1, "cpu", (), {})
    hook_of(example("antmmf_run_start")).antmmf_run_start(info=info, state=RunState(step=3))
    assert (tmp_path / "note.txt").read_text(encoding="utf-8") == "small on cpu from step 3\n"


def test_step_end_stops_a_run_whose_loss_is_no_number() -> None:
    report = StepReport(float("nan"), {}, 0.1, None, 1, {})
    with pytest.raises(AntmmfError, match="must be finite"):
        hook_of(example("antmmf_step_end")).antmmf_step_end(state=RunState(), report=report)


def test_eval_end_and_checkpoint_saved_write_where_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = RunState(step=7)
    figures = {"val/t2v/R1": Figure(50.0)}
    hook_of(example("antmmf_eval_end")).antmmf_eval_end(state=state, split="val", figures=figures)
    assert Path("evaluations.tsv").read_text(encoding="utf-8") == "val\t7\tval/t2v/R1\t50.00\n"
    (tmp_path / "step_000007").mkdir()
    hook_of(example("antmmf_checkpoint_saved")).antmmf_checkpoint_saved(state=state, path=tmp_path / "step_000007")
    assert Path("mirror/step_000007").is_dir()


def test_should_stop_waits_for_a_lower_bound_above_ninety() -> None:
    hook = hook_of(example("antmmf_should_stop"))
    for low, expected in ((95.0, True), (85.0, None)):
        assert hook.antmmf_should_stop(state=RunState(), figures={"val/t2v/R1": Figure(96.0, low, 99.0, 9)}) is expected


def test_run_end_says_what_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    info = RunInfo("small", Path(), 1, 1, 1, "cpu", (), {})
    hook_of(example("antmmf_run_end")).antmmf_run_end(info=info, state=RunState(), error="no space")
    assert capsys.readouterr().err == "\ano space\n"
