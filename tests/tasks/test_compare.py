"""``antmmf compare``: groups of seeds, paired tests against values worked out by hand, what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from antmmf.errors import ConfigError
from antmmf_tasks.commands.compare import compare as command
from antmmf_tasks.comparison import compare, group_runs
from antmmf_tasks.finished import FinishedRun, finished_runs
from antmmf_tasks.paired import difference_interval, holm, sign_flip
from click.testing import CliRunner

Case = tuple[str, str, float]  # key, media, value


def write_run(
    folder: Path,
    cases: Sequence[Case] | None = None,
    *,
    seed: int = 0,
    value: float | None = None,
    dim: int = 8,
    dataset: str = "x:one",
    resume_file: str | None = None,
) -> Path:
    """A run's folder as compare reads it, with one figure ``test/a``."""
    train = {"seed": seed, "save_dir": str(folder), "resume": False, "resume_file": resume_file}
    config = {
        "task_attributes": {"type": "x:t", "params": {"dim": dim}},
        "dataset_attributes": {"test": [{"type": dataset, "params": {"data_root_dir": str(folder)}}]},
        "callbacks": [{"type": "x:c", "params": {"of": seed}}],
        "training_parameters": train,
    }
    folder.mkdir(parents=True)
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    number = len(cases) if cases else 3
    mean = float(np.mean([case[2] for case in cases])) if cases else value
    figures = {"test/a": {"value": mean, "low": mean, "high": mean, "n": number}}
    (folder / "results.json").write_text(json.dumps({"figures": figures}))
    if cases:
        keys, media, values = zip(*cases, strict=True)
        columns: dict[str, Any] = {"figure": ["a"] * number, "key": list(keys), "media": list(media)}
        table = {name: pa.array(column).dictionary_encode() for name, column in columns.items()}
        (folder / "cases").mkdir()
        pq.write_table(pa.table({**table, "part": [0] * number, "value": values}), folder / "cases" / "test.parquet")
    return folder


def groups_of(*folders: Path) -> Any:
    return group_runs(finished_runs(folders))


def hits(*values: float, media: str = "") -> list[Case]:
    """Cases q0, q1, ..., each of a video of its own, or all of one."""
    return [(f"q{number}", media or f"{number}.mp4", value) for number, value in enumerate(values)]


def test_sign_flip_tries_all_signs_of_a_few() -> None:
    # 1 + 2 + 3 = 6: of the 8 ways to give signs, only +++ and --- are as far from 0
    assert sign_flip(np.array([1.0, 2.0, 3.0])) == 2 / 8
    # 3 - 1 - 1 = 1: all of the 8 sums are odd, so none is nearer to 0
    assert sign_flip(np.array([3.0, -1.0, -1.0])) == 1.0


def test_sign_flip_of_hits_is_mcnemars_exact_test() -> None:
    # 8 queries found by one model alone, 1 by the other alone, 5 by both: twice the binomial tail of 8 or more of 9
    tail = sum(math.comb(9, k) for k in (8, 9)) / 2**9
    assert sign_flip(np.array([100.0] * 8 + [-100.0] + [0.0] * 5)) == pytest.approx(2 * tail)


def test_sign_flip_of_many_agrees_with_the_binomial_distribution() -> None:
    # 60 discordant queries, 40 : 20
    exact = 2 * sum(math.comb(60, k) for k in range(40, 61)) / 2**60
    found = sign_flip(np.array([1.0] * 40 + [-1.0] * 20))
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact / 10_000))


def test_sign_flip_of_no_difference_is_1_and_of_many_never_0() -> None:
    assert sign_flip(np.zeros(5)) == 1.0
    assert sign_flip(np.ones(100), num=99) == 1 / 100


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_interval_of_a_difference_resamples_videos_not_cases() -> None:
    # two videos: the difference is 0 in one (1 case) and 2 in the other (3 cases); resamples give 0, 1.5 and 2
    assert difference_interval(np.array([0.0, 6.0]), np.array([1.0, 3.0])) == (0.0, 2.0)
    assert difference_interval(np.array([6.0]), np.array([3.0])) == (2.0, 2.0)


def test_runs_that_differ_in_seed_and_place_are_one_group(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"a{seed}", value=2.0 * seed, seed=seed) for seed in (0, 1, 2)]
    groups = groups_of(*runs, write_run(tmp_path / "b", value=9, dim=16))
    assert [(group.name, group.seeds) for group in groups] == [("A", [0, 1, 2]), ("B", [0])]
    assert (groups[0].spreads["test/a"].mean, groups[0].spreads["test/a"].std) == (2.0, 2.0)


def test_a_first_part_of_the_same_seed_is_no_difference(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"a{n}", value=1, seed=n, resume_file=f"save/first/seed{n}/checkpoints") for n in (0, 1)
    ]
    other = write_run(tmp_path / "b", value=1, seed=0, resume_file="save/second/seed0/checkpoints")
    assert [group.seeds for group in groups_of(*runs, other)] == [[0, 1], [0]]


