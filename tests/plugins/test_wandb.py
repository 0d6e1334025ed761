"""plugins/antmmf-wandb, a tracker that needs hooks only: against a stand-in for wandb, and offline against wandb."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from antmmf import Figure, PluginError, RunInfo, StepReport
from antmmf.checkpoint import load_checkpoint
from antmmf.contracts import RunState
from antmmf.plan import plan_run
from antmmf.plugins import new_manager, register
from antmmf.registry import Registry
from antmmf.testing import check_component, on_path
from wandb_toys import PLUGIN, SOURCE, Service, install, read_offline

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "architecture"))

from test_size import code_lines  # noqa: E402

REPORT = StepReport(
    loss=1.5,
    terms={"contrastive": 1.0},
    lr=0.1,
    grad_norm=2.0,
    samples=4,
    seconds={"data": 0.5, "forward": 1.5},
    decode=3.0,
)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    """A stand-in for wandb."""
    service, module = Service(), ModuleType("wandb")
    module.init = service.init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return service


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """The plugin as if pip had installed it."""
    with on_path(install(tmp_path / "site")) as folder:
        yield folder


@pytest.fixture
def tracker(site: Path) -> Callable[..., Any]:  # noqa: ARG001
    """Builds the callback."""
    from antmmf_wandb.tracker import Wandb

    return Wandb


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two run folders."""
    found = tmp_path / "a", tmp_path / "b"
    for folder in found:
        folder.mkdir()
    return found


def hooks(tracker: object) -> Any:
    """The hooks of a run that has this callback only."""
    manager = new_manager()
    register(manager, tracker, name="callbacks.0 (antmmf-wandb:wandb)")
    return manager.hook


def info(folder: Path) -> RunInfo:
    return RunInfo("tiny", folder, 8, 2, 4, "cpu", (), {"optimizer_attributes": {"params": {"lr": 0.1}}})


def train(hook: Any, folder: Path, state: RunState, *, to: int) -> None:
    """Start at ``state`` and report every step up to ``to``."""
    hook.antmmf_run_start(info=info(folder), state=state)
    while state.step < to:
        state.step += 1
        hook.antmmf_step_end(state=state, report=REPORT)


def train_until_killed(tracker: Any, folder: Path, *, saved_at: int, killed_at: int) -> dict[str, Any]:
    """What a checkpoint of a run holds that trained on and then ended without ``antmmf_run_end``."""
    hook, state = hooks(tracker), RunState()
    train(hook, folder, state, to=saved_at)
    saved: dict[str, Any] = json.loads(json.dumps(tracker.state_dict()))
    for step in range(saved_at + 1, killed_at + 1):
        hook.antmmf_step_end(state=RunState(step=step), report=REPORT)
    return saved


