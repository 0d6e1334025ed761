"""A run's page: HTML that needs nothing else, in which whatever comes from data is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from antmmf_tasks.finished import FinishedRun
from antmmf_tasks.report.failures import Failure, confusions, missed_queries, wrong_answers
from antmmf_tasks.report.plots import curves, histogram, intervals
from antmmf_tasks.report.sheets import Sheets

_BINS = {"1": 1.0, "2-5": 5.0, "6-10": 10.0, "11-50": 50.0, "51-100": 100.0, "over 100": np.inf}
_ALLOWED = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SHOWN = 3


def page(run: FinishedRun, sheets: Mapping[str, Sheets], *, num_failures: int) -> str:
    """The whole page; ``sheets`` draw the clips of splits, where that can be done."""
    splits = list(dict.fromkeys(name.partition("/")[0] for name in run.figures))
    sections: dict[str, str] = {"Figures": _figures(run)}
    for split in reversed(splits):
        sections |= {f"Retrieval on {split}": found for found in _retrieval(run, split)}
        sections |= {f"Questions of {split}": found for found in _questions(run, split)}
        sections |= {f"Failures on {split}": found for found in _failures(run, split, sheets.get(split), num_failures)}
    name = escape(run.folder.resolve().name)
    links = "".join(f'<li><a href="#s{number}">{escape(title)}</a></li>' for number, title in enumerate(sections))
    body = "".join(
        f'<section aria-labelledby="s{number}"><h2 id="s{number}">{escape(title)}</h2>{text}</section>'
        for number, (title, text) in enumerate(sections.items())
    )
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_ALLOWED}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{name}: report</title>'
        f"<style>{style}</style></head><body><header><h1>{name}</h1>{_facts(run)}</header>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main>{body}</main></body></html>\n'
    )


def _facts(run: FinishedRun) -> str:
    config = run.config
    facts = {"task": config["task_attributes"]["type"], "seed": run.seed}
    for split in ("val", "test"):
        if config["dataset_attributes"][split]:
            facts[split] = config["dataset_attributes"][split][0]["type"]
    step = run.results["best_step"] or run.results["step"]
    facts |= {"weights of step": step} if step else {"weights of": config["training_parameters"]["resume_file"]}
    said = " · ".join(f"{escape(name)} {escape(str(value))}" for name, value in facts.items())
    return f'<p class="faint">{said}</p>'


def _figures(run: FinishedRun) -> str:
    rows = []
    for name, figure in run.figures.items():
        interval = "" if figure["low"] is None else f"[{figure['low']:.2f}, {figure['high']:.2f}]"
        number = "" if figure["n"] is None else f"{figure['n']:,}"
        rows.append((escape(name), f"{figure['value']:.2f}", interval, number))
    return _table("Figures with intervals", ("figure", "value", "95 % interval", "n"), rows)


def _table(label: str, heading: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> str:
    """A table that scrolls by itself where it is too wide; cells are HTML."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heading)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="wide" role="region" aria-label="{escape(label)}" tabindex="0"><table class="{kind}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _retrieval(run: FinishedRun, split: str) -> Iterator[str]:
    """Recall over k and the ranks, of each way and each kind of score."""
    ways: dict[str, dict[int, float]] = {}
    ranks: dict[str, dict[str, float]] = {}
    for name, cases in run.cases.items():
        way, _, figure = name.removeprefix(f"{split}/").rpartition("/")
        if not name.startswith(f"{split}/") or not way.endswith(("t2v", "v2t")):
            continue
        if figure[0] == "R" and figure[1:].isdecimal():
            ways.setdefault(way, {})[int(figure[1:])] = float(cases.value.mean())
        elif figure == "MnR":
            counts, below = {}, 0.0
            for label, end in _BINS.items():
                upto = 100 * float((cases.value <= end).mean())
                counts[label], below = upto - below, upto
            ranks[way] = counts
    if not ways:
        return
    lines = {way: sorted(hits.items()) for way, hits in ways.items()}
    curve = curves(lines, title=f"Recall on {split}: " + _spoken(ways), x_label="k, the first so many count")
    bars = histogram(ranks, title=f"Ranks on {split}", x_label="rank of the best right answer")
    ks = sorted({k for hits in ways.values() for k in hits})
    rows = [(escape(way), *(f"{hits[k]:.1f}" if k in hits else "" for k in ks)) for way, hits in ways.items()]
    numbers = _table("Recall by k", ("way", *(f"R@{k}" for k in ks)), rows)
    yield (
        f'<div class="plots"><figure><h3>Recall</h3>{curve}</figure><figure><h3>Ranks</h3>{bars}</figure></div>'
        f"<details><summary>The numbers of the curve</summary>{numbers}</details>"
    )


