"""``report.html``: what stands on the page of a run, that it needs nothing else, and that data cannot break it."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from antmmf.config.reader import write
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf_tasks.callbacks.report import Report
from antmmf_tasks.finished import FinishedRun
from antmmf_tasks.report.failures import Confusion, confusions, missed_queries, wrong_answers
from antmmf_tasks.report.plots import curves, intervals
from antmmf_tasks.report.sheets import Sheets, jpeg, side_by_side
from antmmf_tasks.report.write import write_report
from antmmf_tasks.tasks.collate import text_hash

EVIL = '<script>alert("x")</script>'
Case = tuple[str, str, int, float]  # figure, key, part, value


def write_run(folder: Path, cases: Sequence[Case], predictions: Sequence[Mapping[str, Any]]) -> Path:
    """A run's folder with figures that are the means of the cases; its data cannot be read."""
    config = {
        "task_attributes": {"type": "x:task", "params": {}},
        "dataset_attributes": {"val": [], "test": [{"type": "x:data", "params": {}}]},
        "training_parameters": {"seed": 3, "resume_file": None},
    }
    (folder / "cases").mkdir(parents=True)
    (folder / "predictions").mkdir()
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    values: dict[str, list[float]] = {}
    for name, _, _, value in cases:
        values.setdefault(f"test/{name}", []).append(value)
    figures = {
        name: {"value": sum(of) / len(of), "low": 1.0, "high": 90.0, "n": len(of)} for name, of in values.items()
    }
    (folder / "results.json").write_text(json.dumps({"figures": figures, "step": 40, "best_step": 20}))
    figure, key, part, value = zip(*cases, strict=True)
    words = {name: pa.array(list(of)).dictionary_encode() for name, of in (("figure", figure), ("key", key))}
    table = {**words, "media": words["key"], "part": list(part), "value": list(value)}
    pq.write_table(pa.table(table), folder / "cases" / "test.parquet")
    lines = "".join(json.dumps(line) + "\n" for line in predictions)
    (folder / "predictions" / "test.jsonl").write_text(lines)
    return folder


def query(text: str, truth: str, *ranked: str) -> dict[str, Any]:
    return {"query": text, "truth": truth, "ranked": [{"key": key, "score": 1.0} for key in ranked]}


def question(key: str, truth: str, *answers: tuple[str, float], asked: str = "what?") -> dict[str, Any]:
    best = [{"answer": answer, "probability": p} for answer, p in answers]
    return {"key": key, "question": asked, "truth": truth, "answers": best}


