"""What a run got wrong, from its predictions and cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from antmmf_tasks.finished import FigureCases, FinishedRun
from antmmf_tasks.tasks.collate import text_hash


@dataclass(frozen=True)
class Failure:
    """A query or question, with the line of the predictions; ``rank`` of the right answer where it is known."""

    line: Mapping[str, Any]
    rank: float | None = None


@dataclass(frozen=True)
class Confusion:
    """How often a kind of question was answered with ``answer`` where ``truth`` was right."""

    kind: str
    truth: str
    answer: str
    times: int


def missed_queries(run: FinishedRun, split: str, *, num: int) -> list[Failure]:
    """Up to ``num`` texts that did not find their video first, from the nearest miss to the farthest."""
    ranks = _ranks(run, split)
    found = []
    for line in run.predictions(split):
        if line.get("truth") is None or "query" not in line:
            continue
        best = line["ranked"][0]["key"] if line["ranked"] else None
        rank = ranks.get((line["truth"], text_hash(line["query"])))
        if (rank > 1) if rank is not None else (best != line["truth"]):
            found.append(Failure(line, rank))
    found.sort(key=lambda failure: (failure.rank is None, failure.rank or 0.0))
    places = np.unique(np.linspace(0, len(found) - 1, min(num, len(found))).round().astype(int))
    return [found[place] for place in places.tolist()]


def wrong_answers(run: FinishedRun, split: str, *, num: int) -> list[Failure]:
    """Up to ``num`` questions that were answered wrong, the surest first."""
    found = [Failure(line) for line in _answered(run, split) if _best(line)["answer"] != line["truth"]]
    return sorted(found, key=lambda failure: -float(_best(failure.line)["probability"]))[:num]


def confusions(run: FinishedRun, split: str, *, num: int) -> list[Confusion]:
    """Of each kind of question, the ``num`` most frequent wrong answers with the right ones."""
    kinds = kinds_of(run.cases, split)
    counts = Counter(
        (kinds.get(line["key"], "all"), str(line["truth"]), str(_best(line)["answer"]))
        for line in _answered(run, split)
        if _best(line)["answer"] != line["truth"]
    )
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    taken: Counter[str] = Counter()
    found = []
    for (kind, truth, answer), times in ordered:
        taken[kind] += 1
        if taken[kind] <= num:
            found.append(Confusion(kind, truth, answer, times))
    return sorted(found, key=lambda confusion: confusion.kind)


def kinds_of(cases: Mapping[str, FigureCases], split: str) -> dict[str, str]:
    """Key of each question -> its kind, as the figures ``accuracy/KIND`` tell."""
    start = f"{split}/accuracy/"
    return {
        str(key): name.removeprefix(start)
        for name, of_kind in cases.items()
        if name.startswith(start)
        for key in of_kind.key.tolist()
    }


def _answered(run: FinishedRun, split: str) -> Iterator[dict[str, Any]]:
    for line in run.predictions(split):
        if "question" in line and line.get("truth") is not None and line["answers"]:
            yield line


def _best(line: Mapping[str, Any]) -> Mapping[str, Any]:
    answers: Sequence[Mapping[str, Any]] = line["answers"]
    return max(answers, key=lambda answer: float(answer["probability"]))


def _ranks(run: FinishedRun, split: str) -> dict[tuple[str, int], float]:
    """(key of the video, hash of the text) -> rank, by the cross encoder where the predictions are its own."""
    names = [name for name in run.cases if name.startswith(f"{split}/") and name.endswith("t2v/MnR")]
    names.sort(key=lambda name: ("/l2" not in name, "dsl" in name, len(name)))
    if not names:
        return {}
    cases = run.cases[names[0]]
    return dict(zip(zip(cases.key.tolist(), cases.part.tolist(), strict=True), cases.value.tolist(), strict=True))