def test_it_has_at_most_80_lines_of_code() -> None:
    assert 0 < sum(code_lines(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")) <= 80


def test_it_knows_nothing_of_antmmf_but_names_contracts_and_hooks() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    assert set(re.findall(r"^\s*(?:from|import) (antmmf\b[\w.]*)", text, re.MULTILINE)) == {
        "antmmf",
        "antmmf.contracts",
    }


def test_its_readme_names_its_parameters_and_their_defaults(service: Service, site: Path) -> None:  # noqa: ARG001
    from antmmf_wandb.tracker import Wandb

    parameters = set(inspect.signature(Wandb).parameters)
    readme = (PLUGIN / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \| none \|", readme, re.MULTILINE)) == parameters


def test_it_is_found_and_loads(service: Service, site: Path) -> None:  # noqa: ARG001
    check_component("callbacks", "antmmf-wandb:wandb")


def test_a_run_starts_with_its_config_in_its_folder(
    service: Service, tracker: Callable[..., Any], tmp_path: Path
) -> None:
    hook = hooks(tracker(project="clips", tags=("a", "b"), mode="offline"))
    hook.antmmf_run_start(info=info(tmp_path), state=RunState())
    (start,) = service.starts
    assert (start["project"], start["tags"], start["mode"], start["dir"]) == (
        "clips",
        ("a", "b"),
        "offline",
        str(tmp_path),
    )
    assert start["config"]["optimizer_attributes"] == {"params": {"lr": 0.1}}
    assert start["config"]["run"] == {"recipe": "tiny", "save_dir": str(tmp_path), "device": "cpu"}
    assert service.axes == [("*", "step")]


def test_what_nobody_chose_is_left_to_wandb(service: Service, tracker: Callable[..., Any], tmp_path: Path) -> None:
    hooks(tracker()).antmmf_run_start(info=info(tmp_path), state=RunState())
    assert [service.starts[0][name] for name in ("project", "entity", "name", "mode", "id")] == [None] * 5


def test_a_report_becomes_one_row(service: Service, tracker: Callable[..., Any], tmp_path: Path) -> None:
    train(hooks(tracker()), tmp_path, RunState(epoch=3), to=1)
    assert service.rows["run0"] == [
        {
            "_step": 1,
            "step": 1,
            "epoch": 3,
            "train/loss": 1.5,
            "train/terms/contrastive": 1.0,
            "train/lr": 0.1,
            "train/grad_norm": 2.0,
            "seconds/data": 0.5,
            "seconds/forward": 1.5,
            "seconds/decode": 3.0,
        }
    ]


def test_figures_join_the_row_of_their_step_and_the_summary(
    service: Service, tracker: Callable[..., Any], tmp_path: Path
) -> None:
    hook, state = hooks(tracker()), RunState()
    train(hook, tmp_path, state, to=2)
    state.best_value, state.best_step = 40.0, 2
    hook.antmmf_eval_end(state=state, split="val", figures={"val/t2v/R1": Figure(40.0, 35.0, 45.0, 100)})
    assert [row["step"] for row in service.rows["run0"]] == [1, 2]
    assert service.rows["run0"][-1]["val/t2v/R1"] == 40.0
    assert service.summaries["run0"] == {"val/t2v/R1": 40.0, "best_value": 40.0, "best_step": 2}


def test_the_summary_says_where_the_newest_checkpoint_is(
    service: Service, tracker: Callable[..., Any], tmp_path: Path
) -> None:
    hook = hooks(tracker())
    train(hook, tmp_path, RunState(), to=0)
    hook.antmmf_checkpoint_saved(state=RunState(step=4), path=tmp_path / "step_000004")
    assert service.summaries["run0"] == {"checkpoint": str(tmp_path / "step_000004"), "checkpoint_step": 4}


@pytest.mark.parametrize(("error", "code"), [(None, 0), ("DataError: no clip", 1)])
def test_the_end_of_a_run_tells_whether_it_failed(
    service: Service, tracker: Callable[..., Any], tmp_path: Path, error: str | None, code: int
) -> None:
    hook = hooks(tracker())
    train(hook, tmp_path, RunState(), to=1)
    for _ in range(2):  # the second one comes after the end: nothing is left to do
        hook.antmmf_run_end(info=info(tmp_path), state=RunState(), error=error)
    assert service.exits == [code]
    assert service.summaries["run0"] == {"error": error}


def test_a_run_that_ends_before_it_started_says_nothing(service: Service, tracker: Callable[..., Any]) -> None:
    hooks(tracker()).antmmf_run_end(info=None, state=RunState(), error="x")
    assert service.exits == []


def test_a_run_killed_after_a_checkpoint_goes_on_under_its_id_and_repeats_no_step(
    service: Service, tracker: Callable[..., Any], folders: tuple[Path, Path]
) -> None:
    saved = train_until_killed(tracker(), folders[0], saved_at=3, killed_at=5)
    second = tracker()
    second.load_state_dict(saved)
    train(hooks(second), folders[1], RunState(step=3), to=8)
    assert list(service.rows) == [saved["id"]]
    assert [row["step"] for row in service.rows[saved["id"]]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {start["resume"] for start in service.starts} == {"allow"}


def test_offline_a_run_that_goes_on_leaves_no_gap_after_its_checkpoint(
    service: Service, tracker: Callable[..., Any], folders: tuple[Path, Path]
) -> None:
    saved = train_until_killed(tracker(), folders[0], saved_at=3, killed_at=5)
    service.rows.clear()  # offline nobody remembers, and what was written last may be lost
    second = tracker()
    second.load_state_dict(saved)
    train(hooks(second), folders[1], RunState(step=3), to=8)
    assert [row["step"] for row in service.rows[saved["id"]]] == [4, 5, 6, 7, 8]


def test_a_run_killed_before_its_first_checkpoint_goes_on_under_its_id(
    service: Service, tracker: Callable[..., Any], tmp_path: Path
) -> None:
    train(hooks(tracker()), tmp_path, RunState(), to=2)
    train(hooks(tracker()), tmp_path, RunState(), to=4)
    assert {id: [row["step"] for row in rows] for id, rows in service.rows.items()} == {"run0": [1, 2, 3, 4]}


def test_another_folder_is_another_run(
    service: Service, tracker: Callable[..., Any], folders: tuple[Path, Path]
) -> None:
    for folder in folders:
        train(hooks(tracker()), folder, RunState(), to=1)
    assert list(service.rows) == ["run0", "run1"]


def test_a_disabled_run_forgets_no_id_and_leaves_none(
    service: Service, tracker: Callable[..., Any], tmp_path: Path
) -> None:
    fresh, continued = tracker(mode="disabled"), tracker(mode="disabled")
    continued.load_state_dict({"id": "abc"})
    for callback in (fresh, continued):
        train(hooks(callback), tmp_path, RunState(), to=1)
    assert (fresh.state_dict(), continued.state_dict()) == ({"id": None}, {"id": "abc"})
    assert not (tmp_path / "wandb_id.txt").exists()
    assert len(service.starts) == 2


def test_without_wandb_one_line_says_what_to_install(
    tracker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        PluginError, match=r'cannot import wandb: ModuleNotFoundError: .*; pip install "wandb>='
    ) as error:
        tracker()
    assert "\n" not in str(error.value)


def test_a_folder_called_wandb_is_not_wandb(tracker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))  # what import makes of a folder without Python files
    with pytest.raises(PluginError, match="cannot import wandb: ImportError"):
        tracker()


def test_a_broken_wandb_is_named_in_one_line(tracker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise TypeError("Descriptors cannot\nbe created directly")

    monkeypatch.setitem(sys.modules, "wandb", Broken("wandb"))
    with pytest.raises(PluginError) as error:
        tracker()
    assert "cannot import wandb: TypeError: Descriptors cannot be created directly; pip install" in str(error.value)


@pytest.mark.usefixtures("service")
def test_a_login_that_fails_ends_the_run_in_one_line(
    tracker: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("no API key\nUse wandb login")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(PluginError) as error:
        hooks(tracker()).antmmf_run_start(info=info(tmp_path), state=RunState())
    assert str(error.value) == (
        "callbacks.0 (antmmf-wandb:wandb) failed in antmmf_run_start: RuntimeError: no API key Use wandb login"
    )


@pytest.mark.usefixtures("site")
def test_a_run_stopped_and_resumed_is_one_wandb_run(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from antmmf.run import assemble

    monkeypatch.setenv("SEEN", str(tmp_path))
    folder = tmp_path / "run"
    for steps in (4, 6):
        settings = {"save_dir": folder, "log_interval": 1, "max_iterations": steps, "resume": "auto"}
        overrides = [f"training_parameters.{key}={value}" for key, value in settings.items()]
        plan = plan_run(
            str(HERE / "tiny.yml"),
            [*overrides, "callbacks=[{type: wandb, params: {project: clips}}]"],
            registry=Registry(files=[HERE / "mine.py"]),
        )
        assemble(plan).execute()
        (folder / "wandb_id.txt").unlink()  # the checkpoint is enough
    assert [row["step"] for row in service.rows["run0"]] == [1, 2, 3, 4, 5, 6]
    assert len(service.rows) == 1
    assert service.exits == [0, 0]
    path = Path(service.summaries["run0"]["checkpoint"])
    assert list(load_checkpoint(path).callbacks.values()) == [{"id": "run0"}]


# --- the real one -----------------------------------------------------------------------------------------------------


def installed() -> bool:
    """wandb itself, not a folder of that name."""
    spec = importlib.util.find_spec("wandb")
    return spec is not None and spec.origin is not None


@pytest.mark.skipif(not installed(), reason="wandb is not installed")
def test_wandb_itself_keeps_an_offline_run_under_one_id(site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for steps in (2, 4):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "antmmf", "run", str(HERE / "tiny.yml"), "--plugin", str(HERE / "mine.py")),
                *(f"training_parameters.save_dir={folder}", "training_parameters.resume=auto"),
                *("training_parameters.log_interval=1", f"training_parameters.max_iterations={steps}"),
                "callbacks=[{type: wandb, params: {project: clips, tags: [a], mode: offline}}]",
            ],
            env=offline_environment(site, tmp_path),
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
    parts = [read_offline(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]
    assert [part.steps for part in parts] == [[1, 2], [3, 4]]
    assert {part.id for part in parts} == {(folder / "wandb_id.txt").read_text()}
    assert all(part.project == "clips" and part.exit_code == 0 for part in parts)
    assert parts[1].config["run"]["recipe"] == "tiny"
    assert parts[1].config["training_parameters"]["max_iterations"] == 4
    assert parts[1].summary["checkpoint_step"] == 4


def offline_environment(site: Path, home: Path) -> dict[str, str]:
    """No setting of wandb's but none at all, and a home without a login."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    paths = os.pathsep.join(filter(None, [str(site), kept.get("PYTHONPATH", "")]))
    return {**kept, "PYTHONPATH": paths, "SEEN": str(home), "HOME": str(home)}