def _spoken(ways: Mapping[str, Mapping[int, float]]) -> str:
    return "; ".join(f"{way} R@1 {hits[1]:.1f}" for way, hits in ways.items() if 1 in hits)


def _questions(run: FinishedRun, split: str) -> Iterator[str]:
    start = f"{split}/accuracy"
    found = {
        name.removeprefix(start).lstrip("/") or "all": (figure["value"], figure["low"], figure["high"])
        for name, figure in run.figures.items()
        if name == start or name.startswith(f"{start}/")
    }
    if not found:
        return
    said = "; ".join(f"{kind} {value:.1f} %" for kind, (value, _, _) in found.items())
    plot = intervals(found, title=f"Accuracy by kind of question: {said}")
    rows = [
        (escape(one.kind), escape(one.truth), escape(one.answer), str(one.times))
        for one in confusions(run, split, num=_SHOWN)
    ]
    table = _table("Most frequent wrong answers", ("kind", "right", "answered", "times"), rows, kind="words")
    yield (
        f'<div class="plots"><figure><h3>Accuracy by kind, in percent</h3>{plot}</figure>'
        + (f"<figure><h3>Most frequent wrong answers</h3>{table}</figure>" if rows else "")
        + "</div>"
    )


def _failures(run: FinishedRun, split: str, sheets: Sheets | None, num: int) -> Iterator[str]:
    queries, questions = missed_queries(run, split, num=num), wrong_answers(run, split, num=num)
    if split == _last(run) and not run.predictions(split):
        yield '<p class="faint">None are shown: the run did not predict (training_parameters.run_type).</p>'
    elif queries:
        said = "Texts that did not find their video first, from the nearest miss to the farthest."
        yield f'<p class="faint">{said}</p>' + "".join(_query(failure, sheets) for failure in queries)
    elif questions:
        said = "Questions that were answered wrong, the surest first."
        yield f'<p class="faint">{said}</p>' + "".join(_question(failure, sheets) for failure in questions)


def _last(run: FinishedRun) -> str:
    """The split that a run predicts, if it does."""
    return "test" if any(name.startswith("test/") for name in run.figures) else "val"


def _query(failure: Failure, sheets: Sheets | None) -> str:
    line = failure.line
    found = [entry["key"] for entry in line["ranked"]]
    shown = [(key, f"{place}.") for place, key in enumerate(found[:_SHOWN], start=1)]
    if line["truth"] not in found[:_SHOWN]:
        place = "" if failure.rank is None else f"rank {failure.rank:g}:"
        shown.append((line["truth"], place))
    clips = "".join(_clip(key, note, sheets, right=key == line["truth"]) for key, note in shown)
    return f'<article><h3>“{escape(line["query"])}”</h3><div class="clips">{clips}</div></article>'


def _question(failure: Failure, sheets: Sheets | None) -> str:
    line: Mapping[str, Any] = failure.line
    answers = sorted(line["answers"], key=lambda answer: -float(answer["probability"]))[:5]
    items = []
    for answer in answers:
        share, right = float(answer["probability"]), answer["answer"] == line["truth"]
        mark = ' <span class="mark">✓ right</span>' if right else ""
        meter = f'<meter value="{share:.4f}" aria-label="probability">{share:.0%}</meter>'
        items.append(f"<li>{meter} {share:.0%} {escape(str(answer['answer']))}{mark}</li>")
    question = f"“{escape(line['question'])}”" if line["question"] else "Which one?"
    return (
        f'<article><h3>{question}</h3><div class="clips">{_clip(line["key"], "", sheets)}<div><ol class="answers">'
        f"{''.join(items)}</ol><p>right: <strong>{escape(str(line['truth']))}</strong></p></div></div></article>"
    )


def _clip(key: str, note: str, sheets: Sheets | None, *, right: bool = False) -> str:
    picture = sheets.sheet(key) if sheets is not None else "no pictures: the data cannot be read here"
    if picture.startswith("data:"):
        shown = f'<img alt="Frames of {escape(key)}" src="{picture}">'
    else:
        shown = f'<div class="none">{escape(picture)}</div>'
    mark = ' <span class="mark">✓ the right one</span>' if right else ""
    return (
        f'<figure class="{"right" if right else ""}">{shown}<figcaption>{escape(note)} {escape(key)}{mark}'
        "</figcaption></figure>"
    )
