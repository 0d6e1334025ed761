"""benchmarks/ablation_snps3.py: every arm runs, and its differences are those of pairs of seeds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "ablation_snps3.py"
TINY = "--steps 1 --tuning-steps 1 --clips 40 --tuning-clips 40 --test-clips 12 --batch 8 --workers 0 --seeds 0"
ARMS = {"none", "mlm_gvtm", "mssm_gvtm", "mlm_gvtm_lvwm", "mssm_gvtm_lvwm", "p3e"}


@pytest.fixture(scope="module")
def ablation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablation_snps3", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_one_step_of_every_arm(ablation: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = ablation.main([*TINY.split(), "--out", str(tmp_path / "out"), "--results", str(tmp_path / "out.json")])
    found = {(row["language"], row["arm"], row["figure"]) for row in result["figures"]}
    figures = [name for names in ablation.FIGURES.values() for name in names]
    arms = {*(("en", name) for name in ARMS), *(("zh", name) for name in ("none", "c1", "c2", "c3"))}
    assert found == {(*arm, figure) for arm in arms for figure in figures}
    assert {row["n"] for row in result["differences"]} == {1}
    assert (tmp_path / "out.json").is_file()
    capsys.readouterr()
    again = ablation.main([*TINY.split(), "--out", str(tmp_path / "out")])
    assert again["figures"] == result["figures"]
    assert "seed 0 pretrain:" not in capsys.readouterr().out  # nothing ran again


def test_differences_are_those_of_equal_seeds(ablation: ModuleType) -> None:
    found = ablation.paired({0: 3.0, 1: 5.0, 2: 7.0}, {2: 4.0, 1: 3.0, 0: 2.0, 9: 100.0})
    assert found["n"] == 3
    assert found["mean"] == pytest.approx(2.0)  # of 1, 2, 3, whose standard deviation is 1
    assert found["high"] - found["mean"] == pytest.approx(4.303 / 3**0.5)
    assert found["mean"] - found["low"] == pytest.approx(4.303 / 3**0.5)


def test_an_arm_wins_only_where_its_whole_interval_is_above_zero(ablation: ModuleType) -> None:
    row = {"against": "none", "figure": "t2v/R1", "low": 0.1}
    assert ablation.wins([row])
    assert not ablation.wins([row, {**row, "figure": "accuracy", "low": -0.1}])
    assert not ablation.wins([])
