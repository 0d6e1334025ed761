"""What do retrieval, VQA and MC-QA learn on ``shapes``, from a pre-trained checkpoint and from nothing?

Types the commands of docs/tasks: ``quickstart_snps3``, and from its run, and without it, ``quickstart_retrieval``,
``quickstart_vqa`` and ``quickstart_mcqa``; the models of retrieval are also evaluated on order clips alone, which have
a twin with the same frames. Each figure has its 95 % interval, chance, and the paired test of ``antmmf compare``
against the same model from nothing. A run that is done in ``--out`` is not done again, one that was stopped goes on.
Prints tables and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from antmmf.contracts import Record
from antmmf_tasks.datasets.shapes.dataset import Shapes

ORDER_CLIPS = Path(__file__).resolve().parent / "toys" / "order_only.py"
FIGURES = {  # those that must be above the same model's without pre-training: by either level
    "retrieval": ("test/t2v/R1", "test/l2/t2v/R1"),
    "retrieval, order clips": ("test/t2v/R1", "test/l2/t2v/R1"),
    "vqa": ("test/accuracy",),
    "mcqa": ("test/accuracy",),
}
SHOWN = ("test/t2v/R1", "test/t2v/R5", "test/t2v/mR", "test/l2/t2v/R1", "test/l1+l2/t2v/R1", "test/accuracy*")
TIMES_CHANCE = 2


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run what is not done, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the runs (default: a temporary one)")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2")
    parser.add_argument(
        "--settings", nargs="*", default=[], help="for every run, such as training_parameters.max_iterations=2"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as beside:
        return measured(options.out or Path(beside), options.seeds, options.settings)


def measured(out: Path, seeds: str, settings: Sequence[str]) -> dict[str, Any]:
    """All runs, each comparison in a table of its own."""
    for seed in seeds.split(","):
        run("quickstart_snps3", out / "snps3" / f"seed{seed}", f"training_parameters.seed={seed}", *settings)
        for task in ("retrieval", "vqa", "mcqa"):
            for start, resume in (("nothing", "none"), ("snps3", out / "snps3" / f"seed{seed}")):
                common = [f"training_parameters.seed={seed}", *settings]
                done = out / f"{task}-{start}" / f"seed{seed}"
                run(f"quickstart_{task}", done, f"training_parameters.resume_file={resume}", *common)
                if task == "retrieval":
                    only = [
                        "dataset_attributes.val=[]",
                        "dataset_attributes.test=[{type: order_only:order_clips, params: {split: test}}]",
                    ]
                    only += ["training_parameters.run_type=val", f"training_parameters.resume_file={done}"]
                    only += ["--plugin", str(ORDER_CLIPS)]
                    run("quickstart_retrieval", out / f"order-{start}" / f"seed{seed}", *common, *only)
    folders = {"retrieval": "retrieval", "retrieval, order clips": "order", "vqa": "vqa", "mcqa": "mcqa"}
    found = {}
    for name, folder in folders.items():
        figures, chances = compared(out / f"{folder}-nothing", out / f"{folder}-snps3"), chance(name)
        passed = {figure: passes(figures[figure], chances) for figure in FIGURES[name]}
        found[name] = {"chance": chances, "figures": figures, "passed": passed}
    result = {"benchmark": "downstream", "seeds": seeds, "tasks": found}
    result["pass"] = all(all(one["passed"].values()) for one in found.values())
    print(json.dumps(result))
    return result


def run(recipe: str, folder: Path, *arguments: str) -> None:
    """One command of ``antmmf``, unless its folder has results."""
    if (folder / "results.json").exists():
        return
    command = [sys.executable, "-m", "antmmf", "run", recipe, f"training_parameters.save_dir={folder}"]
    command += ["training_parameters.resume=auto", *arguments]
    print("$", " ".join(["antmmf", *command[3:]]), flush=True)
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def compared(nothing: Path, pretrained: Path) -> dict[str, Any]:
    """What ``antmmf compare`` says of both, printed and as figure -> both values and the test."""
    command = [sys.executable, "-m", "antmmf", "compare", str(nothing), str(pretrained)]
    command += [part for pattern in SHOWN for part in ("--figures", pattern)]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    answer = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True, text=True).stdout)
    found = {}
    for name, figure in answer["figures"].items():
        first, second = figure["groups"]
        found[name] = {"nothing": first, "snps3": second, "test": figure["tests"][0]}
    return found


def chance(task: str) -> float:
    """Percent that guessing gets: any video, any option; for open questions always the commonest answer, if it is more
    than one answer of all."""
    if task == "mcqa":
        return 25.0
    if task == "vqa":
        known = {record.answer for record in records("train", "questions")}
        asked = Counter(record.answer for record in records("test", "questions"))
        return 100 * max(1 / len(known), max(asked[answer] for answer in known) / asked.total())
    clips = [record for record in records("test", "captions") if record.negatives or task == "retrieval"]
    videos = Counter(text for record in clips for text in set(record.texts))
    queries = [text for record in clips for text in record.texts]
    return 100 * sum(videos[text] / len(clips) for text in queries) / len(queries)


def records(split: Any, kind: Any) -> list[Record]:
    clips = Shapes(split=split, kind=kind)
    clips.prepare()
    return list(clips.records())


def passes(figure: dict[str, Any], chances: float) -> bool:
    """The lower bound is at least twice chance, and more than without pre-training, p below 0.05."""
    test = figure["test"]
    return figure["snps3"]["low"] >= TIMES_CHANCE * chances and test["difference"] > 0 and test["corrected"] < 0.05


if __name__ == "__main__":
    main()