def test_a_folder_of_seeds_stands_for_its_runs(tmp_path: Path) -> None:
    for seed in (10, 9):
        write_run(tmp_path / "all" / f"seed{seed}", value=1, seed=seed)
    assert [run.folder.name for run in finished_runs([tmp_path / "all"])] == ["seed9", "seed10"]


def test_cases_are_paired_by_key_and_averaged_over_seeds(tmp_path: Path) -> None:
    ones = [write_run(tmp_path / f"a{s}", hits(0, 0, 100), seed=s) for s in (0, 1)]
    shuffled = [hits(0, 100, 100), hits(100, 100, 100)]
    others = [write_run(tmp_path / f"b{s}", shuffled[s][::-1], seed=s, dim=16) for s in (0, 1)]
    (row,) = compare(groups_of(*ones, *others))
    (test,) = row.tests
    assert test is not None
    # differences of the queries: (50, 100, 0): two that are not 0 and have the same sign, so p = 2 / 4
    assert (round(test.difference, 9), test.p, test.over, test.n) == (50, 0.5, "cases", 3)


def test_cases_of_one_video_keep_their_sign_together(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", hits(0, 0, 0, 0, media="same.mp4"))
    other = write_run(tmp_path / "b", hits(100, 100, 100, 100, media="same.mp4"), dim=16)
    ((test,),) = (row.tests for row in compare(groups_of(one, other)))
    assert test is not None
    assert test.p == 1.0  # one video cannot tell; four queries apart would give 2 / 16


def test_without_cases_runs_are_paired_by_seed(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"a{s}", value=v, seed=s) for s, v in ((0, 1.0), (1, 2.0), (2, 3.0))]
    folders += [write_run(tmp_path / f"b{s}", value=v, seed=s, dim=16) for s, v in ((2, 4.0), (1, 4.0), (0, 4.0))]
    ((test,),) = (row.tests for row in compare(groups_of(*folders)))
    assert test is not None
    assert (test.difference, test.p, test.over, test.n) == (2.0, 0.25, "seeds", 3)


def test_one_seed_without_cases_cannot_be_tested(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a", value=1), write_run(tmp_path / "b", value=2, dim=16)]
    assert [row.tests for row in compare(groups_of(*folders))] == [[None]]


def test_several_groups_are_corrected_together(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", hits(0, 0, 0, 0, 0, 0))
    better = write_run(tmp_path / "b", hits(100, 100, 100, 100, 100, 100), dim=16)
    near = write_run(tmp_path / "c", hits(100, 100, 100, 0, 0, 0), dim=32)
    ((one, other),) = (row.tests for row in compare(groups_of(first, better, near)))
    assert one is not None
    assert other is not None
    assert (one.p, one.corrected) == (2 / 64, 4 / 64)
    assert (other.p, other.corrected) == (2 / 8, 2 / 8)


@pytest.mark.parametrize(
    ("cases", "dataset"),
    [(hits(0, 0), "x:one"), (hits(0, 0, 0), "x:two"), ([*hits(0, 0), ("q9", "9.mp4", 0.0)], "x:one")],
    ids=["number", "data set", "cases"],
)
def test_runs_on_other_data_are_refused(tmp_path: Path, cases: list[Case], dataset: str) -> None:
    one, other = write_run(tmp_path / "a", hits(0, 0, 0)), write_run(tmp_path / "b", cases, dataset=dataset, dim=16)
    with pytest.raises(ConfigError, match="test must be the same data and split in all runs") as caught:
        groups_of(one, other)
    assert str(one) in str(caught.value)
    assert str(other) in str(caught.value)


def test_a_run_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", value=1)
    with pytest.raises(ConfigError, match="one config with one seed, 0: leave one out"):
        groups_of(folder, folder)


def test_a_folder_of_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be a run folder, has no config\.yml"):
        group_runs([FinishedRun(tmp_path)])


def test_the_command_prints_text_latex_and_json(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", hits(*[0] * 12))
    other = write_run(tmp_path / "b", hits(*[100] * 12), dim=16)
    text, latex, plain = (
        CliRunner().invoke(command, [str(one), str(other), *more], catch_exceptions=False).output
        for more in ([], ["--latex"], ["--json"])
    )
    assert "task_attributes.params.dim: A 8, B 16" in text
    assert "+100.00 [+100.00, +100.00]  0.00049" in text
    assert r"B & 100.00$^{*}$ [100.00, 100.00] \\" in latex
    assert "% test/a: B - A +100.00 [+100.00, +100.00], p 0.00049" in latex
    assert r"test/a \\" in latex
    test = json.loads(plain)["figures"]["test/a"]["tests"][0]
    assert (test["p"], test["difference"]) == (2 / 2**12, 100)


def test_a_pattern_that_fits_no_figure_is_an_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", value=1)
    with pytest.raises(ConfigError, match="must fit a figure; there are: test/a"):
        CliRunner().invoke(command, [str(folder), "--figures", "val/*"], catch_exceptions=False)
