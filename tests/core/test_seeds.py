"""``antmmf run --seeds``: a run a seed, each in its folder, and what they say together."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from antmmf.cli import run as cli
from antmmf.cli.main import main
from antmmf.cli.seeds import parse_seeds, seeds_table, spreads
from antmmf.errors import ConfigError

HERE = Path(__file__).parent.with_name("plugins")
TINY = ["run", str(HERE / "tiny.yml"), "--plugin", str(HERE / "mine.py"), "-q"]


def figure(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 4}


def code_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_mean_and_deviation_are_over_seeds_and_the_interval_is_the_mean_of_the_ends() -> None:
    found = spreads([{"a": figure(1, 0, 4)}, {"a": figure(2, 1, 5)}, {"a": figure(6, 2, 9), "b": figure(1)}])
    assert list(found) == ["a"]
    assert found["a"].mean == 3
    assert found["a"].std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert (found["a"].low, found["a"].high) == (1, 6)
    assert str(found["a"]) == "3.00 ± 2.65"


def test_one_seed_has_no_deviation() -> None:
    assert str(spreads([{"a": figure(1.5)}])["a"]) == "1.50"


@pytest.mark.parametrize("text", ["", "0,", "0,0", "1,01", "-1", "0 1", "a"])
def test_seeds_that_are_no_different_numbers_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds must be different whole numbers"):
        parse_seeds(text)


def test_a_run_without_results_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"seed0 must be a run folder whose run came to its end"):
        seeds_table([tmp_path / "seed0"])


def test_each_seed_runs_in_a_folder_of_its_own_and_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEEN", str(tmp_path))
    place = f"training_parameters.save_dir={tmp_path / 'runs'}"
    assert code_of(*TINY, "--seeds", "3,1", place) == 0
    for seed in (3, 1):
        written = (tmp_path / "runs" / f"seed{seed}" / "config.yml").read_text()
        assert f"  seed: {seed}\n" in written
    assert code_of(*TINY, "--seeds=3,1", place) == 2
    assert "is not empty; set training_parameters.resume auto" in capfd.readouterr().err
    more = ("training_parameters.resume=auto", "training_parameters.max_iterations=3")
    assert code_of(*TINY, "--seeds", "3,1", place, *more) == 0
    for seed in (3, 1):
        assert json.loads((tmp_path / "runs" / f"seed{seed}" / "results.json").read_text())["step"] == 3


def test_several_processes_are_started_once_a_seed_until_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    def launch(given: dict[str, str], arguments: list[str]) -> int:
        assert given == {"nproc-per-node": "2"}
        started.append(arguments)
        return 7 * (len(started) == 2)

    monkeypatch.setattr(cli, "launch", launch)
    place = f"training_parameters.save_dir={tmp_path}"
    assert code_of(*TINY, place, "--nproc-per-node=2", "--seeds", "5,6,7") == 7
    wanted = [[*TINY, place, *_own(tmp_path, seed)] for seed in (5, 6)]
    assert started == wanted


def _own(folder: Path, seed: int) -> list[str]:
    return [f"training_parameters.seed={seed}", f"training_parameters.save_dir={folder / f'seed{seed}'}"]


def test_seeds_and_smoke_do_not_go_together(capfd: pytest.CaptureFixture[str]) -> None:
    assert code_of(*TINY, "--seeds", "0", "--smoke") == 2
    assert "--seeds must not go with --smoke" in capfd.readouterr().err
