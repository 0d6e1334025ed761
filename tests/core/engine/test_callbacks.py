"""Console, JSON lines and TensorBoard."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from antmmf.callbacks.console import Console
from antmmf.callbacks.jsonl import JsonLines
from antmmf.callbacks.tensorboard import TensorBoard
from antmmf.contracts import Figure, RunInfo, RunState, StepReport
from antmmf.errors import PluginError
from antmmf.plugins import new_manager, register

REPORT = StepReport(
    loss=1.5,
    terms={"nce": 1.0, "mlm": 0.5},
    lr=1e-4,
    grad_norm=None,
    samples=8,
    seconds={"data": 0.3, "forward": 0.05, "backward": 0.05},
)
FIGURES = {"val/t2v/R1": Figure(25.0, 20.5, 30.25, 1000), "val/t2v/MdR": Figure(float("nan"))}


def run(callback: object, folder: Path, *, step: int = 20, start: int = 0) -> None:
    info = RunInfo("msrvtt", folder, 100, 10, 8, "cpu", ("1 epoch = 80 videos",), {})
    manager = new_manager()
    register(manager, callback, name="callback")
    hook, state = manager.hook, RunState(step=start)
    hook.antmmf_run_start(info=info, state=state)
    state.step = step
    hook.antmmf_step_end(state=state, report=REPORT)
    hook.antmmf_eval_end(state=state, split="val", figures=FIGURES)
    hook.antmmf_checkpoint_saved(state=state, path=folder / "c")
    hook.antmmf_run_end(info=info, state=state, error=None)


def test_without_a_terminal_the_console_prints_a_line_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Console(), tmp_path)
    out = capsys.readouterr().out
    assert "1 epoch = 80 videos" in out
    # 8 samples in 0.4 s; 80 steps of 0.4 s are left; 0.3 of 0.4 s went into waiting.
    line = "step 20/100  epoch 1  loss 1.5000  20.0 samples/s  lr 0.0001  0:00:32 left  waiting for data 75%"
    assert line in out


def test_the_console_shows_an_evaluation_on_the_way_as_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Console(), tmp_path)
    assert "val after step 20: val t2v R@1 25.00 [20.50, 30.25], n = 1,000" in capsys.readouterr().out


def test_the_console_shows_the_figures_of_the_end_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"test/t2v/R1": Figure(25.0, 20.5, 30.25, 1000)}
    Console().antmmf_eval_end(state=RunState(step=20), split="test", figures=figures)
    row = next(line for line in capsys.readouterr().out.splitlines() if "R@1" in line)
    assert row.split() == ["test", "t2v", "R@1", "25.00", "[20.50,", "30.25]", "1,000"]


def test_the_console_ends_with_first_figures_and_not_with_parts_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("test/accuracy", "test/unknown", "test/accuracy/colour", "test/l2/t2v/R1", "test/l2/t2v/R5")
    console = Console()
    console.antmmf_eval_end(state=RunState(), split="test", figures={name: Figure(25.0) for name in names})
    capsys.readouterr()
    console.antmmf_run_end(state=RunState(), error=None)
    assert capsys.readouterr().out.splitlines() == ["test accuracy 25.00", "test l2 t2v R@1 25.00"]


def test_the_console_can_show_a_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Console(progress=True), tmp_path)
    assert "20/100 loss 1.5000" in capsys.readouterr().out


@pytest.mark.parametrize("progress", [False, True])
def test_what_the_console_says_is_logged_also_beside_a_bar(
    progress: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "antmmf.said")
    run(Console(progress=progress), tmp_path)
    said = "\n".join(record.message for record in caplog.records if record.name == "antmmf.said")
    assert "step 20/100  epoch 1  loss 1.5000" in said
    assert "val after step 20: val t2v R@1 25.00" in said
    assert f"saved {tmp_path / 'c'}" in said


def test_json_lines_hold_reports_and_evaluations(tmp_path: Path) -> None:
    run(JsonLines(), tmp_path)
    step, evaluation = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert (step["kind"], step["step"], step["loss"], step["terms"]["mlm"]) == ("step", 20, 1.5, 0.5)
    assert step["grad_norm"] is None
    assert step["seconds"]["data"] == 0.3
    assert evaluation["split"] == "val"
    assert evaluation["figures"]["val/t2v/R1"] == {"value": 25.0, "low": 20.5, "high": 30.25, "n": 1000}
    assert evaluation["figures"]["val/t2v/MdR"]["value"] is None  # JSON has no NaN


def test_a_continued_run_drops_the_lines_that_come_again(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        run(JsonLines(), tmp_path, step=step, start=step - 10)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "cut')  # the process died in the middle of a line
    run(JsonLines(), tmp_path, step=30, start=20)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 10, 20, 20, 30, 30]


def test_tensorboard_gets_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra antmmf-core[tensorboard] is not installed")
    run(TensorBoard(), tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/terms/nce", "train/lr", "val/t2v/R1"} <= set(events.Tags()["scalars"])
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(20, 1.5)]


def test_without_tensorboard_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(PluginError, match=r'pip install "antmmf-core\[tensorboard\]"'):
        TensorBoard()
