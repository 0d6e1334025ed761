"""Cases: what each query or question adds to a figure, as metrics tell and the run's folder keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from antmmf.cases import Cases, write_cases
from antmmf.contracts import Record
from antmmf.data.index import Index, open_index
from antmmf_tasks.metrics.accuracy import Accuracy
from antmmf_tasks.metrics.choice import Choice
from antmmf_tasks.metrics.recall import Recall
from antmmf_tasks.tasks.collate import name_bytes

# Two videos; three captions, of which the second video's two. Caption 20 is nearest to video 1, which is wrong.
ROWS = {
    "video": torch.eye(2),
    "video_id": torch.tensor([1, 2]),
    "text": torch.tensor([[1.0, 0], [0.6, 0.8], [0.8, 0.6]]),
    "text_video_id": torch.tensor([1, 2, 2]),
    "text_hash": torch.tensor([10, 30, 20]),
    "negative": torch.tensor([[0.0, 1.0]]),
    "negative_video_id": torch.tensor([2]),
    "negative_text_hash": torch.tensor([99]),
}


def values(cases: list[Cases], name: str) -> dict[tuple[int, int], float]:
    found = [part for part in cases if name in part.values]
    assert len(found) == 1
    keys = zip(found[0].id.tolist(), found[0].part.tolist(), strict=True)
    return dict(zip(keys, found[0].values[name].tolist(), strict=True))


def test_recall_tells_the_hits_and_the_rank_of_each_caption_and_each_video() -> None:
    metric = Recall(ks=(1,), bootstrap=0)
    metric.update(ROWS)
    figures = metric.compute()
    cases = metric.cases()
    assert values(cases, "t2v/R1") == {(1, 10): 100, (2, 20): 0, (2, 30): 100}
    assert values(cases, "t2v/MnR") == {(1, 10): 1, (2, 20): 2, (2, 30): 1}
    assert values(cases, "v2t/R1") == {(1, 0): 100, (2, 0): 100}
    assert figures["t2v/R1"].value == pytest.approx(np.mean(list(values(cases, "t2v/R1").values())))
    assert values(cases, "t2v/R100") == {(1, 10): 100, (2, 20): 100, (2, 30): 100}
    metric.reset()
    assert metric.cases() == []


def test_choice_tells_the_credit_of_each_caption_of_a_video_that_has_false_ones() -> None:
    metric = Choice()
    metric.update(ROWS)
    assert values(metric.cases(), "choice/accuracy") == {(2, 20): 0, (2, 30): 0}


def test_accuracy_tells_each_question_over_all_and_of_its_kind() -> None:
    metric = Accuracy()
    chosen, target = torch.tensor([[3], [1], [2]]), torch.tensor([3, -1, 0])
    kind = name_bytes(["what", "what", "who"])
    metric.update({"id": torch.tensor([7, 8, 9]), "chosen": chosen, "target": target, "kind": kind})
    cases = metric.cases()
    assert values(cases, "accuracy") == {(7, 0): 100, (8, 0): 0, (9, 0): 0}
    assert values(cases, "unknown") == {(7, 0): 0, (8, 0): 100, (9, 0): 0}
    assert values(cases, "accuracy/what") == {(7, 0): 100, (8, 0): 0}
    assert values(cases, "accuracy/who") == {(9, 0): 0}


class Three:
    """Three records, two of them of one file."""

    def sources(self) -> list[Path]:
        return []

    def records(self) -> list[Record]:
        return [Record("a", "1.mp4"), Record("b", "2.mp4"), Record("c", "1.mp4")]


def test_the_file_has_a_row_for_each_figure_and_case_with_key_and_media(tmp_path: Path) -> None:
    index: Index = open_index(Three(), name="three", version="1", parameters={}, folder=tmp_path)
    a, b, c = (int(id) for id in index.ids)
    both = Cases(np.array([c, a]), np.array([5, 0]), {"x": np.array([1.0, 2.0]), "y": np.array([3.0, 4.0])})
    one = Cases(np.array([b]), np.array([0]), {"z": np.array([6.0])})
    write_cases([both, one], index, tmp_path / "new" / "test.parquet")
    rows = pq.read_table(tmp_path / "new" / "test.parquet").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("x", "c", "1.mp4", 5, 1.0),
        ("x", "a", "1.mp4", 0, 2.0),
        ("y", "c", "1.mp4", 5, 3.0),
        ("y", "a", "1.mp4", 0, 4.0),
        ("z", "b", "2.mp4", 0, 6.0),
    ]