@pytest.fixture
def retrieval(tmp_path: Path) -> Path:
    """Four texts: one is right, the others' videos have ranks 2, 9 and 60."""
    asked = [("a", "one", 1.0), ("b", EVIL, 2.0), ("c", "three", 9.0), ("d", "four", 60.0)]
    cases: list[Case] = [("t2v/MnR", key, text_hash(text), rank) for key, text, rank in asked]
    cases += [("t2v/R1", key, text_hash(text), 100.0 * (rank <= 1)) for key, text, rank in asked]
    cases += [("t2v/R10", key, text_hash(text), 100.0 * (rank <= 10)) for key, text, rank in asked]
    lines = [query(text, key, *(("a", "b", "x", "y") if key in "ab" else ("x", "a", "y"))) for key, text, _ in asked]
    lines += [{"video": "a", "truth": ["one"], "ranked": []}]
    return write_run(tmp_path / "run", cases, [lines[3], *lines[:3], *lines[4:]])


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Five questions, four of them wrong, of two kinds."""
    kinds = {"1": "what", "2": "what", "3": "what", "4": "who", "5": "who"}
    right = {"1": 0.0, "2": 0.0, "3": 0.0, "4": 0.0, "5": 100.0}
    cases: list[Case] = [("accuracy", key, 0, value) for key, value in right.items()]
    cases += [(f"accuracy/{kinds[key]}", key, 0, value) for key, value in right.items()]
    lines = [
        question("1", "dog", ("cat", 0.9), ("dog", 0.1)),
        question("2", "dog", ("cat", 0.6)),
        question("3", "cow", ("cat", 0.7)),
        question("4", "man", ("boy", 0.8), asked=EVIL),
        question("5", "man", ("man", 1.0)),
    ]
    return write_run(tmp_path / "run", cases, lines)


def page_of(folder: Path, **more: Any) -> str:
    return write_report(folder, registry=Registry(), **more).read_text(encoding="utf-8")


def test_the_curve_and_the_histogram_show_what_the_cases_say(retrieval: Path) -> None:
    page = page_of(retrieval)
    assert "<title>t2v R@1: 25.0</title>" in page
    assert "<title>t2v R@10: 75.0</title>" in page
    shown = dict(re.findall(r"<title>t2v, ([^:<]+): ([\d.]+) %</title>", page))
    assert shown == {"1": "25.0", "2-5": "25.0", "6-10": "25.0", "11-50": "0.0", "51-100": "25.0", "over 100": "0.0"}


def test_missed_queries_go_from_the_nearest_to_the_farthest(retrieval: Path) -> None:
    run = FinishedRun(retrieval)
    assert [failure.rank for failure in missed_queries(run, "test", num=8)] == [2, 9, 60]
    assert [failure.rank for failure in missed_queries(run, "test", num=2)] == [2, 60]


def test_the_right_clip_is_marked_and_shown_with_its_rank_where_it_was_not_found(retrieval: Path) -> None:
    cards = page_of(retrieval).split("<article>")[1:]
    assert len(cards) == 3
    assert [card.count("✓ the right one") for card in cards] == [1, 1, 1]
    assert "2. b <span" in cards[0]
    assert "rank 60: d <span" in cards[2]


def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing(retrieval: Path) -> None:
    page = page_of(retrieval)
    assert "default-src 'none'" in page
    assert re.findall(r"https?://|<script|<link|url\(", page) == []
    assert "&lt;script&gt;" in page


def test_without_data_the_page_says_that_there_are_no_pictures(
    retrieval: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "no pictures: the data cannot be read here" in page_of(retrieval)
    assert "the report has no pictures of test: " in caplog.text


def test_wrong_answers_come_surest_first_and_confusions_by_kind(answers: Path) -> None:
    run = FinishedRun(answers)
    assert [failure.line["key"] for failure in wrong_answers(run, "test", num=3)] == ["1", "4", "3"]
    assert confusions(run, "test", num=1) == [Confusion("what", "dog", "cat", 2), Confusion("who", "man", "boy", 1)]


def test_a_page_of_questions_shows_answers_with_probabilities_and_the_truth(answers: Path) -> None:
    page = page_of(answers)
    first = page.split("<article>")[1]
    assert "90% cat</li>" in first
    assert '10% dog <span class="mark">✓ right</span>' in first
    assert "<td>what</td><td>dog</td><td>cat</td><td>2</td>" in page
    assert 'aria-label="Accuracy by kind of question: all 20.0 %; what 0.0 %; who 50.0 %"' in page
    assert "<script" not in page


def test_plots_escape_names() -> None:
    assert "<script" not in curves({EVIL: [(1, 5.0)]}, title=EVIL, x_label=EVIL)
    assert "<script" not in intervals({EVIL: (1.0, None, None)}, title=EVIL)


def test_a_sheet_has_four_frames_evenly_chosen_as_a_jpeg() -> None:
    frames = torch.arange(0, 250, 10, dtype=torch.uint8)[:7, None, None, None].expand(7, 3, 176, 96)
    row = side_by_side(frames * 4)
    assert row.shape == (3, 88, 4 * 48)
    assert row[0, 0, ::48].tolist() == [0, 80, 160, 240]
    with av.open(io.BytesIO(jpeg(row)), format="mjpeg") as container:
        back = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert back.shape == (88, 192, 3)
    assert abs(int(back[40, 150, 0]) - 240) < 6


def test_sheets_draw_what_the_evaluation_read_and_say_why_they_cannot(tmp_path: Path) -> None:
    sizes = [f"dataset_attributes.test.0.params.{k}={v}" for k, v in (("num_test", 12), ("seconds", 1.0))]
    plan = plan_run("quickstart", [*sizes, "training_parameters.num_threads=1"], registry=Registry())
    (tmp_path / "config.yml").write_text(write(plan.resolved))
    sheets = Sheets(tmp_path / "config.yml", "test", registry=Registry())
    key = sheets.index.record(0).key
    head, _, content = sheets.sheet(key).partition(",")
    assert head == "data:image/jpeg;base64"
    with av.open(io.BytesIO(base64.b64decode(content)), format="mjpeg") as container:
        assert next(container.decode(video=0)).width == 4 * 88
    assert sheets.sheet("nobody") == "not in the data set"
    sheets.close()
    late = Sheets(tmp_path / "config.yml", "test", registry=Registry(), max_seconds=0.0)
    assert late.sheet(key).startswith("not drawn")


def test_the_callback_writes_the_page_and_says_where_it_is(retrieval: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="antmmf"):
        Report().antmmf_run_end(SimpleNamespace(save_dir=retrieval), None)  # type: ignore[arg-type]
    assert f"report: {(retrieval / 'report.html').as_uri()}" in caplog.text
    assert (retrieval / "report.html").is_file()


def test_the_callback_fails_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="antmmf"):
        Report().antmmf_run_end(SimpleNamespace(save_dir=tmp_path), None)  # type: ignore[arg-type]
    assert "no report: " in caplog.text


def test_a_run_that_failed_gets_no_page(retrieval: Path) -> None:
    Report().antmmf_run_end(SimpleNamespace(save_dir=retrieval), "KeyError: x")  # type: ignore[arg-type]
    assert not (retrieval / "report.html").exists()


def test_a_run_that_did_not_predict_says_so_in_the_place_of_failures(retrieval: Path) -> None:
    (retrieval / "predictions" / "test.jsonl").unlink()
    page = page_of(retrieval)
    assert "the run did not predict (training_parameters.run_type)" in page
    assert "<article>" not in page
